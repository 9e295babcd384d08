"""Contact sheets: thumbnails of a dataset's or volume's slices with lesion outlines."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from covid_jax.data.dataset import Slice, SliceDataset
from covid_jax.errors import printable
from covid_jax.files import replacing
from covid_jax.reporting import drawing
from covid_jax.reporting.drawing import Masks, Picture, Stack, Window
from covid_jax.runs.provenance import NOTICE
from covid_jax.transforms.preprocessing import resize, resize_mask

_SIDE = 200  # pixels of a thumbnail, on which an outline of one pixel is visible
_COLUMNS = 6
_LINE, _GAP, _LEAST = 17, 8, 480  # pixels: a line of text, between thumbnails, least width
_GROUND, _TEXT, _FAINT = "#11151a", "#e4e9ef", "#9dabba"  # of the report's dark theme

Tile = tuple[str, Picture]  # label of one or two lines, thumbnail


def contact_sheet(tiles: Sequence[Tile], title: str, classes: Sequence[str] = ()) -> Image.Image:
    """Draws thumbnails in rows of six, with a title, the classes' colours and the notice.

    Args:
      tiles: thumbnails and their labels.
      title: of the sheet.
      classes: names of class ids 1, 2, ...
    """
    columns = min(_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    lines = 1 + max(label.count("\n") for label, _ in tiles)
    wide = max(_SIDE // 2, *(picture.shape[1] for _, picture in tiles)) + _GAP
    high = max(picture.shape[0] for _, picture in tiles) + _LINE * lines + _GAP
    top = 2 * _LINE + 2 * _GAP
    size = max(columns * wide + _GAP, _LEAST), top + rows * high + _LINE + _GAP
    sheet = Image.new("RGB", size, _GROUND)
    draw = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(14), ImageFont.load_default(12)
    draw.text((_GAP, _GAP), printable(title), _TEXT, font)
    left = float(_GAP)
    for number, name in enumerate(classes, start=1):
        colour = drawing.to_bytes(drawing.class_colour(number))
        draw.rectangle((left, _GAP + _LINE + 4, left + 10, _GAP + _LINE + 14), colour)
        draw.text((left + 15, _GAP + _LINE), printable(name), _TEXT, font)
        left += 30 + draw.textlength(printable(name), font)
    for number, (label, picture) in enumerate(tiles):
        x, y = _GAP + number % columns * wide, top + number // columns * high
        for line in printable(label).split("\n"):
            while draw.textlength(line, small) > wide - _GAP:
                line = f"...{line[4:]}"  # names differ at their ends
            draw.text((x, y), line, _FAINT, small)
            y += _LINE
        sheet.paste(Image.fromarray(picture), (x, y))
    draw.text((_GAP, size[1] - _LINE - _GAP // 2), NOTICE, _FAINT, small)
    return sheet


def dataset_sheet(dataset: SliceDataset, path: Path, most: int = 48) -> None:
    """Writes a sheet of slices spread evenly over the dataset, with lesion outlines.

    Args:
      dataset: contains the slices.
      path: of the PNG; its folder is created.
      most: largest number of slices shown.
    """
    items = [dataset.slices[i] for i in _spread(len(dataset), most)]
    tiles = [(_label(item), _thumbnail(item.image, item.mask)) for item in items]
    title = f"{dataset.layout}: {len(items)} of {len(dataset)} slices"
    sheet = contact_sheet(tiles, title, dataset.classes)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        sheet.save(partial)


def volume_sheet(
    stack: Stack, masks: Masks, window: Window, title: str, classes: Sequence[str], most: int = 36
) -> Image.Image:
    """Draws slices spread evenly over a volume, with lesion outlines.

    Args:
      stack: raw intensities.
      masks: class ids.
      window: the intensities that are shown as black and as white.
      title: of the sheet.
      classes: names of class ids 1, 2, ...
      most: slices shown.
    """
    chosen = _spread(len(stack), most)
    labels = [f"{i}: {_percent(np.count_nonzero(masks[i]) / masks[i].size)}" for i in chosen]
    tiles = list(zip(labels, [_thumbnail(stack[i], masks[i], window) for i in chosen], strict=True))
    return contact_sheet(tiles, f"{title}: {len(chosen)} of {len(stack)} slices", classes)


def _spread(count: int, most: int) -> list[int]:
    return np.linspace(0, count - 1, min(most, count)).round().astype(int).tolist()


def _thumbnail(image: drawing.Image, ids: drawing.Ids, window: Window | None = None) -> Picture:
    """The slice in its aspect ratio, with lesion outlines."""
    height, width = (max(1, round(_SIDE * side / max(image.shape))) for side in image.shape)
    return drawing.outlined(resize(image, height, width), resize_mask(ids, height, width), window)


def _label(item: Slice) -> str:
    height, width = item.mask.shape
    return f"{item.id}\n{height} x {width}, lesion {_percent(item.lesion_share)}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share else "none"
