"""All scores of a case by BraTS 2023's own code against ours, in turns, from the same files.

    git clone https://github.com/rachitsaluja/BraTS-2023-Metrics official
    python3.10 -m venv official/venv
    official/venv/bin/pip install -r official/requirements.txt
    python benchmarks/official.py official --python official/venv/bin/python

The official code wants versions of its own, which there are for Python 3.10 and no later. It runs
in a process of its own that stays up; times are taken within the processes, so that starting them
does not count. Both read two label maps and return Dice, HD95, sensitivity and specificity and the
lesion-wise Dice and HD95 of three regions.

A smoke run sets our code against itself: there is no official code to be had everywhere.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

import _run
import nibabel as nib
import numpy as np
from scipy import ndimage

from segan_ray.brats import CODE_2023, REGIONS
from segan_ray.data.phantom.dataset import synthesize_patient
from segan_ray.evaluation.metrics.lesions import score_lesions
from segan_ray.evaluation.metrics.region_metrics import score_case

TARGET: Final = 10.0
SERVE: Final = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[1])
from metrics import get_LesionWiseResults
for line in sys.stdin:
    pair, start = json.loads(line), time.perf_counter()
    table = get_LesionWiseResults(*pair, "BraTS-GLI")
    taken = time.perf_counter() - start
    names = ["Legacy_Dice", "Legacy_HD95", "Sensitivity", "Specificity"]
    names += ["LesionWise_Score_Dice", "LesionWise_Score_HD95"]
    print(json.dumps([taken, table[names].astype(float).values.tolist()]), flush=True)
"""


def ours(prediction: Path, truth: Path) -> list[list[float]]:
    """Return a row of scores for each region, in the official code's order."""
    images = [nib.load(path) for path in (prediction, truth)]
    found, true = (CODE_2023.regions(np.asarray(image.dataobj)) for image in images)
    spacing_mm = tuple(map(float, images[1].header.get_zooms()))
    rows = []
    for region, scores in score_case(found, true, spacing_mm).items():
        index = REGIONS.index(region)
        lesions = score_lesions(found[index], true[index], spacing_mm)
        rows.append(
            [
                scores.dice,
                scores.hd95,
                scores.sensitivity,
                scores.specificity,
                lesions.dice,
                lesions.hd95,
            ]
        )
    return rows


def write_cases(folder: Path, count: int, spacing_mm: float) -> dict[str, tuple[Path, Path]]:
    """Write a prediction, whose labels are torn at their borders, and a truth for each phantom."""
    rng, cases = np.random.default_rng(0), {}
    for number in range(count):
        patient = synthesize_patient(number, seed=0, spacing_mm=spacing_mm)
        truth = np.where(patient.label == 4, 3, patient.label).astype(np.uint8)
        moved = [ndimage.gaussian_filter(rng.standard_normal(truth.shape), 4) for _ in range(3)]
        places = np.indices(truth.shape) + [2 * each / each.std() for each in moved]
        found = ndimage.map_coordinates(truth, places, order=0)
        files = folder / f"{number}_prediction.nii.gz", folder / f"{number}_truth.nii.gz"
        for path, label in zip(files, (found, truth), strict=True):
            nib.save(nib.Nifti1Image(label, np.diag([spacing_mm] * 3 + [1])), path)
        cases[f"phantom {number}"] = files
    return cases


@contextmanager
def official(checkout: Path, python: str) -> Iterator[Any]:
    """Yield a call that returns the official code's seconds and scores of two files."""
    process = subprocess.Popen(
        [python, "-c", SERVE, str(checkout)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    asked, answers = process.stdin, process.stdout

    def ask(*files: Path) -> tuple[float, list[list[float]]]:
        asked.write(json.dumps([str(path) for path in files]) + "\n")
        asked.flush()
        answer = answers.readline()
        if not answer:
            raise SystemExit("The official code ended; what it said is above.")
        seconds, rows = json.loads(answer)
        return seconds, rows

    try:
        yield ask
    finally:
        asked.close()
        process.wait()


def timed(prediction: Path, truth: Path) -> tuple[float, list[list[float]]]:
    started = perf_counter()
    rows = ours(prediction, truth)
    return perf_counter() - started, rows


def compare(ask: Any, files: tuple[Path, Path], rounds: int) -> dict[str, float]:
    """Return medians in s, the median of the rounds' ratios, and how far the scores part."""
    taken = [(ask(*files), timed(*files)) for _ in range(rounds + 1)][1:]
    (_, theirs), (_, mine) = taken[-1]
    return {
        "official_s": median(each[0] for each, _ in taken),
        "ours_s": median(each[0] for _, each in taken),
        "ratio": median(their[0] / our[0] for their, our in taken),
        "largest_difference": float(np.abs(np.subtract(theirs, mine)).max()),
    }


def show(document: dict[str, Any]) -> None:
    print(f"All scores of a case, seconds: {document['device']}")
    print(f"{'':14}{'official':>9}{'ours':>8}{'ratio':>7}{'scores part by':>16}")
    for name, row in document["detail"].items():
        print(
            f"{name:14}{row['official_s']:9.2f}{row['ours_s']:8.3f}{row['ratio']:7.1f}"
            f"{row['largest_difference']:16.1e}"
        )
    worst = min(ratio["value"] for ratio in document["ratios"].values())
    verdict = "met" if worst >= TARGET else "missed"
    print(f"smallest ratio: {worst:.1f}, target {TARGET:.0f}, {verdict}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path, nargs="?", help="of the official code")
    parser.add_argument("--python", default=sys.executable, help="that has what it needs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", type=int, default=4, help="phantoms at 1 mm")
    parser.set_defaults(spacing_mm=1.0)
    options = _run.begin(parser, checkout=None, cases=1, rounds=1, spacing_mm=4.0)
    if options.checkout is None and not options.smoke:
        parser.error("CHECKOUT is missing; the head of this file says how to get it.")
    with tempfile.TemporaryDirectory() as folder:
        cases = write_cases(Path(folder), options.cases, options.spacing_mm)
        if options.smoke:
            detail = {name: compare(timed, files, options.rounds) for name, files in cases.items()}
        else:
            with official(options.checkout.resolve(), options.python) as ask:
                detail = {name: compare(ask, each, options.rounds) for name, each in cases.items()}
    ratios = {
        name: {"value": row["ratio"], "target": TARGET, "ok": row["ratio"] >= TARGET}
        for name, row in detail.items()
    }
    device = f"CPU {platform.machine()}, {_run.CORES} cores"
    _run.finish(options, {"device": device, "ratios": ratios, "detail": detail}, show)


if __name__ == "__main__":
    main()
