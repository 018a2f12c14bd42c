"""Volumes a second from disk to disk: BRATS files in, label maps out, against MONAI's best way.

All sides have the same network with the same weights and thresholds, see every slice that
shows brain once, without overlap, and turn four ``.nii.gz`` files of 240x240x155 voxels into
one. They take turns in one process; a round is all cases, and a ratio that of one round.

- ours: ``segment_stream``, writing with nibabel.
- MONAI: LoadImage, NormalizeIntensity over the brain, whole slices, SaveImage. Before the
  rounds it tries what it has and keeps the fastest: SliceInferer and plain batches, 1 to 64
  slices at once, float32 and autocast to bfloat16, each on 64 slices in memory; then, disk to
  disk, no loader, a ThreadDataLoader, which reads ahead, and a DataLoader with a process.
- MONAI, cropped: the same, with our own idea lent to it: slices are cropped to the foreground of
  their volume, and label maps put back.

MONAI is spared our clipping at percentiles, and checks of the files. Thresholds are those above
which a fiftieth of a volume lies, so that label maps compress like label maps though the network
is not trained. What such a network says depends on where in its coarsest grid a voxel lies, which
whole slices and cropped ones differ in: label maps are compared, not required to be equal.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import _run
import nibabel as nib
import numpy as np
import torch
from torch import Tensor, nn

from segan_ray.brats import CODE_2017_TO_2021, MODALITIES, REGIONS
from segan_ray.config import load_experiment
from segan_ray.data.io.volumes import read_volume
from segan_ray.data.layouts.cases import discover
from segan_ray.data.phantom.dataset import write_phantoms
from segan_ray.data.store.manifest import PrepareSettings
from segan_ray.data.store.origin import Origin
from segan_ray.evaluation.inference.inference_settings import Postprocessing
from segan_ray.evaluation.inference.packaged_model import Model, TrainedSegmentor
from segan_ray.evaluation.inference.segment_volume import probabilities_of_volume
from segan_ray.evaluation.inference.stream_cases import segment_stream
from segan_ray.models.build import build_segmentor, downsampling_levels
from segan_ray.models.numerics import choose_precision, move_to_device

TARGET = 2.0
FILLED = 0.02
BATCHES = (1, 4, 16, 64)
TRIED_SLICES, TRIED_CASES = 64, 2
LOADERS = ("none", "thread", "process")
Labels = Callable[[Any], Any]
"""From region maps to values of 2021."""


@dataclass(frozen=True)
class Way:
    """How MONAI runs: the network, and what is around it."""

    slicer: bool = False
    batch: int = 8
    half: bool = False
    cropped: bool = False
    loader: str = "none"


def make_model(data: Path, device: torch.device) -> Model:
    """Return a network that is not trained, with thresholds that fill a part of a volume."""
    torch.manual_seed(0)
    experiment = load_experiment(None, ["segmentor.network=segan"])
    segmentor = build_segmentor(experiment).eval()
    move_to_device([segmentor], device)
    origin = Origin(store="0" * 16, layout="brats2021", preparation=PrepareSettings(), seen={})
    model = Model((TrainedSegmentor(segmentor, experiment),), origin)
    found = discover(data)
    maps = probabilities_of_volume(model, read_volume(found.cases[0], found.layout.code), device)
    thresholds = {
        region: float(np.clip(np.quantile(one, 1 - FILLED), 1e-3, 1 - 1e-3))
        for region, one in zip(REGIONS, maps, strict=True)
    }
    return replace(model, postprocessing=Postprocessing(thresholds=thresholds))


def ours(model: Model, data: Path, out: Path, device: torch.device) -> int:
    """Segment every case into ``out``; return how many."""
    found = discover(data)
    for one in segment_stream(model, found.cases, CODE_2017_TO_2021, device=device):
        if one.error is not None:
            raise one.error
        whole, core, enhancing = one.regions.view(np.uint8)
        label = np.maximum(np.maximum(whole * 2 * (1 - core), core), enhancing * 4)
        nib.save(nib.Nifti1Image(label, one.affine), out / f"{one.case.case}.nii.gz")
    return len(found.cases)


class Monai:
    """MONAI's way from the same files to the same kind."""

    def __init__(self, model: Model, data: Path, device: torch.device) -> None:
        from monai.transforms import (
            Compose,
            ConcatItemsd,
            CropForegroundd,
            DeleteItemsd,
            EnsureChannelFirstd,
            LoadImaged,
            NormalizeIntensityd,
        )

        self.model, self.device = model, device
        self.unit = 2 ** downsampling_levels(model.experiments[0])
        self.files = [
            {name: str(folder / f"{folder.name}_{name}.nii.gz") for name in MODALITIES}
            for folder in sorted(data.glob("BraTS2021_*"))
        ]
        self.crop = CropForegroundd(
            "image", "image", k_divisible=(self.unit, self.unit, 1), allow_smaller=False
        )
        load = [
            LoadImaged(MODALITIES),
            EnsureChannelFirstd(MODALITIES),
            ConcatItemsd(MODALITIES, "image"),
            DeleteItemsd(MODALITIES),
        ]
        normalise = NormalizeIntensityd("image", nonzero=True, channel_wise=True)
        self.whole = Compose([*load, normalise])
        self.cropped = Compose([*load, self.crop, normalise])

    def __call__(self, way: Way, out: Path, cases: int | None = None) -> int:
        """Segment cases into ``out``; return how many."""
        from monai.transforms import SaveImage

        save = SaveImage(
            out, output_postfix="", output_ext=".nii.gz", output_dtype=np.uint8,
            separate_folder=False, resample=False, print_log=False,
        )  # fmt: skip
        files, done = self.files[:cases], 0
        for image in self._images(way, files):
            done += 1
            label = self._label(way, image)
            save(self.crop.inverse({"image": label})["image"] if way.cropped else label)
        assert done == len(files), f"{done} of {len(files)} cases came"
        return done

    def network(self, way: Way, image: Tensor) -> Tensor:
        """Return the probabilities of each region over (modality, x, y, slice)."""
        from monai.inferers import SliceInferer

        plain = image.as_tensor() if hasattr(image, "as_tensor") else image
        kind = self.device.type
        cast = torch.autocast(kind, torch.bfloat16) if way.half else nullcontext()
        with torch.inference_mode(), cast:
            if way.slicer:
                inferer = SliceInferer(
                    spatial_dim=2,
                    roi_size=plain.shape[1:3],
                    sw_batch_size=way.batch,
                    overlap=0,
                )
                return inferer(plain[None].to(self.device), self._channels_last)[0].cpu()
            slices = plain.movedim(-1, 0)
            found = [
                self._channels_last(part.to(self.device)).cpu() for part in slices.split(way.batch)
            ]
            return torch.cat(found).movedim(0, -1)

    def _channels_last(self, slices: Tensor) -> Tensor:
        segmentor: nn.Module = self.model.segmentor
        return segmentor(slices.contiguous(memory_format=torch.channels_last))

    def _images(self, way: Way, files: list[dict[str, str]]) -> Iterator[Any]:
        from monai.data import DataLoader, Dataset, ThreadDataLoader

        transform = self.cropped if way.cropped else self.whole
        dataset = Dataset(files, transform)
        loading: Iterable[Any]
        if way.loader == "thread":
            loading = ThreadDataLoader(
                dataset, batch_size=None, buffer_size=1, num_workers=0, collate_fn=unchanged
            )
        elif way.loader == "process":
            loading = DataLoader(dataset, batch_size=None, num_workers=1, collate_fn=unchanged)
        else:
            loading = (dataset[index] for index in range(len(files)))
        return (one["image"] for one in loading)

    def _label(self, way: Way, image: Any) -> Any:
        from monai.data import MetaTensor

        probability = self.network(way, image)
        after = self.model.postprocessing.thresholds
        thresholds = torch.tensor([after[region] for region in REGIONS])[:, None, None, None]
        regions = (probability > thresholds) & (image.as_tensor() != 0).any(dim=0)
        whole, core, enhancing = regions.view(torch.uint8)
        label = torch.maximum(torch.maximum(whole * 2 * (1 - core), core), enhancing * 4)
        return MetaTensor(label[None], meta=image.meta, applied_operations=image.applied_operations)


def unchanged(one: Any) -> Any:
    """Put no batch together."""
    return one


def seconds(work: Callable[[], object]) -> float:
    started = perf_counter()
    work()
    return perf_counter() - started


def best_ways(
    monai: Monai, folder: Path, batches: Sequence[int], half: bool
) -> tuple[dict[str, Way], dict[str, float]]:
    """Return the fastest of MONAI's ways, whole and cropped, and the seconds of all tried."""
    image = monai.cropped(monai.files[0])["image"]
    image = image[..., :TRIED_SLICES]
    taken: dict[str, float] = {}
    fastest: dict[Way, float] = {}
    for slicer in (False, True):
        for precision in {False, half}:
            for batch in batches:
                way = Way(slicer, batch, precision)
                monai.network(way, image[..., :8])
                fastest[way] = min(seconds(partial(monai.network, way, image)) for _ in range(2))
                name = f"network, {'SliceInferer' if slicer else 'batches'} of {batch}"
                taken[f"{name}, {'bfloat16' if precision else 'float32'}"] = fastest[way]
    network = min(fastest, key=fastest.__getitem__)
    ways = {}
    for side, cropped in (("MONAI", False), ("MONAI, cropped", True)):
        around: dict[Way, float] = {}
        for loader in LOADERS:
            way = replace(network, cropped=cropped, loader=loader)
            around[way] = seconds(partial(monai, way, fresh(folder / "tried"), TRIED_CASES))
            taken[f"{TRIED_CASES} cases, {side}, loader: {loader}"] = around[way]
        ways[side] = min(around, key=around.__getitem__)
    return ways, taken


def in_fresh(monai: Monai, way: Way, folder: Path) -> int:
    return monai(way, fresh(folder))


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def compare(
    data: Path, folder: Path, device: torch.device, batches: Sequence[int], rounds: int
) -> dict[str, Any]:
    """Return volumes/s of each side in each round, and how MONAI did it."""
    model = make_model(data, device)
    monai = Monai(model, data, device)
    precision = choose_precision(model.experiments[0].training, device)
    ways, tried = best_ways(monai, folder, batches, precision == torch.bfloat16)
    sides = {
        "ours": lambda: ours(model, data, fresh(folder / "ours"), device),
        **{name: partial(in_fresh, monai, way, folder / name) for name, way in ways.items()},
    }
    for side in sides.values():
        side()
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            speeds[name].append(len(monai.files) / seconds(side))
    return {
        "speeds": speeds,
        "ways": {name: asdict(way) for name, way in ways.items()},
        "tried_s": tried,
        "agreement": {name: agreement(folder / "ours", folder / name) for name in ways},
        "precision": str(precision).removeprefix("torch."),
    }


def agreement(ours: Path, monai: Path) -> float:
    """Return the share of labelled voxels that both sides label alike; check the rest."""
    shares = []
    names = sorted(path.name for path in ours.iterdir())
    assert names, "no label map"
    theirs = sorted(monai.iterdir())
    assert len(theirs) == len(names)
    for name, path in zip(names, theirs, strict=True):
        first, second = nib.load(ours / name), nib.load(path)
        assert first.shape == second.shape
        np.testing.assert_allclose(first.affine, second.affine, atol=1e-4)
        one, other = (np.asarray(image.dataobj) for image in (first, second))
        labelled = (one > 0) | (other > 0)
        shares.append(float((one == other)[labelled].mean()))
    return min(shares)


def report(found: dict[str, Any], device: torch.device) -> dict[str, Any]:
    speeds = found["speeds"]
    ratio = {
        side: median(a / b for a, b in zip(speeds["ours"], speeds[side], strict=True))
        for side in speeds
        if side != "ours"
    }
    name = f"CPU {platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else name,
        "ratios": {
            "volumes/s, ours over MONAI's best way": {
                "value": ratio["MONAI"], "target": TARGET, "ok": ratio["MONAI"] >= TARGET,
            },
        },
        "detail": {
            "volumes_per_s": {side: median(each) for side, each in speeds.items()},
            "rounds": speeds,
            "over_cropped": ratio["MONAI, cropped"],
            "monai": found["ways"],
            "tried_s": found["tried_s"],
            "agreement": found["agreement"],
            "precision": found["precision"],
        },
    }  # fmt: skip


def show(document: dict[str, Any]) -> None:
    detail = document["detail"]
    print(f"Volumes of 240x240x155, disk to disk: {document['device']}")
    for name, way in detail["monai"].items():
        print(f"{name}: {', '.join(f'{key} {value}' for key, value in way.items())}")
    print(f"Ours computes in {detail['precision']}.")
    for name, taken in detail["tried_s"].items():
        print(f"  tried: {name}: {taken:.2f} s")
    print(f"{'':16}{'volumes/s':>10}{'lowest':>9}{'highest':>9}")
    for name, speed in detail["volumes_per_s"].items():
        rounds = detail["rounds"][name]
        print(f"{name:16}{speed:10.2f}{min(rounds):9.2f}{max(rounds):9.2f}")
    print(f"Volumes/s, ours over MONAI, cropped: {detail['over_cropped']:.2f}")
    for name, share in detail["agreement"].items():
        print(f"Labelled voxels that ours and {name} label alike, at least: {share:.1%}")
    for name, ratio in document["ratios"].items():
        verdict = "met" if ratio["ok"] else "missed"
        print(f"{name}: {ratio['value']:.2f}, target {ratio['target']:.2f}, {verdict}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cases", type=int, default=4, help="phantoms at 1 mm")
    parser.add_argument("--data", type=Path, help="a BRATS 2021 folder to use instead of phantoms")
    parser.set_defaults(spacing_mm=1.0, batches=BATCHES)
    options = _run.begin(parser, rounds=1, cases=1, spacing_mm=3.0, batches=(8,), data=None)
    warnings.filterwarnings("ignore", module="monai")
    logging.getLogger("monai").setLevel(logging.ERROR)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = options.data or folder / "data"
        if options.data is None:
            write_phantoms(data, cases=options.cases, spacing_mm=options.spacing_mm, seed=0)
        found = compare(data, folder, device, options.batches, options.rounds)
    _run.finish(options, report(found, device), show)


if __name__ == "__main__":
    main()
