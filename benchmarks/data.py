"""Random slices from the store against decoding, MONAI's PersistentDataset and CacheDataset.

All give batches of 8 random windows of random axial slices, 160 voxels square, as float16
z-scores of four modalities and one uint8 mask, from the same phantoms at 1 mm:

- ours: ``epoch_batches`` on the store. Each of two loader processes draws whole batches.
- ours, threads: as ``fit`` uses it, two threads of one process and none besides.
- decoding: every access decompresses the five files of a case and z-scores them.
- PersistentDataset: each case loaded, cropped to the brain and z-scored once, kept on disk,
  and read whole at every access.
- CacheDataset: the same, kept in memory; handed out without a copy.

But for the threads, all are torch DataLoaders with two forked processes, alive all along and
taking turns; a round is one epoch, timed from asking for its iterator to its last batch. Memory
is of each side's process and its loaders after the rounds, less what the same processes need
when their data set holds nothing: the proportional set size (PSS), and of it what is no clean
page of a file, which the kernel cannot take back at no cost. Every side runs with glibc's
MALLOC_MMAP_THRESHOLD_ at 1 MiB: by default freed batches stay with the allocator, on all sides,
and hide what the data themselves take.

Preparation with one process is set against one plain pass over the same files: decompress with
nibabel, write with ``numpy.save`` in the type the file has. Both in CPU seconds, so per core.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import _run
import nibabel as nib
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler

from segan_ray.data.layouts.cases import discover
from segan_ray.data.phantom.dataset import write_phantoms
from segan_ray.data.sampling.slices import SliceSource, epoch_batches, slice_source
from segan_ray.data.store.opened_store import PreparedCase, PrepareSettings, read_manifest
from segan_ray.data.store.prepare import prepare
from segan_ray.data.store.splits import SplitSettings

CROP, BATCH, PROCESSES = 160, 8, 2
MODALITIES = ("flair", "t1", "t1ce", "t2")
KEYS = (*MODALITIES, "seg")
Window = tuple[torch.Tensor, torch.Tensor]
Load = Callable[[int], Any]
"""Starts an epoch of so many batches."""

BATCHES = {
    "ours": 240, "ours, threads": 240, "decoding": 2, "PersistentDataset": 16, "CacheDataset": 120,
}  # fmt: skip
SPEED_TARGETS = {"decoding": 50.0, "PersistentDataset": 3.0, "CacheDataset": 1.0}
MEMORY_TARGET = 4.0
PREPARE_TARGET = 1.3


class Nothing(Dataset):
    """A data set that costs nothing: the processes and batches of the others, and no data."""

    def __len__(self) -> int:
        return 10**6

    def __getitem__(self, index: int) -> Window:
        shape = (CROP, CROP)
        return torch.ones(4, *shape, dtype=torch.float16), torch.ones(shape, dtype=torch.uint8)


class Store(IterableDataset):
    """Whole batches of a store; each loader process draws its own."""

    def __init__(self, source: SliceSource) -> None:
        self.source, self.batches, self.epoch = source, 0, 0

    def __iter__(self) -> Iterator[Window]:
        worker = torch.utils.data.get_worker_info()
        rank = worker.id if worker else 0
        # A loader process keeps its copy of this object from one epoch to the next.
        self.epoch += 1
        steps = len(range(rank, self.batches, PROCESSES if worker else 1))
        for batch in batches_of(self.source, steps, seed=rank, epoch=self.epoch):
            yield batch.image, batch.mask


def batches_of(source: SliceSource, steps: int, *, seed: int, epoch: int, threads: int = 1) -> Any:
    return epoch_batches(
        source, steps=steps, batch_size=BATCH, crop=CROP, tumour_fraction=None, flip=False,
        seed=seed, epoch=epoch, threads=threads,
    )  # fmt: skip


class Decoding(Dataset):
    """Decompress a case for one slice of it."""

    def __init__(self, files: list[dict[str, str]]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Window:
        volumes = {
            key: np.asarray(nib.load(path).dataobj) for key, path in self.files[index].items()
        }
        image = np.stack([z_score(volumes[name].astype(np.float32)) for name in MODALITIES])
        return random_window(torch.from_numpy(image), torch.from_numpy(pack(volumes["seg"])))


def z_score(voxels: np.ndarray) -> np.ndarray:
    brain = voxels != 0
    inside = voxels[brain]
    scored = np.zeros(voxels.shape, np.float16)
    scored[brain] = (inside - inside.mean()) / inside.std()
    return scored


def pack(labels: np.ndarray) -> np.ndarray:
    """The regions of BRATS 2021 as bits, as the store keeps them."""
    core = (labels == 1) | (labels == 4)
    return ((labels > 0) | core << 1 | (labels == 4) << 2).astype(np.uint8)


def random_window(image: torch.Tensor, mask: torch.Tensor) -> Window:
    """Cut a random window from a random slice of (4, x, y, z), padded where it is smaller."""
    z = int(torch.randint(mask.shape[-1], ()))
    into = torch.zeros(4, CROP, CROP, dtype=torch.float16)
    mask_into = torch.zeros(CROP, CROP, dtype=torch.uint8)
    taken, put = [], []
    for size in mask.shape[:2]:
        start = int(torch.randint(max(size - CROP, 0) + 1, ()))
        length = min(size, CROP)
        taken.append(slice(start, start + length))
        put.append(slice((CROP - length) // 2, (CROP - length) // 2 + length))
    into[:, put[0], put[1]] = image[:, taken[0], taken[1], z]
    mask_into[put[0], put[1]] = mask[taken[0], taken[1], z]
    return into, mask_into


def monai_dataset(kind: str, files: list[dict[str, str]], folder: Path) -> Dataset:
    """MONAI's caching data sets; the same transforms before and after what is cached."""
    from monai.data import CacheDataset, PersistentDataset
    from monai.transforms import (
        CastToTyped,
        Compose,
        ConcatItemsd,
        CropForegroundd,
        DeleteItemsd,
        EnsureChannelFirstd,
        LoadImaged,
        NormalizeIntensityd,
        RandomizableTransform,
        Transform,
    )

    class RandomWindow(RandomizableTransform):
        def __call__(self, data: dict[str, Any]) -> Window:
            return random_window(data["image"], data["seg"][0])

    class Pack(Transform):
        def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
            packed = torch.from_numpy(pack(np.asarray(data["seg"])))
            return {"image": data["image"].as_tensor(), "seg": packed}

    transform = Compose(
        [
            LoadImaged(KEYS),
            EnsureChannelFirstd(KEYS),
            ConcatItemsd(MODALITIES, "image"),
            DeleteItemsd(MODALITIES),
            CropForegroundd(("image", "seg"), source_key="image", allow_smaller=True),
            NormalizeIntensityd("image", nonzero=True, channel_wise=True),
            CastToTyped("image", torch.float16),
            Pack(),
            RandomWindow(),
        ]
    )
    if kind == "PersistentDataset":
        return PersistentDataset(files, transform, cache_dir=folder / "persistent")
    return CacheDataset(files, transform, copy_cache=False, progress=False, num_workers=1)


def loader_of(dataset: Dataset, batches: int) -> DataLoader:
    whole = isinstance(dataset, Store)
    if isinstance(dataset, Store):
        dataset.batches = batches
    sampler = None if whole else RandomSampler(dataset, True, batches * BATCH)  # type: ignore[arg-type]
    return DataLoader(
        dataset, batch_size=None if whole else BATCH, sampler=sampler, num_workers=PROCESSES,
        persistent_workers=True, multiprocessing_context="fork",
    )  # fmt: skip


def side(name: str, batches: int, data: Path, folder: Path, pipe: Connection) -> None:
    """One side in its own process: warm up, then a round or a look at memory when asked."""
    torch.set_num_threads(1)
    files = [
        {key: str(case / f"{case.name}_{key}.nii.gz") for key in KEYS}
        for case in sorted(data.iterdir())
        if case.is_dir()
    ]
    if name.startswith("ours"):
        dataset: Dataset = Store(slice_source(all_cases(folder / "store")))
    elif name == "decoding":
        dataset = Decoding(files)
    else:
        # What MONAI itself takes is no cost of its data.
        import monai.data
        import monai.transforms  # noqa: F401

        dataset = Nothing()
    idle = memory() if name == "ours, threads" else idle_memory(min(batches, 60))
    if isinstance(dataset, Nothing):
        dataset = monai_dataset(name, files, folder)
    if isinstance(dataset, Store) and name == "ours, threads":
        source, epoch = dataset.source, iter(range(10**6))
        start = lambda: batches_of(source, batches, seed=0, epoch=next(epoch), threads=PROCESSES)  # noqa: E731
    else:
        loader = loader_of(dataset, batches)
        start = partial(iter, loader)
    if name == "PersistentDataset":
        for index in range(len(files)):
            dataset[index]
    count(start())
    pipe.send("ready")
    while True:
        if pipe.recv() == "round":
            started = perf_counter()
            slices = count(start())
            pipe.send(slices / (perf_counter() - started))
        else:
            pipe.send({"idle": idle, "loaded": memory()})


def count(batches: Any) -> int:
    total = 0
    for batch in batches:
        image = batch[0] if isinstance(batch, list | tuple) else batch.image
        assert image.shape == (BATCH, 4, CROP, CROP), image.shape
        assert image.dtype == torch.float16
        total += len(image)
    return total


def idle_memory(batches: int) -> dict[str, float]:
    """Return the memory of this process and its loaders after an epoch of nothing."""
    loader = loader_of(Nothing(), batches)
    count(loader)
    found = memory()
    del loader
    # Its processes end with it, and it is in a cycle.
    gc.collect()
    return found


def memory() -> dict[str, float]:
    """Return MB of this process and its children: PSS, and what the kernel cannot take back."""
    mine = os.getpid()
    children = Path(f"/proc/{mine}/task/{mine}/children").read_text(encoding="utf-8").split()
    found = {"pss": 0.0, "held": 0.0}
    for process in (str(mine), *children):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines[1:]}
        found["pss"] += sizes["Pss"]
        found["held"] += sizes["Pss_Anon"] + sizes["Pss_Shmem"] + sizes.get("Swap", 0)
    return found


def all_cases(store: Path) -> list[PreparedCase]:
    return [
        PreparedCase(record, store / "cases" / record.case) for record in read_manifest(store).cases
    ]


def make_store(data: Path, store: Path) -> None:
    prepare(
        discover(data), store, settings=PrepareSettings(),
        split_settings=SplitSettings(val=0.2, gate=0, test=0.2),
    )  # fmt: skip


def plain_pass(data: Path, out: Path) -> None:
    out.mkdir()
    for index, path in enumerate(sorted(data.rglob("*.nii.gz"))):
        np.save(out / f"{index}.npy", np.asanyarray(nib.load(path).dataobj))


def prepare_rounds(data: Path, folder: Path, rounds: int) -> list[dict[str, float]]:
    """Return CPU and wall seconds of both, alternating; the last store stays."""
    taken = []
    for _ in range(rounds):
        row = {}
        for name, work, out in (
            ("plain pass", plain_pass, folder / "plain"),
            ("prepare", make_store, folder / "store"),
        ):
            shutil.rmtree(out, ignore_errors=True)
            cpu, wall = process_time(), perf_counter()
            work(data, out)
            row |= {name: process_time() - cpu, f"{name}, wall": perf_counter() - wall}
        taken.append(row)
    shutil.rmtree(folder / "plain")
    return taken


def rounds_of(
    data: Path, folder: Path, batches: dict[str, int], rounds: int
) -> tuple[dict[str, list[float]], dict[str, dict[str, dict[str, float]]]]:
    """Return slices/s of every round, and the memory of every side."""
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(1 << 20)
    context = get_context("spawn")
    pipes, processes = {}, []
    try:
        for name in BATCHES:
            pipes[name], theirs = context.Pipe()
            process = context.Process(target=side, args=(name, batches[name], data, folder, theirs))
            process.start()
            theirs.close()
            processes.append(process)
            pipes[name].recv()
        speeds: dict[str, list[float]] = {name: [] for name in BATCHES}
        for _ in range(rounds):
            for name, pipe in pipes.items():
                speeds[name].append(asked(pipe, "round"))
        usage = {name: asked(pipe, "memory") for name, pipe in pipes.items()}
    finally:
        for process in processes:
            process.terminate()
            process.join()
    return speeds, usage


def asked(pipe: Connection, question: str) -> Any:
    pipe.send(question)
    return pipe.recv()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", type=int, default=6, help="phantoms at 1 mm")
    parser.add_argument("--data", type=Path, help="a BRATS 2021 folder to use instead of phantoms")
    parser.set_defaults(spacing_mm=1.0, batches=BATCHES)
    few = dict.fromkeys(BATCHES, 2)
    options = _run.begin(parser, rounds=1, cases=5, spacing_mm=4.0, batches=few, data=None)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = options.data or folder / "data"
        if options.data is None:
            write_phantoms(data, cases=options.cases, spacing_mm=options.spacing_mm, seed=0)
        preparing = prepare_rounds(data, folder, min(3, options.rounds))
        speeds, usage = rounds_of(data, folder, options.batches, options.rounds)
    _run.finish(options, report(preparing, speeds, usage), show)


def report(
    preparing: list[dict[str, float]],
    speeds: dict[str, list[float]],
    usage: dict[str, dict[str, dict[str, float]]],
) -> dict[str, Any]:
    added = {
        name: {kind: each["loaded"][kind] - each["idle"][kind] for kind in ("pss", "held")}
        for name, each in usage.items()
    }
    ratios = {}
    for name, target in SPEED_TARGETS.items():
        value = median(a / b for a, b in zip(speeds["ours"], speeds[name], strict=True))
        ratios[f"slices/s, ours over {name}"] = entry(value, target)
    # A side that adds nothing still moves by noise: count no less than a megabyte.
    value = added["CacheDataset"]["held"] / max(added["ours"]["held"], 1.0)
    ratios["unreclaimable memory, CacheDataset over ours"] = entry(value, MEMORY_TARGET)
    value = median(row["prepare"] / row["plain pass"] for row in preparing)
    ratios["CPU time, prepare over plain pass (smaller is better)"] = {
        "value": value, "target": PREPARE_TARGET, "ok": value <= PREPARE_TARGET,
    }  # fmt: skip
    return {
        "device": f"CPU {platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "ratios": ratios,
        "detail": {
            "slices_per_s": {name: median(each) for name, each in speeds.items()},
            "rounds": speeds,
            "memory_mb": usage,
            "added_by_data_mb": added,
            "preparation_s": {key: median(row[key] for row in preparing) for key in preparing[0]},
        },
    }


def entry(value: float, target: float) -> dict[str, float | bool]:
    return {"value": value, "target": target, "ok": value >= target}


def show(document: dict[str, Any]) -> None:
    detail = document["detail"]
    print(f"Batches of {BATCH} random slices, crop {CROP}: {document['device']}")
    print("MB: proportional set size, what the kernel cannot take back, and of it for the data.")
    print(f"{'':20}{'slices/s':>10}{'PSS':>8}{'held':>8}{'for data':>10}")
    for name, speed in detail["slices_per_s"].items():
        loaded, data = detail["memory_mb"][name]["loaded"], detail["added_by_data_mb"][name]
        print(
            f"{name:20}{speed:10.1f}{loaded['pss']:8.0f}{loaded['held']:8.0f}{data['held']:10.1f}"
        )
    for name, taken in detail["preparation_s"].items():
        print(f"{name}: {taken:.2f} s")
    for name, ratio in document["ratios"].items():
        verdict = "met" if ratio["ok"] else "missed"
        print(f"{name}: {ratio['value']:.2f}, target {ratio['target']:.2f}, {verdict}")


if __name__ == "__main__":
    main()
