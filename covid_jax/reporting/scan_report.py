"""The page of a predicted scan, its slices in the report's viewer, and an index of such pages."""

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jaxtyping import Int, UInt8

from covid_jax.errors import printable
from covid_jax.evaluation.contents import Section, in_words
from covid_jax.files import replace_text
from covid_jax.reporting.drawing import Image, Map, Window
from covid_jax.reporting.html_report import Report, fill_page, write_report
from covid_jax.reporting.slice_viewer import SlicePage, display_arrays

_NUMBERS = ("slices", "slices_with_lesion", "lesion_voxels", "lesion_ml", "lesions")
_NUMBERS += ("share_of_lung", "lesion_hu_mean", "lesion_hu_sd", "probability_in_lesion")


ScanSlice = tuple[SlicePage, Int[np.ndarray, "256"]]  # and pixels of its own grid by round(255 p)


def scan_slice(name: str, image: Image, probability: Map, window: Window) -> ScanSlice:
    """A slice for ``write_scan_report``.

    Args:
      name: of the slice.
      image: raw intensities.
      probability: of a lesion, on the same grid.
      window: the intensities that are shown as black and as white.
    """
    arrays = display_arrays(image, np.zeros(image.shape, np.uint8), probability, window)
    greys: UInt8[np.ndarray, "h w"] = np.rint(255 * probability).astype(np.uint8)
    levels = np.bincount(greys.ravel(), minlength=256)
    return (SlicePage(name, "", None, image.shape, *arrays, {}), levels)


def write_scan_report(
    path: Path, slices: Sequence[ScanSlice], numbers: Mapping[str, Any], **page: Any
) -> None:
    """Writes the report page of a scan: the numbers of its summary, and a viewer of all slices.

    Args:
      path: of the HTML file.
      slices: in order.
      numbers: the content of the scan's summary, with ``per_slice``.
      page: ``threshold``, ``decision``, ``voxel_ml`` (without it pixels are counted), ``warnings``
        and ``notes`` of the page's ``Report``.

    Raises:
      OSError: if it cannot be written.
    """
    rows = [dict(row) for row in numbers["per_slice"]]
    for row in rows if page["voxel_ml"] else ():
        row["lesion_ml"] = row["lesion_pixels"] * page["voxel_ml"]
    known = [key for key in rows[0] if any(row[key] is not None for row in rows)]
    pages = [
        item._replace(source=numbers["name"], values={key: row[key] for key in known})
        for (item, _), row in zip(slices, rows, strict=True)
    ]
    marked = [index for index, row in enumerate(rows) if row["lesion_pixels"]]
    most = sorted(marked, key=lambda index: -rows[index]["lesion_pixels"])
    shown = {in_words(name): _cell(numbers[name]) for name in _NUMBERS if numbers[name] is not None}
    shown["Scale"] = numbers["scale"]
    at_or_below = np.cumsum(np.sum([levels for _, levels in slices], axis=0))
    decided = page["decision"] or f"at threshold {page['threshold']:g}"
    report = Report(
        title=numbers["name"],
        lead=f"Predicted {decided}; not checked by an expert.",
        slices=pages,
        picks=[("most lesion", pages[i].id) for i in sorted(most[:3])],
        sections=[Section("Mask", values=shown)],
        above=(at_or_below[-1] - at_or_below).tolist(),
        **page,
    )
    write_report(path, report)


def write_index(path: Path, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Writes a table of scans with links to their pages.

    Args:
      path: of the HTML file.
      rows: for each scan, the path of its page relative to ``path``, and its summary.

    Raises:
      OSError: if it cannot be written.
    """
    columns = ("slices", "lesion_ml", "lesion_voxels", "lesions", "share_of_lung")
    head = "".join(f'<th scope="col">{escape(in_words(name))}</th>' for name in columns)
    body = ""
    for link, record in rows:
        name = f'<a href="{quote(os.fsencode(link))}">{escape(printable(record["name"]))}</a>'
        cells = "".join(f"<td>{_cell(record.get(column))}</td>" for column in columns)
        body += f'<tr><th scope="row">{name}</th>{cells}</tr>\n'
    replace_text(path, fill_page("index.html", head=head, body=body))


def _cell(value: Any) -> str:
    if not isinstance(value, int | float):
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3g}"
