"""SegAN, single-scale SegAN and U-Net with the same budget, three seeds each, on test patients.

    segan-ray phantom data --cases 60 --spacing 2 --seed 11
    segan-ray prepare data store
    python benchmarks/variants.py store

Every method sees the same slices, as many of them, through the same loop, from a segmentor of
the same widths (U-Net: MONAI's); its best epoch on the validation patients is scored on the
test patients, whole volumes in the original grid. Not part of `make bench`: it takes half an
hour on two cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import _run
import torch
from phantom_store import make_store

from segan_ray.brats import REGIONS
from segan_ray.config import load_experiment
from segan_ray.data.sampling.slices import fitting_crop, slice_source
from segan_ray.data.store.opened_store import open_for_tuning, open_test
from segan_ray.evaluation.inference.predict_box import BoxArrays, predict_box
from segan_ray.evaluation.inference.validation import validate, validation_settings
from segan_ray.evaluation.metrics.scores import patient_table
from segan_ray.evaluation.scoring.score_cases import score_cases
from segan_ray.models.build import downsampling_levels
from segan_ray.training.fit import DistributedContext, EpochReport, fit
from segan_ray.training.state import new_state

COMMON = [
    "segmentor.base_width=12", "segmentor.lr=2e-3", "critic.base_width=8", "critic.lr=1e-3",
    "training.epochs=16", "training.steps_per_epoch=72", "training.crop=96",
    "training.precision=float32", "data.tumour_fraction=0.7",
]  # fmt: skip
METHODS = {
    "SegAN": [],
    "SegAN, single scale": ["critic.scales=single-scale"],
    "SegAN without Dice": ["loss.dice_weight=0"],
    "SegAN, single scale, without Dice": ["loss.dice_weight=0", "critic.scales=single-scale"],
    "U-Net": ["variant=unet"],
}
SEEDS = (0, 1, 2)
CPU = torch.device("cpu")


def run(store: Path, method: str, seed: int, more: Sequence[str] = ()) -> dict[str, float]:
    """Train one method with one seed; return its test scores, and slices/s."""
    torch.set_num_threads(1)
    experiment = load_experiment(None, [*COMMON, *METHODS[method], *more, f"seed={seed}"])
    cases, depth = open_for_tuning(store), downsampling_levels(experiment)
    settings = validation_settings(experiment, CPU)
    state = new_state(experiment, CPU)
    best: dict[str, torch.Tensor] = {}
    speeds: list[float] = []

    def report(epoch: EpochReport) -> None:
        speeds.append(epoch.metrics["time/slices_per_s"])
        if epoch.improved:
            best.update({name: t.clone() for name, t in state.segmentor.state_dict().items()})

    fit(
        state,
        experiment,
        slice_source(cases.train),
        crop=fitting_crop(experiment.training.crop, cases.train, depth),
        context=DistributedContext(CPU),
        validate=lambda network: validate(network, cases.val, settings),
        report=report,
    )
    state.segmentor.load_state_dict(best)
    scores = score_cases(
        lambda case: predict_box(state.segmentor, BoxArrays.of_case(case), settings).regions,
        open_test(store),
    )
    table = patient_table(scores).mean()
    found = {f"dice {region}": float(table["dice", region]) for region in REGIONS}
    found |= {f"hd95 {region}": float(table["hd95", region]) for region in REGIONS}
    return {**found, "epoch": state.best.epoch if state.best else 0, "slices/s": mean(speeds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path, nargs="?")
    parser.add_argument("--processes", type=int, default=2)
    parser.set_defaults(seeds=SEEDS, more=())
    smallest = (
        "segmentor.base_width=4", "critic.base_width=4", "training.epochs=1",
        "training.steps_per_epoch=1",
    )  # fmt: skip
    options = _run.begin(parser, store=None, seeds=(0,), more=smallest)
    if options.store is None and not options.smoke:
        parser.error("STORE is missing; the head of this file says how to make it.")
    with tempfile.TemporaryDirectory() as folder:
        store = options.store or make_store(Path(folder), cases=8, spacing_mm=4.0)
        rows = compare(store, options.seeds, options.more, options.processes)
        patients = len(open_test(store))
    ratios = {
        f"{method}, Dice over U-Net's": ratio(rows[method], rows["U-Net"])
        for method in METHODS
        if method != "U-Net"
    }
    device = f"CPU, one thread a run, {patients} test patients"
    _run.finish(options, {"device": device, "ratios": ratios, "detail": rows}, show)


def compare(
    store: Path, seeds: Sequence[int], more: Sequence[str], processes: int
) -> dict[str, list[dict[str, float]]]:
    """Return the scores of every method, once a seed."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures = {
            (method, seed): pool.submit(run, store, method, seed, more)
            for seed, method in product(seeds, METHODS)
        }
        found = {key: future.result() for key, future in futures.items()}
    return {method: [found[method, seed] for seed in seeds] for method in METHODS}


def show(document: dict[str, Any]) -> None:
    print(f"{document['device']}: mean of the seeds [lowest, highest].")
    print(f"{'':34}{'Dice whole':>20}{'core':>20}{'enhancing':>20}  HD95 in mm")
    for method, seeds in document["detail"].items():
        dice = "".join(f"{spread([row[f'dice {r}'] for row in seeds]):>20}" for r in REGIONS)
        hd95 = "  ".join(f"{mean(row[f'hd95 {r}'] for row in seeds):5.1f}" for r in REGIONS)
        print(f"{method:34}{dice}  {hd95}")


def ratio(rows: list[dict[str, float]], reference: list[dict[str, float]]) -> dict:
    def dice(seeds: list[dict[str, float]]) -> float:
        return mean(row[f"dice {region}"] for row in seeds for region in REGIONS)

    value = dice(rows) / dice(reference)
    return {"value": value, "target": None, "ok": True}


def spread(values: list[float]) -> str:
    return f"{mean(values):.3f} [{min(values):.3f}, {max(values):.3f}]"


if __name__ == "__main__":
    main()
