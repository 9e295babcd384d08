"""Reports of a few random slices, and what a reader does with an opened one."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from covid_jax.reporting.html_report import Report, write_report
from covid_jax.reporting.slice_viewer import SlicePage


def png(width: int = 30, height: int = 20) -> bytes:
    file = io.BytesIO()
    Image.new("L", (width, height), 200).save(file, "PNG")
    return file.getvalue()


def a_slice(number: int = 0, *, size: int = 16, **changes) -> SlicePage:
    rng = np.random.default_rng(number)
    image, probability = rng.integers(0, 256, (2, size, size)).astype(np.uint8)
    truth = (rng.random((size, size)) < 0.3).astype(np.uint8)
    page = SlicePage(
        *(f"scan/{number}", f"scan{number % 2}.nii", f"p{number % 3}", (2 * size, 2 * size)),
        *(image, truth, probability, {"dice": float(rng.random()), "lesion_pixels": number}),
    )
    return page._replace(**changes)


def record(mean, interval, pooled, slices, empty, patients_mean=None) -> dict:
    """A row of a table of metrics."""
    return {
        **{"mean": mean, "interval": interval, "pooled": pooled, "slices": slices},
        **{"empty": empty, "patients_mean": patients_mean},
    }


def a_report(slices: list[SlicePage], **changes) -> Report:
    return Report(title="A run", lead="", slices=slices)._replace(**changes)


def written(tmp_path: Path, slices: list[SlicePage], **changes) -> Path:
    path = tmp_path / "report.html"
    write_report(path, a_report(slices, **changes))
    return path


def open_slice(page, place: int = 0) -> None:
    page.locator("#table tbody tr").nth(place).click()
    page.locator("#dice:not(:empty)").wait_for()


def value_of(page, name: str) -> float:
    return float(page.locator(f"#{name}").get_attribute("value"))
