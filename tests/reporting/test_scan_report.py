"""The page of a predicted scan: its volumes by hand, in a browser and in the file."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from covid_jax.reporting.scan_report import scan_slice, write_index, write_scan_report
from tests.support.browser import opened

# Two slices of 4 x 4: probabilities above one half in 3 and in 1 pixels, above 0.9 in 1 and none.
PROBABILITIES = np.zeros((2, 4, 4))
PROBABILITIES[0, 0, :3] = 0.6, 0.7, 0.95
PROBABILITIES[1, 2, 2] = 0.8
NUMBERS = {
    **{"name": "<scan>", "slices": 2, "slices_with_lesion": 2, "lesion_voxels": 4, "lesions": 2},
    **{"lesion_ml": 0.4, "share_of_lung": None, "lesion_hu_mean": -412.5, "lesion_hu_sd": 3.0},
    **{"probability_in_lesion": 0.7625, "scale": "HU"},
    "per_slice": [
        {"lesion_pixels": pixels, "lung_pixels": None, "probability": mean}
        for pixels, mean in ((3, 2.25 / 16), (1, 0.8 / 16))
    ],
}


def page(path: Path, voxel_ml: float | None = 0.1) -> Path:
    image = np.arange(16).reshape(4, 4)
    slices = [scan_slice(f"s:{i}", image, p, (0.0, 15.0)) for i, p in enumerate(PROBABILITIES)]
    given = {"voxel_ml": voxel_ml, "threshold": 0.5, "decision": ""}
    write_scan_report(path, slices, NUMBERS, **given, warnings=["odd & <b>"], notes=[])
    return path


def test_the_file_has_the_scans_numbers(tmp_path: Path) -> None:
    text = page(tmp_path / "a_report.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    assert data["above"][0] == 4
    assert data["above"][127] == 4
    assert data["above"][round(0.7 * 255)] == 2
    assert data["above"][255] == 0
    assert data["voxel"] == 0.1
    assert [item["values"]["lesion_ml"] for item in data["slices"]] == pytest.approx([0.3, 0.1])
    assert "lung_pixels" not in data["slices"][0]["values"]
    assert [pick["id"] for pick in data["picks"]] == ["s:0", "s:1"]
    for shown in ("&lt;scan&gt;", "odd &amp; &lt;b&gt;", "-412.5", "Lesion HU mean", "<dd>HU</dd>"):
        assert shown in text


def test_volumes_follow_the_slider(browser, tmp_path: Path) -> None:
    for voxel_ml, volumes in ((0.1, ("0.30 ml", "0.40 ml", "0.10 ml")), (None, "341")):
        path = page(tmp_path / "a_report.html", voxel_ml)
        with opened(browser, path, width=390) as shown:
            shown.locator("#table tbody tr").first.click()
            shown.locator("#dice:not(:empty)").wait_for()
            texts = [shown.locator(f"#{name}").inner_text() for name in ("dice", "own")]
            shown.locator("#threshold").fill("230")
            texts.append(shown.locator("#own").inner_text())
            assert [text.removesuffix(" px") for text in texts] == list(volumes)
            for truth_only in ("#truth", "#tp", "#low", "input[value=agreement]"):
                assert not shown.locator(truth_only).is_visible()
            assert shown.evaluate("document.documentElement.scrollWidth") <= 390


def test_an_index_links_to_the_pages(tmp_path: Path) -> None:
    rows = [("sub/a b_report.html", NUMBERS), ("c_report.html", NUMBERS | {"lesion_ml": 1234.5})]
    write_index(tmp_path / "index.html", rows)
    text = (tmp_path / "index.html").read_text()
    assert '<a href="sub/a%20b_report.html">&lt;scan&gt;</a>' in text
    assert "<td>2</td><td>0.4</td><td>4</td><td>2</td><td>-</td>" in text
    assert "<td>1,234.5</td>" in text
    assert "Research use only" in text
