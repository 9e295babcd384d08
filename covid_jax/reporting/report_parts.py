"""HTML of the tables, texts and figures of a report."""

import base64
import struct
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from covid_jax.evaluation.report import finite
from covid_jax.reporting.slice_viewer import Value

_UNDEFINED = "&ndash;"
_PNG = b"\x89PNG\r\n\x1a\n"
_WORDS = {"dice": "Dice", "iou": "IoU"}  # spelling in headings
_WORDS |= {word: word.upper() for word in ("mae", "hd95", "assd", "nsd", "ece", "covid", "hu")}


class Summary(NamedTuple):
    """A table of metrics.

    Attributes:
      title: the heading.
      rows: by metric, a record with the keys of ``MetricRecord``; a record may lack
        ``patients_mean``, and the table has that column only if a record has a value.
      note: text below the table.
    """

    title: str
    rows: Mapping[str, Mapping[str, Any]]
    note: str = ""


class Section(NamedTuple):
    """Text and settings under a heading.

    Attributes:
      title: the heading.
      paragraphs: plain text.
      settings: names and values, one line each.
      folded: whether the section is closed until clicked.
    """

    title: str
    paragraphs: Sequence[str] = ()
    settings: Mapping[str, object] = {}
    folded: bool = False


class ReportFigure(NamedTuple):
    """A figure under the heading ``name``, as the bytes of its PNG file."""

    name: str
    caption: str
    png: bytes


def digits_for(values: Iterable[Value]) -> int:
    """Decimals for a row or column of numbers: 0 for integers, 1 if any is 10 or more, else 3."""
    known = [value for value in map(finite, values) if value is not None]
    if all(isinstance(value, int) for value in known):
        return 0
    return 3 if max(map(abs, known)) < 10 else 1


def tiles(summaries: Sequence[Summary]) -> str:
    """The means of the first table's first four rows, in large type."""
    rows = list(summaries[0].rows.items())[:4] if summaries else ()
    return "".join(
        f'<div class="tile"><dt>{escape(in_words(metric))}</dt><dd>{_cells(record)[0]}'
        + (f"<small>95 %: {_cells(record)[1]}</small>" if record["interval"] else "")
        + "</dd></div>"
        for metric, record in rows
    )


def summary_table(summary: Summary) -> str:
    """A card with the table, which scrolls on a narrow screen."""
    head = ["Metric", "Mean", "95 % interval", "Over patients", "Pooled", "Slices", "Empty masks"]
    head = [f'<th scope="col">{name}</th>' for name in head]
    rows = [
        [
            f'<th scope="row">{escape(in_words(metric))}</th>',
            *(f"<td>{cell}</td>" for cell in _cells(record)),
        ]
        for metric, record in summary.rows.items()
    ]
    if all(record.get("patients_mean") is None for record in summary.rows.values()):
        for line in (head, *rows):
            del line[3]
    head, *rows = (f"<tr>{''.join(line)}</tr>" for line in (head, *rows))
    title = escape(summary.title)
    table = f'<table class="summary"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'
    region = f'class="scroll" tabindex="0" role="region" aria-label="{title}"'
    return _card(title, f"<div {region}>{table}</div>{_paragraphs([summary.note])}")


def section(part: Section) -> str:
    """A card with the texts; a folded one opens at a click."""
    settings = "".join(
        f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>"
        for name, value in part.settings.items()
    )
    body = _paragraphs(part.paragraphs) + (f"<dl>{settings}</dl>" if settings else "")
    title = escape(part.title)
    if part.folded:
        return f"<details><summary><h2>{title}</h2></summary>{body}</details>\n"
    return _card(title, body)


def listed(kind: str, title: str, texts: Sequence[str]) -> str:
    """A card with a list; "" without texts."""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return _card(title, f"<ul>{items}</ul>", kind) if texts else ""


def figure_grid(figures: Sequence[ReportFigure]) -> str:
    """A card with all figures; "" without any."""
    pictures = "".join(map(_figure, figures))
    return _card("Figures", f'<div class="grid">{pictures}</div>') if figures else ""


def _card(title: str, body: str, kind: str = "") -> str:
    return f'<section class="{kind}"><h2>{title}</h2>{body}</section>\n'


def _figure(figure: ReportFigure) -> str:
    if not figure.png.startswith(_PNG):
        raise ValueError(f"figure {figure.name!r} is no PNG")
    width, height = struct.unpack(">II", figure.png[16:24])
    tall = ' class="wide"' * (height > width)  # many rows, too small to read in one column
    picture = base64.b64encode(figure.png).decode()
    name = escape(figure.name)
    return (
        f'<figure{tall}><button type="button" aria-label="{name}: larger or smaller">'
        f'<img width="{width}" height="{height}" alt="{name}" '
        f'src="data:image/png;base64,{picture}"></button>'
        f"<figcaption><strong>{name}.</strong> {escape(figure.caption)}</figcaption></figure>\n"
    )


def in_words(key: str) -> str:
    """A key as a heading: ``hd95_mm`` becomes HD95 mm."""
    words = " ".join(_WORDS.get(word, word) for word in key.split("_"))
    return words[:1].upper() + words[1:]


def _cells(record: Mapping[str, Any]) -> list[str]:
    """The cells after the metric's name; the numbers of a row have the same number of decimals."""
    means = [finite(record.get(name)) for name in ("mean", "patients_mean", "pooled")]
    bounds = record["interval"] or ()
    digits = digits_for((*means, *bounds))
    mean, patients, pooled = (
        _UNDEFINED if value is None else f"{value:,.{digits}f}" for value in means
    )
    interval = " to ".join(f"{bound:,.{digits}f}" for bound in bounds) or _UNDEFINED
    return [mean, interval, patients, pooled, f"{record['slices']:,}", f"{record['empty']:,}"]


def _paragraphs(texts: Iterable[str]) -> str:
    return "".join(f"<p>{escape(text)}</p>" for text in texts if text)
