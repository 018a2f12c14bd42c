"""A home with sweeps whose models are known by hand: no Ray, no training, a second to make.

A model draws each region over the whole brain or not at all. The whole tumour fills a part of
each patient's brain, the core a sliver of it, and nobody has an enhancing part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from segan_ray.config import load_experiment
from segan_ray.data.store.manifest import STORE_VERSION, Manifest, fingerprint
from segan_ray.data.store.opened_store import BRAIN_BIT, CaseRecord, PrepareSettings, read_manifest
from segan_ray.data.store.origin import origin_of, write_origin
from segan_ray.data.store.prepare_case import sha256
from segan_ray.data.store.splits import Fold, SplitName, SplitSettings
from segan_ray.home import Home
from segan_ray.tracking.description.card import StoreCard
from segan_ray.tracking.recording.recorder import Recorder
from segan_ray.training.checkpoints.checkpoint import save_checkpoint
from segan_ray.training.state import Best, new_state

METRIC = "val/dice_mean"
SIZE = (16, 16, 4)
SMALL = [
    "segmentor.base_width=4", "segmentor.depth=2", "critic.base_width=4", "critic.depth=1",
]  # fmt: skip
SIDES: Mapping[SplitName, int] = {"train": 2, "val": 6, "gate": 8, "test": 2}
Regions = tuple[bool, bool, bool]
NOTHING: Regions = (False, False, False)
WHOLE: Regions = (True, False, False)
WHOLE_AND_CORE: Regions = (True, True, False)
"""A little better than WHOLE: of the core it finds next to nothing."""
ENHANCING_TOO: Regions = (True, False, True)
"""Much worse in the enhancing region than WHOLE: it draws what is not there."""


def write_store(
    folder: Path, sides: Mapping[SplitName, int] = SIDES, *, folds: bool = False
) -> Manifest:
    """Write a store of as many patients on each side as ``sides`` says."""
    records = [_write_case(folder, number) for number in range(sum(sides.values()))]
    names = iter(record.patient for record in records)
    splits = {side: tuple(next(names) for _ in range(count)) for side, count in sides.items()}
    divided = tuple(_folds(splits["train"] + splits["val"])) if folds else ()
    settings, content = PrepareSettings(), tuple(records)
    manifest = Manifest(
        version=STORE_VERSION,
        layout="brats2021",
        settings=settings,
        split_settings=SplitSettings(),
        cases=content,
        skipped=(),
        splits=splits,
        folds=divided,
        fingerprint=fingerprint("brats2021", settings, content, splits, divided),
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    return manifest


def record_sweep(
    home: Home, name: str, store: Path, *models: Regions, settings: tuple[str, ...] = ()
) -> None:
    """Record a finished sweep of a trial for each of ``models``, the first of them the best."""
    manifest = read_manifest(store)
    counts = {str(side): len(patients) for side, patients in manifest.splits.items()}
    card = StoreCard(store, manifest.fingerprint, counts)
    folder = home.sweeps / name
    recorder = Recorder.for_sweep(home, name, card, METRIC, "max", "name: test\n", folder)
    for number, regions in enumerate(models):
        trial = f"{number:03d}"
        score = 0.9 - 0.1 * number
        recorder.start_trial(trial, load_experiment(None, [*SMALL, *settings]), {})
        recorder.log_epoch(trial, 1, {METRIC: score})
        checkpoint = folder / "checkpoints" / trial / "epoch-0001"
        write_checkpoint(checkpoint, regions, score, settings=settings)
        write_origin(checkpoint, origin_of(manifest))
        recorder.end_trial(trial, "completed", None, str(checkpoint))
    recorder.close("finished")


def write_checkpoint(
    folder: Path, regions: Regions, score: float = 0.5, settings: tuple[str, ...] = ()
) -> None:
    """Write a checkpoint whose segmentor draws each of ``regions`` everywhere or nowhere."""
    experiment = load_experiment(None, [*SMALL, *settings])
    state = new_state(experiment, torch.device("cpu"))
    with torch.no_grad():
        parameters = list(state.segmentor.parameters())
        for parameter in parameters:
            parameter.zero_()
        # The last are the biases of the maps.
        parameters[-1].copy_(torch.tensor([10.0 if drawn else -10.0 for drawn in regions]))
    state.epoch, state.best = 1, Best(1, {METRIC: score})
    save_checkpoint(folder, state, experiment)


def _write_case(folder: Path, number: int) -> CaseRecord:
    name = f"case{number:02d}"
    height, width, slices = SIZE
    mask = np.full((slices, height, width), BRAIN_BIT, dtype=np.uint8)
    flat = mask.reshape(-1)
    flat[: len(flat) * (4 + number % 5) // 20] |= 1  # the whole tumour: 20% to 40%
    flat[: 4 + number % 3] |= 2  # the core: six voxels of a thousand at most
    place = folder / "cases" / name
    place.mkdir(parents=True)
    np.save(place / "image.npy", np.ones((slices, 4, height, width), dtype=np.float16))
    np.save(place / "mask.npy", mask)
    return CaseRecord(
        case=name,
        patient=name,
        grade=None,
        shape=SIZE,
        origin=(0, 0, 0),
        size=SIZE,
        affine=tuple(tuple(map(float, row)) for row in np.eye(4)),
        spacing_mm=(1.0, 1.0, 1.0),
        has_truth=True,
        tumour_voxels=tuple(int((plane & 1).sum()) for plane in mask),
        region_voxels={},
        checksums={array: sha256(place / array) for array in ("image.npy", "mask.npy")},
        voxels_sha256=name,
        sources={},
    )


def _folds(patients: tuple[str, ...]) -> Iterator[Fold]:
    half = len(patients) // 2
    for val in (patients[:half], patients[half:]):
        yield Fold(train=tuple(sorted({*patients} - {*val})), val=val)
