"""Record the learning curves that `benchmarks/search.py` replays. One core, an hour or more.

    python benchmarks/record_curves.py WORK_FOLDER

makes the phantoms and their store in WORK_FOLDER, trains every point of the grid once a seed
with the product's own loop and the base settings of `benchmarks/curves/space.yaml`, and writes
`benchmarks/curves/segan_phantom.csv.gz` and its `.json`. A run that was recorded is not trained
again: stop it when you like and start it again, or delete the file to record from scratch. One
thread, float32: the same numbers on the same processor; another one rounds differently, and the
curves part after some epochs.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import torch
from recorded import CURVES, HEADER, PROFILES, SPACE, Grid, Row, Setting, read_rows, write_rows

from segan_ray.brats import REGIONS
from segan_ray.config import Experiment
from segan_ray.data.layouts.cases import discover
from segan_ray.data.phantom.dataset import write_phantoms
from segan_ray.data.sampling.slices import fitting_crop, slice_source
from segan_ray.data.store.opened_store import (
    PrepareSettings,
    TuningCases,
    open_for_tuning,
    read_manifest,
)
from segan_ray.data.store.prepare import prepare
from segan_ray.data.store.splits import SplitSettings
from segan_ray.evaluation.inference.validation import validate, validation_settings
from segan_ray.filesystem.atomic_files import write_text
from segan_ray.models.build import downsampling_levels
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.search.space.space_file import load_space
from segan_ray.training.fit import DistributedContext, EpochReport, fit
from segan_ray.training.state import new_state
from segan_ray.training.validation_scores import SCORE

CPU: Final = torch.device("cpu")
PHANTOM: Final = {"cases": 28, "spacing_mm": 4.0, "seed": 7}
SPLIT: Final = SplitSettings(val=0.36, gate=0.04, test=0.04)
SCORES: Final = (SCORE, *(f"val/dice_{region}" for region in REGIONS))
GRID: Final = Grid(
    depths=(1, 2, 3, 4),
    segmentor_lrs=(5e-4, 3e-3, 1.8e-2, 1.08e-1),
    critic_lrs=(1e-4, 1e-3, 1e-2),
    profiles=PROFILES,
    seeds=(0, 1, 2),
    epochs=9,
)


def open_store(folder: Path, phantom: Mapping[str, Any] = PHANTOM) -> Path:
    """Return the store below ``folder``, made if it is not there."""
    store = folder / "store"
    write_phantoms(folder / "data", **phantom)
    prepare(discover(folder / "data"), store, settings=PrepareSettings(), split_settings=SPLIT)
    return store


def train(cases: TuningCases, experiment: Experiment) -> list[EpochReport]:
    """Return what every epoch of one run reported; fewer than asked for where it broke off."""
    depth = downsampling_levels(experiment)
    reports: list[EpochReport] = []
    fit(
        new_state(experiment, CPU),
        experiment,
        slice_source(cases.train),
        crop=fitting_crop(experiment.training.crop, cases.train, depth),
        context=DistributedContext(CPU),
        validate=lambda network: validate(network, cases.val, validation_settings(experiment, CPU)),
        report=reports.append,
    )
    return reports


def rows_of(setting: Setting, seed: int, reports: list[EpochReport]) -> Iterator[Row]:
    """Yield a row for each epoch of one run, those after it broke off too."""
    for report in reports:
        dice = tuple(report.metrics[name] for name in SCORES)
        yield Row(setting, seed, report.epoch, dice, report.failure is not None)
    for epoch in range(len(reports) + 1, GRID.epochs + 1):
        yield Row(setting, seed, epoch, (0.0,) * len(SCORES), ended=True)


def header(store: Path, space: SearchSpace) -> dict[str, object]:
    """Return what was recorded, on what, and how to record it again."""
    return {
        "what": "val/dice_mean and Dice by region of every epoch of a full grid of SegAN settings",
        "command": "python benchmarks/record_curves.py WORK_FOLDER",
        "phantom": PHANTOM,
        "split": SPLIT.model_dump(),
        "store": read_manifest(store).fingerprint,
        "base": space.base,
        "grid": asdict(GRID),
        "machine": f"{cpu_name()}, 1 thread, {torch.backends.cpu.get_cpu_capability()}",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def cpu_name() -> str:
    name = platform.processor() or platform.machine()
    if hasattr(torch.cpu, "get_capabilities"):
        name = str(torch.cpu.get_capabilities().get("cpu_name", name))
    return name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="where phantoms and store go, or are")
    parser.add_argument("--smoke", action="store_true", help="only see that it runs: no curves")
    options = parser.parse_args()
    # All points of one seed before the next: what is there early already spans the grid.
    runs = [(setting, seed) for seed in GRID.seeds for setting in GRID.settings()]
    if options.smoke:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            store = open_store(folder, {**PHANTOM, "cases": 8})
            record(store, runs[:1], folder / CURVES.name, folder / HEADER.name)
        print("smoke: ran, no figures")
    elif options.folder is None:
        parser.error("WORK_FOLDER is missing.")
    else:
        record(open_store(options.folder), runs, CURVES, HEADER)


def record(store: Path, runs: list[tuple[Setting, int]], curves: Path, about: Path) -> None:
    """Train each run that is not among ``curves`` yet, and add it."""
    torch.set_num_threads(1)
    cases, space = open_for_tuning(store), load_space(SPACE)
    write_text(about, json.dumps(header(store, space), indent=2) + "\n")
    rows = read_rows(curves)
    recorded = {(row.setting, row.seed) for row in rows}
    for number, (setting, seed) in enumerate(runs, start=1):
        if (setting, seed) in recorded:
            continue
        started = perf_counter()
        experiment = space.experiment({**setting.params(), "seed": seed})
        rows += rows_of(setting, seed, train(cases, experiment))
        write_rows(curves, rows)
        best = max(row.dice[0] for row in rows[-GRID.epochs :])
        print(
            f"{number}/{len(runs)} seed {seed} {tuple(setting)}: best {best:.3f}, "
            f"{perf_counter() - started:.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
