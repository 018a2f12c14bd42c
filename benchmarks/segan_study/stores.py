"""Make the stores of the study in docs/segan.md: 120 phantoms at 2 mm, and parts of them.

    python benchmarks/segan_study/stores.py WORK_FOLDER

`store` has all 60 training patients, `clean-N` the first N of them, and `wrong-N` the same N with a
tenth of the voxels of each truth wrong, those of the validation patients too. Test patients are the
same everywhere, and their truth is right.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import nibabel
import numpy as np
import yaml
from scipy import ndimage

from segan_ray.brats import CODE_2017_TO_2021
from segan_ray.data.phantom.anatomy import random_field
from segan_ray.data.phantom.dataset import write_phantoms
from segan_ray.data.store.opened_store import read_manifest

CASES: Final = 120
SPACING_MM: Final = 2.0
SEED: Final = 21
SHARES: Final = ("--val", "0.167", "--gate", "0", "--test", "0.333")
"""Enough patients for thresholds: of seven or eight one has no enhancing tumour."""
SIZES: Final = (4, 8, 16, 32)
WRONG_SHARE: Final = 0.1
FIELD_MM: Final = 10.0
"""The wrong border wanders to both sides of the right one over about this length."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="WORK_FOLDER")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    workers = len(os.sched_getaffinity(0))
    write_phantoms(folder / "data", cases=CASES, spacing_mm=SPACING_MM, seed=SEED, workers=workers)
    prepare(folder / "data", folder / "store", *SHARES)
    splits = {side: list(of) for side, of in read_manifest(folder / "store").splits.items()}
    for size in SIZES:
        sides = {**splits, "train": splits["train"][:size]}
        for kind in ("clean", "wrong"):
            part = folder / f"{kind}-{size}"
            write_part(folder / "data", part / "data", sides, wrong=kind == "wrong")
            split = part / "split.yaml"
            split.write_text(yaml.safe_dump(sides))
            prepare(part / "data", part / "store", "--split-file", str(split))


def prepare(data: Path, store: Path, *options: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "segan_ray", "prepare", str(data), str(store), *options], check=True
    )


def write_part(data: Path, out: Path, sides: dict[str, list[str]], *, wrong: bool) -> None:
    """Link the cases of some patients; of those that are trained on, the truth may be wrong."""
    out.mkdir(parents=True, exist_ok=True)
    for side, patients in sides.items():
        for case in cases_of(data, patients):
            (out / case.name).mkdir(exist_ok=True)
            for file in sorted(case.iterdir()):
                there = out / case.name / file.name
                there.unlink(missing_ok=True)
                if wrong and side in ("train", "val") and "_seg" in file.name:
                    write_wrong(file, there)
                else:
                    there.symlink_to(file.resolve())


def cases_of(data: Path, patients: list[str]) -> Iterator[Path]:
    for patient in patients:
        yield from sorted(data.glob(f"{patient}*"))


def write_wrong(truth: Path, out: Path) -> None:
    image: Any = nibabel.load(truth)
    regions = CODE_2017_TO_2021.regions(np.asarray(image.dataobj).astype(np.uint8))
    spacing_mm = [float(mm) for mm in image.header.get_zooms()[:3]]
    wrong = wrong_regions(regions, spacing_mm, np.random.default_rng([*truth.name.encode()]))
    label = CODE_2017_TO_2021.labels(wrong).astype(np.uint8)
    nibabel.Nifti1Image(label, image.affine, image.header).to_filename(out)


def wrong_regions(
    regions: np.ndarray, spacing_mm: list[float], rng: np.random.Generator
) -> np.ndarray:
    """Return nested regions whose borders wander: about a tenth of each one's voxels are wrong."""
    axes_mm = tuple(
        np.arange(size) * mm for size, mm in zip(regions.shape[1:], spacing_mm, strict=True)
    )
    moved = [np.ones_like(regions[0])]
    for region in regions:
        field = random_field(rng, axes_mm, step_mm=FIELD_MM)
        moved.append(wrong_region(region, spacing_mm, field, within=moved[-1]))
    return np.stack(moved[1:])


def wrong_region(
    region: np.ndarray, spacing_mm: list[float], field: np.ndarray, *, within: np.ndarray
) -> np.ndarray:
    """Return ``region`` with its border moved along ``field``, so far that a tenth is wrong."""
    if not region.any():
        return region
    inside = ndimage.distance_transform_edt(region, spacing_mm)
    depth_mm = inside - ndimage.distance_transform_edt(~region, spacing_mm)
    least, most = 0.0, 20.0
    for _ in range(20):
        reach_mm = (least + most) / 2
        moved = (depth_mm + reach_mm * field > 0) & within
        if np.count_nonzero(moved ^ region) < WRONG_SHARE * np.count_nonzero(region):
            least = reach_mm
        else:
            most = reach_mm
    return np.asarray(moved)


if __name__ == "__main__":
    main()
