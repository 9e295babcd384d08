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

from covid_jax.errors import printable
from covid_jax.files import replacing
from covid_jax.reporting.drawing import FALSE_ALARM, HIT, MISS, to_bytes
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
from covid_jax.runs.provenance import NOTICE

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
_GROUPS = {  # of the columns of the table of slices, by the beginnings of their keys
    "Areas and lesions": ("lesion", "predicted", "false_lesions"),
    "Distances": ("hausdorff", "hd95", "assd", "nsd"),
    "Probabilities": ("mae", "brier", "covid_semiseg"),
}


class Report(NamedTuple):
    """The content of a report.

    Attributes:
      title: of the page.
      lead: a sentence or two under the title.
      summaries: tables of metrics; the first means of the first table are shown large.
      slices: a row of the table for each, with its pixels.
      picks: labels and ids of slices that are shown at the top of the page.
      warnings: what a reader must know before any number.
      notes: what helps to read the numbers.
      sections: text (protocol, split); folded ones are at the end of the page.
      figures: with captions.
      threshold: at which the own-grid values were computed; the initial value of the slider.
      decision: how the own-grid masks were decided, where not by the threshold alone.
      labels: of keys of ``SlicePage.values`` whose words do not make a label.
    """

    title: str
    lead: str
    summaries: Sequence[Summary]
    slices: Sequence[SlicePage]
    picks: Sequence[tuple[str, str]] = ()
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    sections: Sequence[Section] = ()
    figures: Sequence[ReportFigure] = ()
    threshold: float = 0.5
    decision: str = ""
    labels: Mapping[str, str] = {}


def write_report(path: Path, report: Report) -> None:
    """Writes the report whole or not at all.

    All texts are escaped. The page can neither fetch anything nor run another script than its own
    (Content-Security-Policy).

    Args:
      path: of the HTML file.
      report: its content.

    Raises:
      ValueError: if a figure is no PNG.
      OSError: if the file cannot be written.
    """
    colours = {"hit": to_bytes(HIT), "false_alarm": to_bytes(FALSE_ALARM), "miss": to_bytes(MISS)}
    style = Template(_part("report.css")).substitute(
        {name: f"rgb{colour}" for name, colour in colours.items()}
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
        notice=NOTICE,
        lead=escape(report.lead),
        tiles=tiles(report.summaries),
        warnings=listed("warnings", "Warnings", report.warnings),
        summaries="".join(map(summary_table, report.summaries)),
        notes=listed("notes", "Notes", report.notes),
        sections="".join(section(part) for part in report.sections if not part.folded),
        folded="".join(section(part) for part in report.sections if part.folded),
        figures=figure_grid(report.figures),
        resizing=escape(RESIZING),
        data=_data(report, colours),
    )
    with replacing(path) as partial, partial.open("wb") as file:
        head, _, foot = page.partition("<!-- pixels -->")
        file.write(printable(head).encode())
        for i, item in enumerate(report.slices):
            block = f'<script type="text/plain" id="pixels-{i}">{packed(item)}</script>\n'
            file.write(block.encode())
        file.write(foot.encode())


def _part(name: str) -> str:
    return files("covid_jax.reporting").joinpath("page", name).read_text("utf-8")


def _digest(text: str) -> str:
    """How a Content-Security-Policy names the one script or style that it lets through."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _data(report: Report, colours: Mapping[str, Sequence[int]]) -> str:
    """Everything the scripts need but pixels, as JSON that cannot end its script element."""
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
            "values": {key: plain_value(item.values.get(key)) for key in keys},
        }
        for item in report.slices
    ]
    columns = [
        {
            "key": key,
            "label": printable(report.labels.get(key) or in_words(key)),
            "group": _group(key),
            "digits": digits_for(item.values.get(key) for item in report.slices),
        }
        for key in keys
    ]
    data = {
        "threshold": report.threshold,
        "decision": report.decision or f"at threshold {report.threshold:.3g}",
        "colours": colours,
        "columns": columns,
        "picks": [{"label": label, "id": printable(id)} for label, id in report.picks],
        "slices": slices,
    }
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")


def _group(key: str) -> str:
    starts = ((group, key.startswith(beginnings)) for group, beginnings in _GROUPS.items())
    return next((group for group, fits in starts if fits), "Overlap")


def in_words(key: str) -> str:
    """A key as a heading: ``hd95_mm`` is HD95 mm."""
    words = " ".join(_WORDS.get(word, word) for word in key.split("_"))
    return words[:1].upper() + words[1:]
