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
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from statistics import mean

import torch

from segan_ray.brats import REGIONS
from segan_ray.config import load_experiment
from segan_ray.data.slices import fitting_crop, slice_source
from segan_ray.data.store import open_for_tuning, open_test
from segan_ray.evaluation.inference import predict_box
from segan_ray.evaluation.scores import patient_table
from segan_ray.evaluation.scoring import score_cases
from segan_ray.evaluation.validation import validate
from segan_ray.models.build import halvings
from segan_ray.training.fit import EpochReport, Place, fit
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


def run(store: Path, method: str, seed: int) -> dict[str, float]:
    """Train one method with one seed; return its test scores, and slices/s."""
    torch.set_num_threads(1)
    experiment = load_experiment(None, [*COMMON, *METHODS[method], f"seed={seed}"])
    cases, depth = open_for_tuning(store), halvings(experiment)
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
        place=Place(CPU),
        validate=lambda network: validate(
            network, cases.val, halvings=depth, brain_mask=True, device=CPU
        ),
        report=report,
    )
    state.segmentor.load_state_dict(best)
    scores = score_cases(
        lambda case: predict_box(state.segmentor, case, halvings=depth, brain_mask=True),
        open_test(store),
    )
    table = patient_table(scores).mean()
    found = {f"dice {region}": float(table["dice", region]) for region in REGIONS}
    found |= {f"hd95 {region}": float(table["hd95", region]) for region in REGIONS}
    return {**found, "epoch": state.best.epoch if state.best else 0, "slices/s": mean(speeds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, mp_context=context) as pool:
        futures = {
            (method, seed): pool.submit(run, options.store, method, seed)
            for seed, method in product(SEEDS, METHODS)
        }
        found = {key: future.result() for key, future in futures.items()}
    rows = {method: [found[method, seed] for seed in SEEDS] for method in METHODS}
    if options.json:
        ratios = {
            f"{method}, Dice over U-Net's": ratio(rows[method], rows["U-Net"])
            for method in METHODS
            if method != "U-Net"
        }
        print(json.dumps({"device": "CPU, one thread a run", "ratios": ratios, "detail": rows}))
        return
    patients = len(open_test(options.store))
    print(f"Mean over {patients} test patients: mean of three seeds [lowest, highest].")
    print(f"{'':34}{'Dice whole':>20}{'core':>20}{'enhancing':>20}  HD95 in mm")
    for method, seeds in rows.items():
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
