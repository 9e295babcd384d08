"""COVID-SemiSeg, the published split: ours beside what was published."""

import numpy as np

from benchmarks.experiments.ablation import METRICS
from benchmarks.experiments.markdown_table import table
from benchmarks.experiments.results_store import runs_of, scored, slices_of
from benchmarks.experiments.table_format import mean, mean_sd, with_interval

# COVID-SemiSeg, 48 test slices, from the curves released with Inf-Net (Fan et al., TMI 2020): mean
# over 256 thresholds of Dice, sensitivity, specificity, MAE; the same without MAE at 128/255.
PUBLISHED = {
    "U-Net": ((0.439, 0.534, 0.858, 0.186), (0.541, 0.534, 0.929)),
    "U-Net++": ((0.581, 0.672, 0.902, 0.120), (0.706, 0.730, 0.940)),
    "Inf-Net (ImageNet weights)": ((0.682, 0.692, 0.943, 0.082), (0.738, 0.718, 0.963)),
    "Semi-Inf-Net (and 1,600 pseudo-labelled slices)": (
        (0.739, 0.725, 0.960, 0.064),
        (0.770, 0.745, 0.969),
    ),
}


def published() -> str:
    """Published rows and ours, both protocols, mean and standard deviation over seeds."""
    rows = []
    for method, (over_all, at_half) in PUBLISHED.items():
        cells = [f"{value:.3f}" for value in (*at_half, *over_all)]
        rows.append([method, "1", *cells])
    found = runs_of("semiseg")
    for tta, val in ((False, False), (False, True), (True, False), (True, True)):
        ways = [scored(run, tta=tta, val=val) for run in found]
        cells = [mean_sd([way["own_grid"][metric] for way in ways]) for metric in METRICS]
        protocol = [way["protocols"]["covid-semiseg"] for way in ways]
        cells += [mean_sd([one[m] for one in protocol]) for m in (*METRICS, "mae")]
        at = "validation's threshold" if val else "threshold 0.5"
        rows.append([f"ours + FTL, {at}{', flips' * tta}", str(len(found)), *cells])
    columns = ["", "runs", "Dice", "Sens", "Spec", "Dice (256)", "Sens (256)", "Spec (256)", "MAE"]
    return table(columns, rows)


def runs() -> str:
    """Each run: validation, test, near-duplicates apart."""
    rows = []
    for run in runs_of("semiseg"):
        plain, flipped = scored(run), scored(run, tta=True, val=True)
        tests = slices_of([plain])
        near = np.array([one in run["split"]["near_training"] for one in tests.ids])
        rows.append(
            [
                f"`{run['run']}`",
                str(run["best"]["epoch"]),
                f"{scored(run, 'val')['own_grid']['dice']:.3f}",
                f"{scored(run, 'val', tta=True)['own_grid']['dice']:.3f}",
                with_interval(tests.values["dice"], tests.groups),
                f"{mean(tests.values['dice'][near])} ({near.sum()})",
                f"{mean(tests.values['dice'][~near])} ({(~near).sum()})",
                f"{flipped['own_grid']['dice']:.3f} at {flipped['threshold']:.3f}",
            ]
        )
    columns = [
        "run",
        "epoch",
        "validation Dice",
        "with flips",
        "test Dice (slices resampled)",
        "near a training slice",
        "the others",
        "flips, validation's threshold",
    ]
    return table(columns, rows)


def lesions() -> str:
    """Lesions found, missed and falsely marked by their size, over all runs."""
    found = [scored(run) for run in runs_of("semiseg")]
    rows = []
    for bins in zip(*(one["lesions"]["bins"] for one in found), strict=True):
        low, high = bins[0]["low"], bins[0]["high"]
        size = f"{low:g} to {high:g} px" if high else f"{low:g} px and more"
        real, hit = (sum(of[key] for of in bins) for key in ("lesions", "detected"))
        false = sum(of["false"] for of in bins) / sum(len(one["slices"]["slice"]) for one in found)
        rows.append([size, str(bins[0]["lesions"]), f"{hit / real:.0%}", f"{false:.2f}"])
    return table(["lesions of", "in the test slices", "found", "false ones a slice"], rows)


def calibration() -> str:
    """Of the probabilities over all pixels, mean and standard deviation over seeds."""
    found = [scored(run)["calibration"] for run in runs_of("semiseg")]
    names = {"ece": "expected calibration error", "brier": "Brier score", "mae": "mean error"}
    rows = [[name, mean_sd([one[key] for one in found])] for key, name in names.items()]
    return table(["over all pixels", "mean ± sd of the seeds"], rows)
