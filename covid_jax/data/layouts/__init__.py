"""Recognises the layout of a dataset folder from its file names; no image or mask is opened."""

from pathlib import Path

from covid_jax.data.layouts import medseg, mosmed, nnunet, pairs, semiseg, zenodo
from covid_jax.data.layouts.folders import entries
from covid_jax.data.patients import name_patients
from covid_jax.data.scan import Listing
from covid_jax.errors import DataError
from covid_jax.files import reading

_PUBLISHED = (medseg, semiseg, zenodo, mosmed, nnunet)  # pairs only where none of them is found


def list_scans(root: Path, classes: tuple[str, ...] = ()) -> Listing:
    """Lists the scans of a dataset folder of any layout, with their patients.

    Args:
      root: the folder.
      classes: lesion classes to distinguish; where a collection has both multi-class and binary
        masks, this chooses the multi-class ones.

    Raises:
      DataError: on a missing folder, an unknown layout (saying what was looked for), several at
        once, an image without a mask or a mask without an image, two files of one name, or a
        folder that cannot be listed.
    """
    with reading(root):
        if not root.is_dir():
            raise DataError(f"{root}: no such folder")
        layouts = [layout for layout in _PUBLISHED if layout.recognises(root)]
        if len(layouts) > 1:
            names = " and ".join(layout.NAME for layout in layouts)
            raise DataError(f"{root}: holds {names}; give each a folder of its own and name both")
        if not layouts and not pairs.recognises(root):
            raise DataError(_unknown(root))
        return name_patients((*layouts, pairs)[0].list_scans(root, classes), root / "patients.csv")


def _unknown(root: Path) -> str:
    layouts = (*_PUBLISHED, pairs)
    width = max(len(layout.NAME) for layout in layouts)
    looked_for = "".join(f"\n  {layout.NAME:{width}}  {layout.LOOKED_FOR}" for layout in layouts)
    names = [path.name for path in entries(root)]
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if names[6:] else "")
    found = shown or "an empty folder"
    return f"{root}: no dataset of a known layout here. Looked for:{looked_for}\nFound: {found}"
