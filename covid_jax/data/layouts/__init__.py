"""Which folder is which dataset: recognised by the names in it; no image or mask is opened."""

from pathlib import Path

from covid_jax.data.layouts import medseg, mosmed, nnunet, pairs, semiseg, zenodo
from covid_jax.data.layouts.folders import entries
from covid_jax.data.layouts.join import join as join
from covid_jax.data.patients import name_patients
from covid_jax.data.scan import Listing
from covid_jax.errors import DataError

_PUBLISHED = (medseg, semiseg, zenodo, mosmed, nnunet)  # pairs only where none of them is found


def list_scans(root: Path, classes: tuple[str, ...] = ()) -> Listing:
    """Lists a dataset folder's scans, whatever its layout, and whose they are.

    Args:
      root: the folder.
      classes: lesion classes to be told apart; where a collection has masks for that beside its
        binary ones, they are taken.

    Raises:
      DataError: on a missing folder, an unknown layout (saying what was looked for), several at
        once, an image without a mask or a mask without an image, two files of one name, or a
        folder that cannot be listed.
    """
    try:
        if not root.is_dir():
            raise DataError(f"{root}: no such folder")
        found = [layout for layout in _PUBLISHED if layout.recognises(root)]
        if len(found) > 1:
            names = " and ".join(layout.NAME for layout in found)
            raise DataError(f"{root}: holds {names}; give each a folder of its own and name both")
        if not found and not pairs.recognises(root):
            raise DataError(_unknown(root))
        layout = found[0] if found else pairs
        return name_patients(layout.list_scans(root, classes), root / "patients.csv")
    except OSError as error:
        place = error.filename or root
        raise DataError(f"{place}: cannot be looked at ({error.strerror or error})") from error


def _unknown(root: Path) -> str:
    layouts = (*_PUBLISHED, pairs)
    width = max(len(layout.NAME) for layout in layouts)
    looked_for = [f"  {layout.NAME:{width}}  {layout.LOOKED_FOR}" for layout in layouts]
    names = [path.name for path in entries(root)]
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if names[6:] else "")
    return "\n".join(
        [
            f"{root}: no dataset of a known layout here. Looked for:",
            *looked_for,
            f"Found: {shown or 'an empty folder'}",
        ]
    )
