"""What a dataset holds, counted by hand."""

import numpy as np
import pytest

from covid_jax.data import Slice, SliceDataset, open_dataset
from covid_jax.data.statistics import LESION_SIZES, require_hu, scale_of, survey
from covid_jax.errors import DataError
from covid_jax.runs.record import SourceRecord
from tests.support import drawn_chest

CLASSES = ("ground_glass", "consolidation")


def make_slice(
    number: int,
    labels: tuple[int, ...] = (),
    *,
    source: str = "here",
    patient: str | None = None,
    shape: tuple[int, int] = (10, 100),
    span: tuple[float, float] = (-1000.0, 400.0),
    spacing: tuple[float, float] | None = None,
) -> Slice:
    """Its mask begins with the labels given; its intensities lie within the span."""
    image, mask = np.full(shape, sum(span) / 2), np.zeros(shape, np.uint8)
    image.flat[:2] = span
    mask.flat[: len(labels)] = labels
    return Slice(f"s{number}", source, patient, None, image, mask, spacing)


def make_dataset(*slices: Slice) -> SliceDataset:
    return SliceDataset("hand-made", slices, 16, classes=CLASSES)


def test_each_source_is_counted_by_itself() -> None:
    """In the order in which they come, however they are mixed."""
    dataset = make_dataset(
        make_slice(0, (1, 1, 2), patient="a", shape=(10, 20), spacing=(0.8, 0.7)),
        make_slice(1, (1,), source="there", span=(0, 255), shape=(7, 5)),
        make_slice(2, (2, 2), patient="a", shape=(30, 4), span=(-20, 900), spacing=(0.5, 0.9)),
        make_slice(3, patient="b", shape=(15, 20), span=(-1024, 10)),
        make_slice(4, (1, 1), shape=(10, 20)),
    )
    here, there = survey(dataset)
    assert here == SourceRecord(
        source="here",
        slices=4,
        patients=2,
        unknown=1,
        sizes=((30, 4), (15, 20)),  # 120 and 300 pixels
        spacings=(0.5, 0.9),
        range=(-1024, 900),
        scale="HU",
        label_pixels={"ground_glass": 4, "consolidation": 3},
        lesion_sizes=(1, 0, 0, 0, 3, 0, 0),  # none; 3 of 200, 2 of 120, 2 of 200
    )
    assert there == SourceRecord(
        source="there",
        slices=1,
        patients=0,
        unknown=1,
        sizes=((7, 5), (7, 5)),
        spacings=None,
        range=(0, 255),
        scale="8-bit",
        label_pixels={"ground_glass": 1, "consolidation": 0},
        lesion_sizes=(0, 0, 0, 0, 1, 0, 0),  # 1 of 35
    )


@pytest.mark.parametrize(
    ("pixels", "place"),
    [(0, 0), (1, 2), (2, 2), (3, 3), (9, 3), (10, 4), (29, 4), (30, 5), (99, 5), (100, 6)],
)
def test_lesions_are_sorted_by_their_share_of_the_slice(pixels: int, place: int) -> None:
    """Of 1000 pixels; an edge belongs to the bin above it, and 1 in 1000 is the first edge."""
    assert LESION_SIZES == (0.001, 0.003, 0.01, 0.03, 0.1)
    (found,) = survey(make_dataset(make_slice(0, (1,) * pixels)))
    expected = [0] * 7
    expected[place] = 1
    assert found.lesion_sizes == tuple(expected)


def test_the_smallest_lesions_have_a_bin_of_their_own() -> None:
    """One pixel of 2000."""
    (found,) = survey(make_dataset(make_slice(0, (2,), shape=(20, 100))))
    assert found.lesion_sizes == (0, 1, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("low", "high", "scale"),
    [
        (-1024, 3071, "HU"),
        (-1024, -900, "HU"),
        (-201, 0, "HU"),
        (-200, 100, "unknown"),  # soft tissue cut out, or something else
        (-1, 1, "unknown"),
        (0, 255, "8-bit"),
        (17, 200, "8-bit"),
        (0, 256, "unknown"),
        (0, 4095, "unknown"),  # HU from 0
    ],
)
def test_what_intensities_are_is_seen_from_their_range(low: int, high: int, scale: str) -> None:
    assert scale_of(low, high) == scale


def test_a_window_is_refused_where_any_source_is_not_in_hu() -> None:
    hu = make_slice(0, (1,))
    require_hu(make_dataset(hu, make_slice(1, (1,), source="there")))
    for span, said in (((0, 255), "0 to 255 (8-bit)"), ((-5, 1000), "-5 to 1000 (unknown)")):
        mixed = make_dataset(hu, make_slice(1, (1,), source="there", span=span))
        with pytest.raises(DataError) as caught:
            require_hu(mixed)
        assert f"there holds {said}" in str(caught.value)
        assert "--intensity window" in str(caught.value)


def test_real_radiopaedia(real_data) -> None:
    """By its README: 367 slices of 8 patients, 256 x 256, 8-bit, and their lesion pixels."""
    (found,) = survey(open_dataset(real_data / "radiopaedia"))
    assert (found.slices, found.patients, found.unknown) == (367, 8, 0)
    assert found.sizes == ((256, 256), (256, 256))
    assert found.scale == "8-bit"
    lesion = (8824, 88728, 270248, 46227, 29, 3028, 9830, 246296, 67117, 46350)
    assert sum(found.label_pixels.values()) == sum(lesion)
    assert (found.lesion_sizes[0], sum(found.lesion_sizes)) == (0, 367)


def test_real_covid_semiseg_cannot_be_windowed(real_data) -> None:
    """Sizes from 153 to 507 pixels, 8-bit."""
    dataset = open_dataset(real_data / "covid_semiseg")
    (found,) = survey(dataset)
    sides = [side for item in dataset.slices for side in item.image.shape]
    assert (min(sides), max(sides)) == (153, 507)
    assert (found.slices, found.unknown, found.spacings) == (98, 98, None)
    with pytest.raises(DataError, match="COVID-SemiSeg holds 0 to 255"):
        require_hu(dataset)


def test_a_window_needs_units_whose_intercept_is_not_lost() -> None:
    """Padding of -2000 makes the range look like HU; air at 24 and tissue at 1064 are not."""
    raw = drawn_chest.chest() + 1024
    raw[:, :8] = -2000
    masks = np.zeros(raw.shape, bool)
    masks[:, 80, 50] = True
    dataset = SliceDataset.from_arrays(raw, masks, image_size=32)
    with pytest.raises(DataError, match="intercept lost"):
        require_hu(dataset)
    require_hu(SliceDataset.from_arrays(raw - 1024 * (raw > -2000), masks, image_size=32))
