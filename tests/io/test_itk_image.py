"""NRRD and MetaImage files as SimpleITK writes them, against the NIfTI file of the same image."""

import sys
from pathlib import Path

import numpy as np
import pytest

from covid_jax.data.decode import Reading, content_key
from covid_jax.data.open_dataset import open_dataset
from covid_jax.data.scan import ScanFiles
from covid_jax.errors import DataError
from covid_jax.io.read_scan import read_mask, read_scan
from tests.support.bright_runs import BrightRun, predicted

sitk = pytest.importorskip("SimpleITK")
ENDINGS = ("nrrd", "mha", "mhd")


def volume(seed: int = 0, values: int = 2000) -> "sitk.Image":
    """Turned by 5 degrees, columns the other way round."""
    rng = np.random.default_rng(seed)
    image = sitk.GetImageFromArray(
        (rng.integers(0, values, (4, 10, 9)) - 1000 * (values > 2)).astype(np.int16)
    )
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-30.0, 12.0, 101.0))
    turn = np.radians(5)
    image.SetDirection((-np.cos(turn), np.sin(turn), 0, np.sin(turn), np.cos(turn), 0, 0, 0, 1))
    return image


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_volume_is_read_as_its_nifti_file(tmp_path: Path, ending: str) -> None:
    for name in (f"a.{ending}", "a.nii.gz"):
        sitk.WriteImage(volume(), str(tmp_path / name))
    stack, geometry = read_scan(tmp_path / f"a.{ending}")
    expected, like = read_scan(tmp_path / "a.nii.gz")
    assert geometry
    assert like
    np.testing.assert_array_equal(stack, expected)
    np.testing.assert_allclose(geometry.affine, like.affine, atol=1e-4)
    assert stack.dtype == np.int16
    assert geometry.oriented
    assert geometry.spacing == pytest.approx((2.5, 0.8, 0.7))


def test_a_dataset_and_a_prediction_of_them(tmp_path: Path) -> None:
    for name, kind in (("images/a.nrrd", 2000), ("masks/a.mha", 2)):
        (tmp_path / name).parent.mkdir()
        sitk.WriteImage(volume(values=kind), str(tmp_path / name))
    dataset = open_dataset(tmp_path, 16)
    assert [item.id for item in dataset] == [f"a:00{i}" for i in range(4)]
    assert dataset[0].spacing == pytest.approx((0.8, 0.7))
    outcome, printed = predicted(BrightRun(), tmp_path / "images", tmp_path / "out")
    assert outcome.failures == []
    assert "1 scan (1 NRRD or MetaImage)" in printed
    written = sitk.ReadImage(str(tmp_path / "out/a_mask.nii.gz"))
    assert written.GetSize() == volume().GetSize()
    np.testing.assert_allclose(written.GetDirection(), volume().GetDirection(), atol=1e-5)
    np.testing.assert_allclose(written.GetOrigin(), volume().GetOrigin(), atol=1e-4)


def test_what_is_read_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sitk.WriteImage(volume(), str(tmp_path / "a.nrrd"))
    stack, geometry = read_scan(tmp_path / "a.nrrd")
    other = volume(values=2)
    other.SetDirection((1, 0, 0, 0, 1, 0, 0, 0, 1))
    sitk.WriteImage(other, str(tmp_path / "m.mha"))
    with pytest.raises(DataError, match=r"m\.mha: its affine places it elsewhere"):
        read_mask(tmp_path / "m.mha", tmp_path / "a.nrrd", stack.shape, geometry)
    sitk.WriteImage(sitk.JoinSeries([volume(), volume()]), str(tmp_path / "4.nrrd"))
    with pytest.raises(DataError, match=r"4\.nrrd: expected 3-D grey values, found 4-D"):
        read_scan(tmp_path / "4.nrrd")
    (tmp_path / "bad.mha").write_bytes((tmp_path / "m.mha").read_bytes()[:90])
    with pytest.raises(DataError, match=r"bad\.mha: not a readable NRRD or MetaImage file \(.+\)$"):
        read_scan(tmp_path / "bad.mha")
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(DataError, match=r'needs SimpleITK: pip install "covid_jax\[itk\]"'):
        read_scan(tmp_path / "a.nrrd")


@pytest.mark.parametrize("name", ["a.raw", "voxels of a", "./b.raw"])
@pytest.mark.parametrize("ending", ["mhd", "MHD"])
def test_the_data_of_an_mhd_header_counts(tmp_path: Path, ending: str, name: str) -> None:
    """Its numbers are in a file of their own, of any name."""
    keys = []
    for seed in (0, 1):
        sitk.WriteImage(volume(seed), str(tmp_path / "a.mhd"))
        text = (tmp_path / "a.mhd").read_text()
        (tmp_path / "a.raw").rename(tmp_path / name)
        (tmp_path / f"a.{ending}").write_text(text.replace("a.raw", name))
        scan = ScanFiles("a", "s", tmp_path / f"a.{ending}", None)
        keys.append(content_key([scan], Reading(("lesion",))))
    assert keys[0] != keys[1]


def test_the_data_of_an_mhd_lung_mask_counts(tmp_path: Path) -> None:
    sitk.WriteImage(volume(), str(tmp_path / "a.mha"))
    counts = []
    for low in (0, 1):
        lungs = sitk.Cast(volume() > 500 * low - 1000, sitk.sitkUInt8)
        sitk.WriteImage(lungs, str(tmp_path / "lungs.mhd"))
        options = {"lungs": tmp_path / "lungs.mhd"}
        outcome, _ = predicted(BrightRun(), tmp_path / "a.mha", tmp_path / "out", **options)
        counts += [summary["lung_voxels"] for summary in outcome.predicted]
    assert len(set(counts)) == 2


@pytest.mark.parametrize("place", ["../a.raw", "/etc/hostname", "below/a.raw", "LIST", "a%03d.raw"])
def test_voxels_in_another_folder_are_refused(tmp_path: Path, place: str) -> None:
    sitk.WriteImage(volume(), str(tmp_path / "a.mhd"))
    text = (tmp_path / "a.mhd").read_text()
    (tmp_path / "a.mhd").write_text(text.replace("a.raw", place))
    with pytest.raises(DataError, match=rf"a\.mhd: its voxels are in {place}"):
        read_scan(tmp_path / "a.mhd")


@pytest.mark.parametrize("ending", ENDINGS)
def test_damaged_compressed_voxels_are_refused(tmp_path: Path, ending: str) -> None:
    """ITK makes other voxels of them; zlib and gzip end in a checksum."""
    sitk.WriteImage(volume(), str(tmp_path / f"a.{ending}"), useCompression=True)
    stack, _ = read_scan(tmp_path / f"a.{ending}")
    np.testing.assert_array_equal(stack[:, :, ::-1], sitk.GetArrayFromImage(volume()))
    path = tmp_path / ("a.zraw" if ending == "mhd" else f"a.{ending}")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(len(whole) - 400, len(whole), 30):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=f"a.{ending}: "):
            read_scan(tmp_path / f"a.{ending}")
    path.write_bytes(whole[:-300])
    with pytest.raises(DataError, match=f"a.{ending}: "):
        read_scan(tmp_path / f"a.{ending}")
