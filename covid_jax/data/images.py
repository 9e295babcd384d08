"""Grey-level picture files (PNG, JPEG) to arrays. Only this file opens pictures."""

from pathlib import Path

import numpy as np
from jaxtyping import Num
from PIL import Image

from covid_jax.errors import DataError


def read_picture(path: Path) -> Num[np.ndarray, "h w"]:
    """Reads a picture as one channel of grey values: 8-bit, or 16-bit where the file has them.

    Raises:
      DataError: if the file is missing or damaged.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with Image.open(path) as picture:
            if picture.mode.startswith("I"):
                return np.asarray(picture)
            return np.asarray(picture.convert("L"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable picture ({error})") from error
