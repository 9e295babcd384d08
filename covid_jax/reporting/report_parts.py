"""The tables, texts and figures of a report, and their HTML."""

import base64
import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from html import escape
from typing import NamedTuple

from covid_jax.reporting.slice_viewer import Value, plain_value

_UNDEFINED = "&ndash;"
_PNG = b"\x89PNG\r\n\x1a\n"


class SummaryRow(NamedTuple):
    """One metric over all slices; None where it is undefined or not offered.

    Attributes:
      metric: its name, with the unit where there is one.
      mean: over slices.
      interval: of the mean, 95 %.
      pooled: of all slices' counts added up.
      slices: how many entered the mean.
      empty: how many met the metric's rule for empty masks.
      patients: mean over patients, each one's slices added up; a column where any row has it.
    """

    metric: str
    mean: float | None
    interval: Sequence[float] | None
    pooled: float | None
    slices: int
    empty: int
    patients: float | None = None


class Summary(NamedTuple):
    """A table of metrics, with a sentence on how to read it (what was resampled, what is empty)."""

    title: str
    rows: Sequence[SummaryRow]
    note: str = ""


class Section(NamedTuple):
    """Text and settings under a heading.

    Attributes:
      title: the heading.
      paragraphs: plain text.
      settings: names and values, a line for each.
      folded: whether it is closed until clicked.
    """

    title: str
    paragraphs: Sequence[str] = ()
    settings: Mapping[str, object] = {}
    folded: bool = False


class ReportFigure(NamedTuple):
    """A figure as the bytes of its PNG file; ``name`` is its heading."""

    name: str
    caption: str
    png: bytes


def digits_for(values: Iterable[Value]) -> int:
    """Decimals of numbers in one row or column: none if all are integers, one if any is large."""
    known = [value for value in map(plain_value, values) if value is not None]
    if all(isinstance(value, int) for value in known):
        return 0
    return 3 if max(map(abs, known)) < 10 else 1


def tiles(summaries: Sequence[Summary]) -> str:
    """The means of the first table's first four rows, large."""
    rows = summaries[0].rows[:4] if summaries else ()
    return "".join(
        f'<div class="tile"><dt>{escape(row.metric)}</dt><dd>{_cells(row)[0]}'
        + (f"<small>95 %: {_cells(row)[1]}</small>" if row.interval else "")
        + "</dd></div>"
        for row in rows
    )


def summary_table(summary: Summary) -> str:
    """A card with the table; it scrolls where the screen is narrow."""
    heads = ["Metric", "Mean", "95 % interval", "Over patients", "Pooled", "Slices", "Empty masks"]
    cells = [[f'<th scope="row">{escape(row.metric)}</th>', *_cells(row)] for row in summary.rows]
    if all(row.patients is None for row in summary.rows):
        for line in (heads, *cells):
            del line[3]
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    rows = "".join(
        f"<tr>{name}" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>"
        for name, *line in cells
    )
    title = escape(summary.title)
    return (
        f'<section><h2>{title}</h2><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{title}"><table class="summary"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{_paragraphs([summary.note])}</section>\n"
    )


def section(part: Section) -> str:
    """A card of text, or one that opens at a click."""
    settings = "".join(
        f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>"
        for name, value in part.settings.items()
    )
    body = _paragraphs(part.paragraphs) + (f"<dl>{settings}</dl>" if settings else "")
    title = f"<h2>{escape(part.title)}</h2>"
    if part.folded:
        return f"<details><summary>{title}</summary>{body}</details>\n"
    return f"<section>{title}{body}</section>\n"


def listed(kind: str, title: str, texts: Sequence[str]) -> str:
    """A card with a list; "" without texts."""
    if not texts:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<section class="{kind}"><h2>{title}</h2><ul>{items}</ul></section>\n'


def figure_grid(figures: Sequence[ReportFigure]) -> str:
    """A card with all figures; "" without any."""
    if not figures:
        return ""
    pictures = "".join(map(_figure, figures))
    return f'<section><h2>Figures</h2><div class="grid">{pictures}</div></section>\n'


def _figure(figure: ReportFigure) -> str:
    if not figure.png.startswith(_PNG):
        raise ValueError(f"figure {figure.name!r} is no PNG")
    width, height = struct.unpack(">II", figure.png[16:24])
    tall = ' class="wide"' * (height > width)  # many rows: too small to read in a column
    picture = base64.b64encode(figure.png).decode()
    name = escape(figure.name)
    return (
        f'<figure{tall}><button type="button" aria-label="{name}: larger or smaller">'
        f'<img width="{width}" height="{height}" alt="{name}" '
        f'src="data:image/png;base64,{picture}"></button>'
        f"<figcaption><strong>{name}.</strong> {escape(figure.caption)}</figcaption></figure>\n"
    )


def _cells(row: SummaryRow) -> list[str]:
    """The cells after the metric's name; the numbers of a row have the same digits."""
    digits = digits_for((row.mean, row.patients, row.pooled, *(row.interval or ())))
    number = partial(_number, digits=digits)
    interval = " to ".join(map(number, row.interval)) if row.interval else _UNDEFINED
    means = number(row.mean), interval, number(row.patients), number(row.pooled)
    return [*means, f"{row.slices:,}", f"{row.empty:,}"]


def _number(value: Value, digits: int) -> str:
    value = plain_value(value)
    return _UNDEFINED if value is None else f"{value:,.{digits}f}"


def _paragraphs(texts: Iterable[str]) -> str:
    return "".join(f"<p>{escape(text)}</p>" for text in texts if text)
