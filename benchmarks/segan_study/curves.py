"""Write every epoch of the study's trials to one table, from which figures are drawn again.

    python benchmarks/segan_study/curves.py HOME RESULTS_FOLDER

`curves.csv.gz` has a row for each sweep, trial and epoch: validation Dice, losses, seconds. Rows of
sweeps that this home does not have stay.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import pandas as pd

from segan_ray.brats import REGIONS
from segan_ray.home import Home
from segan_ray.search.results.ranking import SweepRecord
from segan_ray.tracking.reading.sweeps import histories, list_sweeps

METRICS: Final = (
    "val/dice_mean", *(f"val/dice_{region}" for region in REGIONS), "train/loss_segmentor",
    "train/adversarial_share", "time/epoch_s",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("results", type=Path)
    options = parser.parse_args()
    home = Home.at(options.home)
    table = pd.concat([curves_of(home, sweep) for sweep in list_sweeps(home)], ignore_index=True)
    options.results.mkdir(exist_ok=True)
    file = options.results / "curves.csv.gz"
    if file.exists():
        before = pd.read_csv(file, dtype={"trial": str, "repeat_of": str})
        others = before[~before["sweep"].isin(table["sweep"])]
        table = pd.concat([others, table], ignore_index=True).sort_values("sweep", kind="stable")
    table.to_csv(file, index=False)
    print(f"{len(table)} epochs of {table['sweep'].nunique()} sweeps")


def curves_of(home: Home, sweep: SweepRecord) -> pd.DataFrame:
    """Return a row for each trial and epoch of a sweep."""
    repeat_of = {trial.trial: trial.repeat_of or "" for trial in sweep.trials}
    columns = {
        metric: pd.Series(
            {
                (trial, epoch): round(value, 5)
                for trial, points in histories(home, sweep, metric).items()
                for epoch, value in points
            }
        )
        for metric in METRICS
    }
    table = pd.DataFrame(columns).rename_axis(["trial", "epoch"]).reset_index()
    table.insert(0, "sweep", sweep.sweep)
    table.insert(3, "repeat_of", table["trial"].map(repeat_of))
    return table


if __name__ == "__main__":
    main()
