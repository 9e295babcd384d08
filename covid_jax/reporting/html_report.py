"""The report of an evaluation: one HTML file that opens from disk and asks nothing of a network."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import NamedTuple

from covid_jax.files import replacing
from covid_jax.reporting.drawing import FALSE_ALARM, HIT, MISS, Colour
from covid_jax.reporting.report_parts import (
    ReportFigure,
    Section,
    Summary,
    digits_for,
    figure_grid,
    listed,
    section,
    summary_table,
    tiles,
)
from covid_jax.reporting.slice_viewer import RESIZING, SlicePage, packed, plain_value

_SCRIPTS = ("pixels.js", "viewer.js", "zoom.js", "table.js")
_WORDS = {  # as they are written in headings
    "dice": "Dice",
    "iou": "IoU",
    "mae": "MAE",
    "hd95": "HD95",
    "assd": "ASSD",
    "nsd": "NSD",
    "ece": "ECE",
}


class Report(NamedTuple):
    """What a report shows.

    Attributes:
      title: the page's.
      lead: a sentence or two under it.
      warnings: what a reader must know before any number.
      summaries: tables of metrics; the means of the first one's first rows are shown large.
      notes: what helps to read the numbers.
      sections: in words (protocol, split); folded ones stand at the page's end.
      slices: a row each in the table, with their pixels.
      threshold: at which the own-grid values were computed; the slider begins there.
      decision: how the own-grid masks were decided, where not by the threshold alone.
      figures: with captions.
      labels: of keys of ``SlicePage.values``, where the key in plain words will not do.
    """

    title: str
    lead: str
    summaries: Sequence[Summary]
    slices: Sequence[SlicePage]
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    sections: Sequence[Section] = ()
    figures: Sequence[ReportFigure] = ()
    threshold: float = 0.5
    decision: str = ""
    labels: Mapping[str, str] = {}


def write_report(path: Path, report: Report) -> None:
    """Writes the report whole or not at all.

    All texts are shown as they are: none is taken for HTML. The page may neither fetch anything
    nor run another script than its own (Content-Security-Policy).

    Args:
      path: of the HTML file.
      report: what it shows.

    Raises:
      ValueError: if a figure is no PNG.
      OSError: if the file cannot be written.
    """
    colours = {"hit": HIT, "false_alarm": FALSE_ALARM, "miss": MISS}
    style = Template(_part("report.css")).substitute(
        {name: f"rgb({' '.join(map(str, _bytes(c)))})" for name, c in colours.items()}
    )
    script = "".join(map(_part, _SCRIPTS))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; "
        f"script-src {_digest(script)}; base-uri 'none'; form-action 'none'"
    )
    page = Template(_part("report.html")).substitute(
        policy=policy,
        style=style,
        script=script,
        title=escape(report.title),
        lead=escape(report.lead),
        tiles=tiles(report.summaries),
        warnings=listed("warnings", "Warnings", report.warnings),
        summaries="".join(map(summary_table, report.summaries)),
        notes=listed("notes", "Notes", report.notes),
        sections="".join(section(part) for part in report.sections if not part.folded),
        folded="".join(section(part) for part in report.sections if part.folded),
        figures=figure_grid(report.figures),
        resizing=escape(RESIZING),
        data=_data(report, {name: _bytes(colour) for name, colour in colours.items()}),
    )
    with replacing(path) as partial, partial.open("wb") as file:
        head, _, foot = page.partition("<!-- pixels -->")
        file.write(_printable(head).encode())
        for i, item in enumerate(report.slices):
            block = f'<script type="text/plain" id="pixels-{i}">{packed(item)}</script>\n'
            file.write(block.encode())
        file.write(foot.encode())


def _printable(text: str) -> str:
    """Names of files may be no UTF-8: such letters become numbers."""
    return text.encode("utf-8", "backslashreplace").decode()


def _part(name: str) -> str:
    return files("covid_jax.evaluation").joinpath("page", name).read_text("utf-8")


def _digest(text: str) -> str:
    """How a Content-Security-Policy names the one script or style that it lets through."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _bytes(colour: Colour) -> list[int]:
    return [round(255 * part) for part in colour]


def _data(report: Report, colours: dict[str, list[int]]) -> str:
    """Everything the scripts need but pixels, as JSON that cannot end its script element."""
    keys = list(dict.fromkeys(key for item in report.slices for key in item.values))
    slices = [
        {
            "id": _printable(item.id),
            "source": _printable(item.source),
            "patient": None if item.patient is None else _printable(item.patient),
            "note": _printable(item.note),
            "grid": item.grid,
            "size": item.image.shape,
            "values": {key: plain_value(item.values.get(key)) for key in keys},
        }
        for item in report.slices
    ]
    columns = [
        {
            "key": key,
            "label": _printable(report.labels.get(key) or spoken(key)),
            "digits": digits_for(item.values.get(key) for item in report.slices),
        }
        for key in keys
    ]
    data = {
        "threshold": report.threshold,
        "decision": report.decision or f"at threshold {report.threshold:.3g}",
        "colours": colours,
        "columns": columns,
        "slices": slices,
    }
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")


def spoken(key: str) -> str:
    """A key as a heading: ``hd95_mm`` is HD95 mm."""
    words = " ".join(_WORDS.get(word, word) for word in key.split("_"))
    return words[:1].upper() + words[1:]
