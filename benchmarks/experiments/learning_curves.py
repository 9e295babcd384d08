"""The learning curves behind RESULTS.md: the network to install, and Table 1's rows.

python -m benchmarks.experiments.learning_curves docs/images/results_curves.png
"""

import sys
from pathlib import Path

from matplotlib.axes import Axes

from benchmarks.experiments.results_store import Run, runs_of
from benchmarks.experiments.table_experiments import row_of
from covid_jax.reporting.drawing import HIT, MISS
from covid_jax.reporting.figures import PAGE, label_axis, new_figure, save_figure

STYLES = ("-", "--", "-.", ":")  # of the rows, in their order


def draw_losses(axis: Axes, run: Run) -> None:
    """Training and validation loss of one run."""
    curves = run["curves"]
    for name, colour, label in (
        ("train_loss", MISS, "training (augmented)"),
        ("val_loss", HIT, "validation"),
    ):
        axis.plot(curves["epoch"], curves[name], color=colour, label=label)
    axis.axvline(run["best"]["epoch"], color="grey", linewidth=0.8, linestyle=":")
    axis.legend(fontsize=7, frameon=False)
    label_axis(axis, "network to install, second stage", "epoch", "loss")


def draw_rows(axis: Axes, runs: list[Run]) -> None:
    """Validation Dice of Table 1's rows at 128 x 128, every seed."""
    labels: dict[str, str] = {}
    for run in runs:
        row = row_of(run)
        style = labels.setdefault(row, STYLES[len(labels) % len(STYLES)])
        new = row not in axis.get_legend_handles_labels()[1]
        curves, label = run["curves"], row if new else None
        axis.plot(curves["epoch"], curves["val_dice"], style, color=HIT, linewidth=1, label=label)
    axis.set_ylim(0.5, 0.85)
    axis.legend(fontsize=7, frameon=False)
    label_axis(axis, "the paper's protocol, 128 x 128", "epoch", "validation Dice")


def main() -> None:
    """Draws the figure."""
    left, right = (figure := new_figure(PAGE, 2.6)).subplots(1, 2)
    draw_losses(left, runs_of("network")[0])
    by_slice = (r for r in runs_of("paper_protocol", "table1/") if "patient" not in r["run"])
    draw_rows(right, [run for run in by_slice if run["config"]["model"]["features"][0] == 8])
    save_figure(figure, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
