"""The search of `search.py` for real: `segan-ray tune` on what the curves were recorded on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any, Final

import torch
from record_curves import open_store, train
from recorded import SPACE, Curves
from replay import Measure

from segan_ray.data.store.opened_store import open_for_tuning
from segan_ray.search.space.space_file import load_space
from segan_ray.training.validation_scores import SCORE

COMMAND: Final = "from segan_ray.cli.main import main; main()"


def confirm(
    folder: Path, curves: Curves, goal: Measure, space_file: Path = SPACE
) -> dict[str, Any]:
    """Run the sweep, train its best once a seed, and return both beside the recorded grid.

    The phantoms, the store and the sweep's records are made below ``folder``.
    """
    store, name = open_store(folder), f"live-{len(list(folder.glob('home/sweeps/live-*')))}"
    sweep = tune(folder, store, space_file, name)
    best = sweep["best"]
    torch.set_num_threads(1)
    cases, space = open_for_tuning(store), load_space(space_file)
    scores = [
        max(
            report.metrics[SCORE]
            for report in train(cases, space.experiment({**best["params"], "seed": seed}))
        )
        for seed in curves.grid.seeds
    ]
    epochs = sum(trial["epochs"] for trial in sweep["trials"])
    nearest = curves.grid.nearest(best["params"])
    return {
        "sweep": name,
        "trials": len(sweep["trials"]),
        "epochs": epochs,
        "share of the grid": epochs / goal.grid_epochs,
        "best": best["params"],
        "observed": best["score"],
        "seed-averaged": mean(scores),
        "by seed": scores,
        "nearest setting": tuple(nearest),
        "nearest setting, recorded": goal.quality[nearest],
        "best of the grid": goal.best,
        "within": goal.within(1.0),
        "reached": mean(scores) >= goal.within(1.0),
    }


def tune(folder: Path, store: Path, space_file: Path, name: str) -> dict[str, Any]:
    """Return the document of a sweep, its narration on stderr."""
    arguments = ["tune", store, "--space", space_file, "--name", name, "--home", folder / "home"]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *map(str, arguments), "--json"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def show(found: dict[str, Any]) -> None:
    """Print what ``confirm`` found."""
    print(
        f"{found['trials']} trials, {found['epochs']} epochs: "
        f"{found['share of the grid']:.0%} of the grid's.\n"
        f"Best: {found['best']}, Dice {found['observed']:.3f} observed, "
        f"{found['seed-averaged']:.3f} averaged over the seeds.\n"
        f"Best of the recorded grid: {found['best of the grid']:.3f}, within the noise "
        f"from {found['within']:.3f} on: {'reached' if found['reached'] else 'not reached'}."
    )
