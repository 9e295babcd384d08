"""A report in one HTML file that opens from disk: of an evaluation, or the page of a scan."""

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import NamedTuple

from covid_jax.errors import printable
from covid_jax.evaluation.report import finite
from covid_jax.files import replacing
from covid_jax.reporting import report_parts as parts
from covid_jax.reporting.drawing import FALSE_ALARM, HIT, MISS, to_bytes
from covid_jax.reporting.slice_viewer import RESIZING, SlicePage, packed
from covid_jax.runs.provenance import NOTICE

_COLOURS = {"hit": to_bytes(HIT), "false_alarm": to_bytes(FALSE_ALARM), "miss": to_bytes(MISS)}
_SCRIPTS = ("pixels.js", "viewer.js", "zoom.js", "table.js")
_GROUPS = {  # of columns in the table of slices, by the prefixes of their keys
    "Areas and lesions": ("lesion", "predicted", "false_lesions", "lung"),
    "Distances": ("hausdorff", "hd95", "assd", "nsd"),
    "Probabilities": ("mae", "brier", "covid_semiseg", "probability", "entropy"),
}


class Report(NamedTuple):
    """The content of a report.

    Attributes:
      title: of the page.
      lead: a sentence or two under the title.
      summaries: tables of metrics; the first means of the first table are also shown in large type.
      slices: rows of the table of slices, with their pixels.
      picks: labels and ids of slices that are shown at the top of the page.
      warnings: shown above all numbers.
      notes: shown below the tables.
      sections: texts such as protocol and split; folded ones are at the end of the page.
      figures: with captions.
      threshold: of the masks on the own grids; the initial value of the slider.
      decision: rule of these masks, if it is not the threshold alone.
      above: of a scan without truth, its pixels with round(255 p) above 0, 1, ... 255.
      voxel_ml: volume of each of them; None where it is unknown.
    """

    title: str
    lead: str
    summaries: Sequence[parts.Summary]
    slices: Sequence[SlicePage]
    picks: Sequence[tuple[str, str]] = ()
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    sections: Sequence[parts.Section] = ()
    figures: Sequence[parts.ReportFigure] = ()
    threshold: float = 0.5
    decision: str = ""
    above: Sequence[int] = ()
    voxel_ml: float | None = None


def write_report(path: Path, report: Report) -> None:
    """Writes the report completely or not at all.

    All texts are escaped. The page's Content-Security-Policy allows no request and no script but
    its own.

    Args:
      path: of the HTML file.
      report: its content.

    Raises:
      ValueError: if a figure is no PNG.
      OSError: if the file cannot be written.
    """
    style, digest = stylesheet()
    script = "".join(map(page_part, _SCRIPTS))
    policy = (
        f"default-src 'none'; img-src data:; style-src {digest}; "
        f"script-src {_digest(script)}; base-uri 'none'; form-action 'none'"
    )
    page = Template(page_part("report.html")).substitute(
        kind="scan" if report.above else "evaluation",
        policy=policy,
        style=style,
        script=script,
        title=escape(report.title),
        notice=NOTICE,
        lead=escape(report.lead),
        tiles=parts.tiles(report.summaries),
        warnings=parts.listed("warnings", "Warnings", report.warnings),
        summaries="".join(map(parts.summary_table, report.summaries)),
        notes=parts.listed("notes", "Notes", report.notes),
        sections="".join(parts.section(part) for part in report.sections if not part.folded),
        folded="".join(parts.section(part) for part in report.sections if part.folded),
        figures=parts.figure_grid(report.figures),
        resizing=escape(RESIZING),
        data=_data(report),
    )
    with replacing(path) as partial, partial.open("wb") as file:
        head, _, foot = page.partition("<!-- pixels -->")
        file.write(printable(head).encode())
        for i, item in enumerate(report.slices):
            block = f'<script type="text/plain" id="pixels-{i}">{packed(item)}</script>\n'
            file.write(block.encode())
        file.write(foot.encode())


def stylesheet() -> tuple[str, str]:
    """The style of every page, and its source expression for a Content-Security-Policy."""
    colours = {name: f"rgb{colour}" for name, colour in _COLOURS.items()}
    style = Template(page_part("report.css")).substitute(colours)
    return style, _digest(style)


def page_part(name: str) -> str:
    """The text of a file of the page."""
    return files("covid_jax.reporting").joinpath("page", name).read_text("utf-8")


def _digest(text: str) -> str:
    """The source expression of a Content-Security-Policy that allows this script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _data(report: Report) -> str:
    """The data of the scripts except pixels, as JSON without ``</script>``."""
    order = ["Overlap", *_GROUPS]
    keys = dict.fromkeys(key for item in report.slices for key in item.values)
    keys = sorted(keys, key=lambda key: order.index(_group(key)))
    slices = [
        {
            "id": printable(item.id),
            "source": printable(item.source),
            "patient": None if item.patient is None else printable(item.patient),
            "note": printable(item.note),
            "grid": item.grid,
            "size": item.image.shape,
            "values": {key: finite(item.values.get(key)) for key in keys},
        }
        for item in report.slices
    ]
    columns = [
        {
            "key": key,
            "label": printable(parts.in_words(key)),
            "group": _group(key),
            "digits": parts.digits_for(item.values.get(key) for item in report.slices),
        }
        for key in keys
    ]
    data = {
        "threshold": report.threshold,
        "decision": report.decision or f"at threshold {report.threshold:.3g}",
        "colours": _COLOURS,
        "above": report.above,
        "voxel": report.voxel_ml,
        "columns": columns,
        "picks": [{"label": label, "id": printable(id)} for label, id in report.picks],
        "slices": slices,
    }
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")


def _group(key: str) -> str:
    return next(
        (group for group, prefixes in _GROUPS.items() if key.startswith(prefixes)), "Overlap"
    )
