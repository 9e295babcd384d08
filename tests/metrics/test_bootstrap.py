"""Intervals against loops, closed forms and scipy; comparisons against scipy and by hand."""

import inspect
import math

import numpy as np
import pytest
from scipy import stats

from covid_jax.metrics import bootstrap
from covid_jax.metrics.bootstrap import Interval, bootstrap_interval, compare_paired
from tests.support.annotations import unchecked

NAN = math.nan


def interval(values, groups=None, **settings) -> Interval:
    found = bootstrap_interval(np.asarray(values, float), groups, **settings)
    assert found is not None
    return found


def test_two_values_have_the_binomials_interval() -> None:
    """40 slices, 12 of them 1: a resample's sum is binomial(40, 0.3)."""
    found = interval([1] * 12 + [0] * 28)
    low, high = stats.binom.ppf([0.025, 0.975], 40, 0.3) / 40
    assert found == Interval(pytest.approx(low, abs=1 / 40), pytest.approx(high, abs=1 / 40), 40)


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_slices_against_scipy(level: float) -> None:
    values = np.random.default_rng(0).beta(5, 2, 60)
    ours = interval(values, level=level)
    seed = "rng" if "rng" in inspect.signature(stats.bootstrap).parameters else "random_state"
    theirs = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=level,
        n_resamples=10_000,
        method="percentile",
        **{seed: np.random.default_rng(1)},
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.004)
    assert ours.high == pytest.approx(theirs.high, abs=0.004)


def test_groups_against_a_loop() -> None:
    """Patients of 1 to 12 slices, drawn whole; the mean is over the slices drawn."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 13, 9)
    patients = [rng.normal(rng.random(), 0.1, size) for size in sizes]
    names = [f"p{i}" for i, size in enumerate(sizes) for _ in range(size)]
    means = []
    for _ in range(10_000):
        drawn = rng.integers(9, size=9)
        means.append(np.concatenate([patients[i] for i in drawn]).mean())
    low, high = np.percentile(means, [2.5, 97.5])
    found = interval(np.concatenate(patients), names)
    spread = np.std(means)
    assert found.low == pytest.approx(low, abs=0.1 * spread)
    assert found.high == pytest.approx(high, abs=0.1 * spread)
    assert found.groups == 9


def test_slices_of_one_patient_are_no_independent_evidence() -> None:
    """Each patient's slice repeated 20 times: the same by patient, a false interval by slice."""
    values = np.random.default_rng(0).random(12)
    repeated, names = np.repeat(values, 20), np.repeat(np.arange(12), 20).tolist()
    by_patient, by_slice = interval(repeated, names), interval(repeated)
    assert by_patient == pytest.approx(interval(values))
    width = (by_slice.high - by_slice.low) / (by_patient.high - by_patient.low)
    assert width == pytest.approx(1 / math.sqrt(20), rel=0.05)


def test_order_of_groups_and_their_kind_do_not_matter() -> None:
    values = np.random.default_rng(0).random(30)
    groups = [i // 3 for i in range(30)]
    assert interval(values, groups) == interval(values, [f"patient {g}" for g in groups])


def test_coverage_is_what_is_said() -> None:
    """80 % of the intervals of 30 normal values hold the true mean, within chance."""
    rng = np.random.default_rng(0)
    trials = 400
    held = 0
    for i in range(trials):
        found = interval(rng.normal(3, 1, 30), level=0.8, resamples=400, seed=i)
        held += found.low < 3 < found.high
    assert held / trials == pytest.approx(0.8, abs=0.06)


def test_seeds() -> None:
    values = np.random.default_rng(0).random(20)
    assert interval(values) == interval(values, seed=0)
    assert interval(values, seed=1) != interval(values, seed=2)


def test_chunks_are_resamples_of_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many resamples, and the same ones, whatever is drawn at once."""
    values = np.random.default_rng(0).random(20)
    whole = interval(values, resamples=1001)
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 20 * 10)
    assert interval(values, resamples=1001) == pytest.approx(whole)


@pytest.mark.parametrize(
    ("values", "groups", "known"),
    [
        pytest.param([0.1, 0.2, 0.3, 0.4], None, False, id="four slices"),
        pytest.param([0.1, 0.2, 0.3, 0.4, 0.5], None, True, id="five slices"),
        pytest.param([0.1, 0.2, 0.3, 0.4, NAN], None, False, id="four defined"),
        pytest.param([0.1] * 40, [i % 4 for i in range(40)], False, id="four patients"),
        pytest.param([0.1] * 40, [i % 5 for i in range(40)], True, id="five patients"),
        pytest.param([NAN, 0.1, 0.2, 0.3, 0.4], list("abcde"), False, id="four patients defined"),
        pytest.param([], None, False, id="none"),
    ],
)
def test_below_five_there_is_no_interval(values, groups, known: bool) -> None:
    values = np.array(values, float)
    assert (bootstrap_interval(values, groups) is not None) == known
    p_value = compare_paired(values, values + 0.1, groups).p_value
    assert (p_value is not None) == known


def test_undefined_values_are_left_out() -> None:
    values = np.random.default_rng(0).random(12)
    assert interval([*values, NAN, NAN]) == interval(values)
    groups = [i // 2 for i in range(12)]
    assert interval([*values, NAN, NAN], [*groups, 0, 99]) == interval(values, groups)


@pytest.mark.parametrize("resample", [False, True], ids=["slices", "patients"])
def test_comparison_is_of_the_differences(resample: bool) -> None:
    """Its interval is the differences' own, and the test takes one a patient."""
    rng = np.random.default_rng(0)
    first = rng.random(48)
    second = np.clip(first + rng.normal(0.03, 0.1, 48), 0, 1)
    groups = [i // 4 for i in range(48)] if resample else None
    found = compare_paired(first, second, groups)
    gaps = second - first
    each = gaps.reshape(12, 4).mean(1) if resample else gaps
    assert found.difference == pytest.approx(gaps.mean())
    assert found.interval == pytest.approx(interval(gaps, groups))
    assert found.p_value == pytest.approx(stats.wilcoxon(each).pvalue)
    assert (found.slices, found.groups, found.zeros) == (48, len(each), 0)


def test_comparison_by_hand() -> None:
    """Six differences of one sign: of 2 ** 6 sets of signs two are as extreme."""
    first = np.arange(6.0)
    second = first + np.arange(1, 7) / 10
    assert compare_paired(first, second).p_value == pytest.approx(2 / 2**6)
    better, worse = compare_paired(first, second), compare_paired(second, first)
    assert better.difference == pytest.approx(0.35) == -worse.difference
    assert better.p_value == pytest.approx(worse.p_value)


def test_patients_by_hand() -> None:
    """Five patients of 1, 1, 1, 1 and 4 slices; the last one's differences cancel out.

    Zero has rank 1 and is left out; ranks 2 to 5 have 2 ** 4 sets of signs, two as extreme.
    """
    gaps = np.array([0.1, 0.2, 0.3, 0.4, 0.5, -0.5, 0.25, -0.25])
    found = compare_paired(np.full(8, 0.5), 0.5 + gaps, list("abcdeeee"))
    assert found.difference == pytest.approx(1.0 / 8)
    assert found.p_value == pytest.approx(2 / 2**4)
    assert (found.slices, found.groups, found.zeros) == (8, 5, 1)


@pytest.mark.parametrize("ties", [False, True])
def test_few_differences_against_scipy(ties: bool) -> None:
    """Its exact distribution, or with zeros and ties its permutations."""
    rng = np.random.default_rng(0)
    for number in (5, 7, 8):
        gaps = rng.normal(0.3, 1, number)
        gaps = gaps.round() if ties else gaps
        method = stats.PermutationMethod() if ties else "exact"
        expected = stats.wilcoxon(gaps, zero_method="pratt", method=method).pvalue
        assert compare_paired(np.zeros(number), gaps).p_value == pytest.approx(expected)


@pytest.mark.parametrize("number", [13, 14])
def test_no_difference_at_all(number: int) -> None:
    found = compare_paired(np.zeros(number), np.zeros(number))
    assert (found.p_value, found.zeros) == (1, number)


def test_zeros_are_ranked_and_left_out() -> None:
    """30 zeros below 20 differences: their ranks 31 to 50, under signs at random (Pratt)."""
    rng = np.random.default_rng(0)
    gaps = np.concatenate([np.zeros(30), np.linspace(0.1, 1, 20) * np.where(rng.random(20), 1, 1)])
    gaps[[31, 35, 36]] *= -1
    found = compare_paired(np.zeros(50), gaps)
    assert found.zeros == 30
    ranks = np.arange(31, 51)
    signs = np.sign(gaps[30:])
    z = (ranks @ signs) / math.sqrt((ranks**2).sum())
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(z)), rel=0.01)


@pytest.mark.parametrize("number", [5, 8, 30])
def test_few_differences_among_ties_and_zeros_warn_of_nothing(number: int) -> None:
    gaps = np.where(np.arange(number) % 2, 0.25, 0.0)
    p_value = compare_paired(np.zeros(number), gaps).p_value
    ties = number // 2
    expected = 2 / 2**ties if number < 13 else 2 * stats.norm.sf(math.sqrt(ties))
    assert p_value == pytest.approx(expected)


def test_differences_that_cancel_within_each_patient_are_none() -> None:
    """0.1 + 0.2 - 0.3 is not 0 in floating point."""
    differences = np.tile([0.1, 0.2, -0.3], 6)
    result = compare_paired(np.zeros(18), differences, [f"p{i // 3}" for i in range(18)])
    assert (result.p_value, result.zeros, result.groups) == (1.0, 6, 6)


def test_a_method_is_as_good_as_itself() -> None:
    """To the last bit or nearly: 0.1 + 0.2 is 0.3."""
    values = np.full(8, 0.1 + 0.2)
    found = compare_paired(values, np.full(8, 0.3))
    assert found == (0, Interval(0, 0, 8), 1, 8, 8, 8)


def test_pairs_undefined_on_one_side_are_left_out() -> None:
    first = np.array([0.1, NAN, 0.3, 0.4, 0.5, 0.6, 0.7])
    second = np.array([0.2, 0.9, NAN, 0.6, 0.8, 0.7, 0.75])
    found = compare_paired(first, second)
    both = [0, 3, 4, 5, 6]
    assert found == compare_paired(first[both], second[both])
    assert found.slices == 5
    none = compare_paired(np.array([NAN]), np.array([1.0]))
    assert tuple(none) == pytest.approx((NAN, None, None, 0, 0, 0), nan_ok=True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval(np.zeros(3), ["a", "b"]), "3.* values and 2 groups"),
        (lambda: bootstrap_interval(np.zeros((3, 2))), r"\(3, 2\) values and no groups"),
        (lambda: bootstrap_interval(np.zeros(2), ["a", None]), "unknown patient"),
        (lambda: bootstrap_interval(np.zeros(9), level=95), "level=95"),
        (lambda: bootstrap_interval(np.zeros(9), resamples=0), "resamples=0"),
        (lambda: compare_paired(np.zeros(3), np.zeros(4)), "cannot pair"),
    ],
)
def test_refuses(call, message: str) -> None:
    with unchecked(), pytest.raises(ValueError, match=message):
        call()
