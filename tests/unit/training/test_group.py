"""Two processes that train together, against one that trains alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn
from torch.multiprocessing.spawn import spawn

from segan_ray.config import Experiment, build, load_experiment
from segan_ray.data.sampling.slices import slice_source
from segan_ray.data.store.opened_store import open_for_tuning
from segan_ray.evaluation.inference.validation import validate, validation_settings
from segan_ray.training.distributed import average, gather
from segan_ray.training.fit import DistributedContext, EpochReport, fit
from segan_ray.training.state import TrainingState, new_state

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


def freeze_norms(network: nn.Module) -> None:
    """Keep norm layers at their first statistics in every mode that the loop sets."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
            module.train = lambda mode=True, module=module: module  # type: ignore[method-assign]


def train(
    experiment: Experiment, store: Path, rank: int, workers: int, *, frozen: bool
) -> dict[str, torch.Tensor]:
    """Train two epochs; return both networks and the reported metrics."""
    torch.set_num_threads(1)
    cases = open_for_tuning(store)
    state = new_state(experiment, CPU, synchronised=workers > 1)
    reports: list[EpochReport] = []
    for network in (state.segmentor, state.critic):
        if frozen and network is not None:
            freeze_norms(network)
    fit(
        state,
        experiment,
        slice_source(cases.train),
        crop=32,
        context=DistributedContext(CPU, rank, workers, average),
        validate=lambda segmentor: validate(
            segmentor, cases.val, validation_settings(experiment, CPU),
            rank=rank, workers=workers, gather=gather,
        ),
        report=reports.append,
    )  # fmt: skip
    return {**weights(state), **metrics(reports)}


def weights(state: TrainingState) -> dict[str, torch.Tensor]:
    tensors = {f"segmentor.{n}": t for n, t in state.segmentor.state_dict().items()}
    if state.critic is not None:
        tensors |= {f"critic.{n}": t for n, t in state.critic.state_dict().items()}
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def metrics(reports: list[EpochReport]) -> dict[str, torch.Tensor]:
    return {
        f"{report.epoch}.{name}": torch.tensor(value)
        for report in reports
        for name, value in report.metrics.items()
        if not name.startswith("time/")
    }


def leave() -> None:
    """End this process once both are done, at once: gloo's threads may outlive the interpreter
    and then abort the process.
    """
    dist.barrier()
    os._exit(0)


def worker(
    rank: int, workers: int, experiment: dict, store: str, folder: str, frozen: bool
) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=workers
    )
    results = train(build(experiment, "test"), Path(store), rank, workers, frozen=frozen)
    save_file(results, f"{folder}/{rank}.safetensors")
    leave()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "frozen"),
    [
        ("training.batch_size=6", False),
        ("training.batch_size=5 critic.optimizer=rmsprop critic.steps=2", False),
        ("training.batch_size=5 critic.kind=none segmentor.optimizer=adamw", False),
        ("training.batch_size=5 data.neighbours=1 data.rotation_deg=20 data.bias=0.3", False),
        # Each part of a batch is normalised by itself, and parts hold other slices then.
        ("training.batch_size=7 training.accumulate=2 variant=s1-1c", True),
        # Its convolutions have a bias before each norm, whose gradient is but rounding.
        ("training.batch_size=5 segmentor.network=unet critic.kind=none", True),
    ],
)
def test_two_workers_on_shares_learn_what_one_learns_on_the_whole(
    store: Path, tmp_path: Path, settings: str, frozen: bool
) -> None:
    """Shares of 3 + 3 slices, and unequal shares of 3 + 2 and 4 + 3."""
    experiment = load_experiment(
        None,
        [
            "segmentor.network=segan", "segmentor.base_width=4", "segmentor.depth=2",
            "critic.base_width=4", "critic.depth=2", "training.epochs=2",
            "training.steps_per_epoch=4", "training.precision=float32",
            *settings.split(),
        ],
    )  # fmt: skip
    alone = train(experiment, store, 0, 1, frozen=frozen)
    spawn(
        worker,
        args=(2, experiment.model_dump(mode="json"), str(store), str(tmp_path), frozen),
        nprocs=2,
    )
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))
    assert alone.keys() == first.keys()
    for name, expected in alone.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], expected, rtol=2e-3, atol=2e-5, msg=name)


def average_worker(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    scattered = torch.full((2, 3, 2, 2), float(rank)).contiguous(memory_format=torch.channels_last)
    scattered[0, 0] += 4
    average([scattered, torch.zeros(0)])
    assert gather(rank) == [0, 1]
    save_file({"tensor": scattered.contiguous()}, f"{folder}/{rank}")
    dist.destroy_process_group()


@pytest.mark.slow
def test_tensors_are_averaged_in_place(tmp_path: Path) -> None:
    spawn(average_worker, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        actual = load_file(tmp_path / str(rank))
        assert actual["tensor"][0, 0].unique().tolist() == [4.5]
        assert actual["tensor"][1].unique().tolist() == [0.5]


def test_alone_nothing_is_shared() -> None:
    tensor = torch.ones(3)
    average([tensor])
    assert tensor.tolist() == [1, 1, 1]
    assert gather("mine") == ["mine"]
