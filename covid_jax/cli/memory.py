"""What a process does with memory it no longer needs: keeps it, for the next step."""

import ctypes
import sys

# malloc.h of the GNU C library.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Lets the C library keep what is freed instead of giving it back to the system.

    On a CPU, XLA frees its large buffers after every step and asks for them again at the next. The
    system then hands out fresh pages, zeroed one by one: a tenth to a quarter of a full-width
    training step. The price: a peak a quarter to three fifths higher (benchmarks/NOTES.md), kept
    until the process ends. For scripts, not for a library.

    Returns:
      Whether it was done: False where the C library is not GNU's, or refuses.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    settings = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))
    return all([mallopt(name, value) == 1 for name, value in settings])
