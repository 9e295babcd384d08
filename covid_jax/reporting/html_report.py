"""A report in a single HTML file that works offline: of an evaluation, or of a predicted scan."""

import base64
import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from covid_jax.errors import printable
from covid_jax.evaluation.contents import ScoreTable, Section, cells, digits_for, in_words, lines
from covid_jax.evaluation.report import finite
from covid_jax.files import replacing
from covid_jax.reporting.drawing import FALSE_ALARM, HIT, MISS, to_bytes
from covid_jax.reporting.slice_viewer import DISPLAY_SIZE, SlicePage, packed
from covid_jax.runs.provenance import NOTICE

_COLOURS = {"hit": to_bytes(HIT), "false_alarm": to_bytes(FALSE_ALARM), "miss": to_bytes(MISS)}
_GROUPS = {  # of columns in the table of slices, by the prefixes of their keys
    "Areas and lesions": ("lesion", "predicted", "false_lesions", "lung"),
    "Distances": ("hausdorff", "hd95", "assd", "nsd"),
    "Probabilities": ("mae", "brier", "covid_semiseg", "probability", "entropy"),
}
_TEXTS = ("id", "source", "patient", "note")


class Report(NamedTuple):
    """The content of a report; figures are HTML.

    Attributes:
      title: of the page.
      lead: a sentence or two under the title.
      slices: rows of the table of slices, with their pixels.
      headline: table of metrics; the means of its first four are shown in large type.
      tables: of metrics.
      picks: labels and ids of slices that are shown at the top of the page.
      warnings: shown above all numbers.
      notes: shown below the tables.
      sections: such as protocol and split; folded ones go to the page's end.
      figures: from ``figure``.
      threshold: of the masks on the own grids; the initial value of the slider.
      decision: rule that produced these masks, if it is not only the threshold.
      above: for a scan without truth, the number of its pixels with round(255 p) above 0, 1, ...
        255.
      voxel_ml: volume of one voxel in ml; None if unknown.
    """

    title: str
    lead: str
    slices: Sequence[SlicePage]
    headline: Mapping[str, Mapping[str, Any]] = {}
    tables: Sequence[ScoreTable] = ()
    picks: Sequence[tuple[str, str]] = ()
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    sections: Sequence[Section] = ()
    figures: Sequence[str] = ()
    threshold: float = 0.5
    decision: str = ""
    above: Sequence[int] = ()
    voxel_ml: float | None = None


def write_report(path: Path, report: Report) -> None:
    """Writes the report completely or not at all.

    All texts are escaped. The page's Content-Security-Policy forbids requests and all scripts
    except the page's own.

    Args:
      path: of the HTML file.
      report: its content.

    Raises:
      OSError: if the file cannot be written.
    """
    script = "".join(map(page_part, ("pixels.js", "viewer.js", "zoom.js", "table.js")))
    figures = f'<div class="grid">{"".join(report.figures)}</div>'
    page = fill_page(
        "report.html",
        kind="scan" if report.above else "evaluation",
        script=script,
        script_digest=_digest(script),
        title=escape(report.title),
        lead=escape(report.lead),
        tiles="".join(_tile(*item) for item in list(report.headline.items())[:4]),
        warnings=_list("Warnings", report.warnings),
        summaries="".join(map(_table, report.tables)),
        notes=_list("Notes", report.notes),
        sections="".join(_section(part) for part in report.sections if not part.folded),
        folded="".join(_section(part) for part in report.sections if part.folded),
        figures=_card("Figures", figures) if report.figures else "",
        display_size=str(DISPLAY_SIZE),
        data=_data(report),
    )
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        head, _, foot = page.partition("<!-- pixels -->")
        file.write(head)
        for i, item in enumerate(report.slices):
            file.write(f'<script type="text/plain" id="pixels-{i}">{packed(item)}</script>\n')
        file.write(foot)


def fill_page(name: str, **texts: str) -> str:
    """A template of ``page/`` with the style, the notice and the given texts filled in."""
    colours = {colour: f"rgb{value}" for colour, value in _COLOURS.items()}
    style = Template(page_part("report.css")).substitute(colours)
    texts |= {"style": style, "digest": _digest(style), "notice": NOTICE}
    return printable(Template(page_part(name)).substitute(texts))


def page_part(name: str) -> str:
    """The text of a file of the page."""
    return files("covid_jax.reporting").joinpath("page", name).read_text("utf-8")


def figure(name: str, caption: str, png: bytes) -> str:
    """A figure under the heading ``name``, from the bytes of its PNG file.

    Raises:
      ValueError: if it is not a PNG file.
    """
    if not png.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError(f"figure {name!r} is no PNG")
    width, height = struct.unpack(">II", png[16:24])
    tall = ' class="wide"' * (height > width)  # many rows, too small to read in one column
    name = escape(name)
    return (
        f'<figure{tall}><button type="button" aria-label="{name}: larger or smaller">'
        f'<img width="{width}" height="{height}" alt="{name}" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}"></button>'
        f"<figcaption><strong>{name}.</strong> {escape(caption)}</figcaption></figure>\n"
    )


def _table(part: ScoreTable) -> str:
    """A card with a table of metrics, which scrolls on a narrow screen."""
    head, *body = lines(part.rows)
    headings = "".join(f'<th scope="col">{name}</th>' for name in head)
    rows = (
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{cell}</td>" for cell in row)}</tr>'
        for name, *row in body
    )
    table = f'<table class="summary"><thead><tr>{headings}</tr></thead>'
    table += f"<tbody>{''.join(rows)}</tbody></table>"
    region = f'class="scroll" tabindex="0" role="region" aria-label="{escape(part.title)}"'
    return _card(part.title, f"<div {region}>{table}</div>{_paragraph(part.note)}")


def _section(part: Section) -> str:
    """A card with a text and a line for each value; a folded one opens at a click."""
    values = "".join(
        f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>"
        for name, value in part.values.items()
    )
    body = _paragraph(part.text) + (f"<dl>{values}</dl>" if values else "")
    if part.folded:
        return f"<details><summary><h2>{escape(part.title)}</h2></summary>{body}</details>\n"
    return _card(part.title, body)


def _tile(metric: str, record: Mapping[str, Any]) -> str:
    mean, interval, *_ = cells(record)
    spread = f"<small>95 %: {interval}</small>" if record["interval"] else ""
    return f'<div class="tile"><dt>{escape(in_words(metric))}</dt><dd>{mean}{spread}</dd></div>'


def _list(title: str, texts: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return _card(title, f"<ul>{items}</ul>", title.lower()) if texts else ""


def _card(title: str, body: str, kind: str = "") -> str:
    return f'<section class="{kind}"><h2>{escape(title)}</h2>{body}</section>\n'


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>" if text else ""


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
            **{key: (text := getattr(item, key)) and printable(text) for key in _TEXTS},
            "grid": item.grid,
            "size": item.image.shape,
            "values": {key: finite(item.values.get(key)) for key in keys},
        }
        for item in report.slices
    ]
    columns = []
    for key in keys:
        digits = digits_for(item["values"][key] for item in slices)
        label = printable(in_words(key))
        columns.append({"key": key, "label": label, "group": _group(key), "digits": digits})
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
    groups = (group for group, prefixes in _GROUPS.items() if key.startswith(prefixes))
    return next(groups, "Overlap")
