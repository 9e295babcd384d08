"""RESULTS.md's tables of trained networks: the paper's rows, other collections, healthy lungs."""

from typing import Any

import numpy as np

from benchmarks.experiments.ablation import METRICS, PAPER, ROWS
from benchmarks.experiments.markdown_table import table
from benchmarks.experiments.results_store import Evaluation, Run, read, runs_of, scored

DEVELOPMENT = {  # folder and what was added to the row before
    "0-dataset": "z-score of each slice, lesion slices only, standard augmentation",
    "1-grey": "+ one grey scale (`--intensity lung`)",
    "2-crop": "+ the lungs' box (`--crop lungs`)",
    "3-strong": "+ eight orientations, stronger augmentation (`--augment strong`)",
    "4-free": "+ slices without lesion",
    "5-bce": "+ cross-entropy (`--bce-weight 1`)",
    "6-balance": "+ each collection equally often (`--balance source`)",
    "7-longer": "+ 40 passes of 300 slices",
    "8-bce03": "+ less cross-entropy (`--bce-weight 0.3`)",
    "9-bce02": "+ still less (`--bce-weight 0.2`), 60 passes",
    "10-pool": "or `--bce-weight 0.3 --pool batch`, 60 passes",
}
FORMS = {  # folder and the input form; all trained on COVID-SemiSeg's 42 slices
    "form/slice": "z-score of each slice",
    "form/lung": "grey scale and lungs' box (`--intensity lung --crop lungs`)",
    "form/strong": "the same and eight orientations (`--augment strong`)",
}
FORM_TESTS = {  # part of a collection's description
    "COVID-SemiSeg": "COVID-SemiSeg's test part (48)",
    "image/mask pairs": "radiopaedia_window (283)",
    "MedSeg Dataset-2": "the same patients, equalised whole body (367)",
}
DIRECTIONS = (  # file, folder, what it was trained on
    ("development", "6-balance", "COVID-SemiSeg's training part and radiopaedia_window"),
    ("other_direction", "other", "coronacases_window"),
)
KEPT_OUT = {  # file and how its runs were trained
    "leave_one_out_ftl": "FTL, slices with lesion",
    "leave_one_out": "FTL + cross-entropy, all slices",
}
OURS = (
    "leave_one_out",
    "paper_protocol",
    "small_network",
)  # files with the runs that the plain U-Net repeats
PLAIN = {  # what such a run was tested on
    "fold-1-seed-0": "COVID-SemiSeg, kept out",
    "fold-2-seed-0": "radiopaedia_window, kept out",
    "fold-3-seed-0": "coronacases_window, kept out",
    "ours-ftl-0": "the paper's protocol, 128 x 128",
    "small-0": "unseen patients of the network to install, 128 x 128",
}
SCANS = {  # in HU
    "normal001": "`normal001`, no disease",
    "lidc_normal_2": "`lidc_normal_2`, called normal",
    "P001": "`P001`, COVID-19",
    "cap001": "`cap001`, another pneumonia",
}
ALTERNATIVES = {  # file, folder, how it was trained; all on the same split
    ("simple_recipe", "pilot-lesion"): "128 x 128, a quarter of the width, FTL, slices with lesion",
    ("simple_recipe", "pilot-free"): "the same, FTL + cross-entropy, all slices",
    ("network", "net2"): "the network to install",
    ("cross_entropy", "bce-5"): "18 more passes of it with `--bce-weight 5`",
    ("cross_entropy", "bce-20"): "18 more passes of it with `--bce-weight 20`",
}


class Measured:
    """The slices of one evaluation, as arrays."""

    def __init__(self, evaluation: Evaluation) -> None:
        columns = evaluation["slices"]
        self.patient = np.array(columns["patient"])
        self.lesion = np.array(columns["lesion_pixels"]) > 0
        self.dice = np.array(columns["dice"], float)
        area = np.array(columns["height"]) * np.array(columns["width"])
        self.marked = np.array(columns["predicted_pixels"]) / area

    def by_patient(self) -> list[float]:
        """Mean Dice of the slices with lesion of each known patient."""
        known = sorted(set(self.patient[self.lesion]) - {"unknown"})
        return [float(self.dice[self.lesion & (self.patient == name)].mean()) for name in known]

    def patients_mean(self) -> str:
        """Mean over the patients, and how many they are."""
        found = self.by_patient()
        return f"{np.mean(found):.3f} ({len(found)})" if found else ""

    def mean_dice(self) -> str:
        """Mean over the slices with lesion."""
        return f"{self.dice[self.lesion].mean():.3f}"

    def lesion_free(self) -> list[str]:
        """Share of the slices without lesion that have a pixel marked; mean area marked."""
        marked = self.marked[~self.lesion]
        return [f"{(marked > 0).mean():.0%}", f"{marked.mean():.2%}"] if len(marked) else ["", ""]


def installed() -> str:
    """The network of ``weights/``: unseen patients, COVID-SemiSeg's test part, scans in HU."""
    (run,) = runs_of("network")
    test, flips = (Measured(scored(run, tta=tta)) for tta in (False, True))
    rows = [
        [name, str(int(found.lesion.sum())), f"{found.patients_mean()}, {found.mean_dice()}"]
        for name, found in (("held-out slices", test), ("the same, averaged over flips", flips))
    ]
    for tta, name in (
        (False, "COVID-SemiSeg's test part"),
        (True, "the same, averaged over flips"),
    ):
        way = scored(run, "all", tta=tta)
        values = (way["own_grid"]["dice"], way["protocols"]["covid-semiseg"]["dice"])
        rows.append([name, str(len(way["slices"]["dice"])), "{:.3f}, {:.3f}".format(*values)])
    touched, area = test.lesion_free()
    free = str(int((~test.lesion).sum()))
    rows.append(
        ["lesion-free slices: with a pixel marked, area marked", free, f"{touched}, {area}"]
    )
    for scan in run["scans"]:
        if scan["name"] in SCANS:
            marked = f"{scan['share_of_lung']:.3%}"
            rows.append([f"{SCANS[scan['name']]}: lung marked", str(scan["slices"]), marked])
    return table(["tested on (never trained on)", "slices", "result"], rows)


def alternatives() -> str:
    """Other networks on the installed network's split: simpler, and with more cross-entropy."""
    rows = []
    for (file, folder), trained in ALTERNATIVES.items():
        (run,) = runs_of(file, folder)
        found, others = Measured(scored(run)), Measured(scored(run, "all"))
        dices = found.patients_mean(), found.mean_dice(), others.mean_dice()
        rows.append([trained, *dices, *found.lesion_free()])
    columns = ["", "four patients", "held-out slices", "COVID-SemiSeg's test part"]
    return table([*columns, "lesion-free slices touched", "their area marked"], rows)


def smoothed_scans() -> str:
    """Averages over neighbouring slices of the scans in HU."""
    rows = []
    for found in read("smooth_slices")["hu"]:
        shares = (f"{found['scans'][name]['share_of_lung']:.3%}" for name in SCANS)
        rows.append([f"{found['deviation_mm']:g}", *shares])
    return table(["standard deviation in mm", *SCANS.values()], rows)


def smoothed_series() -> str:
    """Averages over neighbouring pictures: Dice of patients, false alarms."""
    found = read("smooth_slices")
    rows = []
    for val, test in zip(found["val"], found["test"], strict=True):
        dices = [f"{part['patients_mean']:.3f}" for part in (val, test)]
        free = test["lesion_free"]
        shares = f"{free['any_marked']:.0%}", f"{free['marked_area']:.2%}"
        rows.append([f"{val['deviation_slices']:g}", *dices, *shares])
    columns = ["standard deviation in slices", "three validation patients", "four test patients"]
    return table([*columns, "lesion-free test slices touched", "their area marked"], rows)


def development() -> str:
    """Changes added one after the other: one collection kept out, and a healthy person's scan."""
    runs = {run["run"].rpartition("/")[2]: run for run in runs_of("development")}
    scans = {name: _scan(run, "lidc_normal_1") for name, run in runs.items()}
    (lung,) = {scan["lung_voxels"] for scan in scans.values()} - {None}
    rows = []
    for name, change in DEVELOPMENT.items():
        (evaluation,) = runs[name]["evaluations"]
        found = Measured(evaluation)
        healthy = f"{scans[name]['lesion_voxels'] / lung:.2%}"
        rows.append(
            [change, found.patients_mean(), found.mean_dice(), *found.lesion_free(), healthy]
        )
    columns = ["", "mean over patients", "mean over slices", "lesion-free slices touched"]
    return table([*columns, "their area marked", "healthy lung marked"], rows)


def leave_one_out() -> str:
    """Each collection tested by a network that never saw it, trained in two ways."""
    rows = []
    for file, way in KEPT_OUT.items():
        for run in runs_of(file):
            evaluation = scored(run)
            found = Measured(evaluation)
            (source,) = set(evaluation["slices"]["source"])
            means = (found.patients_mean(), found.mean_dice())
            subsets = {one["subset"]: one for one in run["evaluations"]}
            free = Measured(subsets.get("all", evaluation)).lesion_free()
            rows.append([way, source, str(int(found.lesion.sum())), *means, *free])
    columns = ["trained with", "collection kept out", "slices with lesion", "mean over patients"]
    columns += ["mean over slices", "lesion-free slices touched", "their area marked"]
    return table(columns, rows)


def input_form() -> str:
    """Networks of one collection on the same patients in two forms of the pictures."""
    rows = []
    for folder, form in FORMS.items():
        (run,) = runs_of("input_form", folder)
        dice = [
            next(Measured(one).mean_dice() for one in run["evaluations"] if name in one["data"])
            for name in FORM_TESTS
        ]
        rows.append([form, *dice])
    return table(["input form", *FORM_TESTS.values()], rows)


def other_direction() -> str:
    """The last network of the development, and one trained on the collection kept out there."""
    rows = []
    for file, folder, name in DIRECTIONS:
        (run,) = runs_of(file, folder)
        for evaluation in run["evaluations"]:
            found = Measured(evaluation)
            sources = set(evaluation["slices"]["source"])
            means = (found.patients_mean(), found.mean_dice())
            lesions = f"{sources.pop()}, {found.lesion.sum()} slices with lesion"
            rows.append([name, lesions, *means, found.lesion_free()[1]])
        for scan in ("normal001", "lidc_normal_2"):
            rows.append(
                [name, f"{SCANS[scan]}", "", "", f"{_scan(run, scan)['share_of_lung']:.2%}"]
            )
    columns = ["trained on", "tested on", "mean over patients", "mean over slices"]
    return table([*columns, "marked of lesion-free slices, of healthy lung"], rows)


def plain_unet() -> str:
    """Ours beside MONAI's plain U-Net: the same slices, recipe and seed."""
    ours = {run["run"].rpartition("/")[2]: run for name in OURS for run in runs_of(name)}
    rows = []
    for plain in runs_of("plain_unet"):
        found = Measured(scored(ours[plain["run"]]))
        free = plain["lesion_free"]
        with_lesion = free["with_lesion"] or plain["own_grid"]
        marked = f"{free['marked_area']:.2%}" if free["slices"] else ""
        tested = [PLAIN[plain["run"]], str(int(found.lesion.sum()))]
        dice = [f"{with_lesion['dice']['mean']:.3f}", found.mean_dice()]
        rows.append([*tested, *dice, marked, found.lesion_free()[1]])
    columns = ["tested on", "slices with lesion", "plain U-Net: Dice", "ours: Dice"]
    columns += ["plain U-Net: area marked on lesion-free slices", "ours"]
    return table(columns, rows)


def paper_protocol() -> str:
    """Table 1's rows by the paper's split, two of them by patient."""
    found: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    for run in runs_of("paper_protocol"):
        data, width = run["config"]["data"], run["config"]["model"]["features"][0]
        size = "{0} x {0}".format(data["image_size"]) + ", twice the width" * (width > 8)
        found.setdefault((data["split"], size, row_of(run)), []).append(scored(run)["own_grid"])
    rows = []
    for split, size in dict.fromkeys(sorted(key[:2] for key in found)):
        for name in PAPER:
            if grids := found.get((split, size, name)):
                scores = [_over_seeds(grids, metric) for metric in METRICS]
                by = "by slice" if split == "paper" else "by patient"
                rows.append([f"{name}, {size}", by, str(len(grids)), *scores])
    for name, values in PAPER.items():
        theirs = [f"{value / 100:.3f}" for value in values]
        rows.append([f"the paper: {name}, 512 x 512", "by slice", "1", *theirs])
    return table(["", "split", "runs", "Dice", "Sens", "Spec"], rows)


def row_of(run: Run) -> str:
    """The row of Table 1 that a run belongs to."""
    config = run["config"]
    used = {"attention": config["model"]["attention"], "loss": config["loss"]["loss"]}
    (name,) = (row for row, settings in ROWS.items() if settings == used)
    return name


def _over_seeds(grids: list[dict[str, float]], metric: str) -> str:
    values = [grid[metric] for grid in grids]
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def fine_tuning() -> str:
    """A collection's own slices alone, and starting from a network of the other collections."""
    starts = {"from scratch": [], "from the other collections' network": []}
    for run in runs_of("fine_tuning"):
        origin = run["config"]["init"]["init_from"]
        starts[list(starts)[origin is not None]].append(scored(run)["own_grid"])
    rows = []
    for name, grids in starts.items():
        scores = [_over_seeds(grids, metric) for metric in ("dice", "sensitivity")]
        rows.append([name, str(len(grids)), *scores])
    return table(["weights at the start", "runs", "Dice", "Sens"], rows)


def _scan(run: Run, name: str) -> dict[str, Any]:
    (found,) = (scan for scan in run["scans"] if scan["name"] == name)
    return found
