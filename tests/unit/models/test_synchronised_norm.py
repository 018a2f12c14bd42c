"""Batch norm of two processes on shares, against PyTorch's on the joined batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.multiprocessing.spawn import spawn

from segan_ray.models.synchronised_norm import SynchronisedBatchNorm, synchronise_norms

SHARES = (4, 3)


class Skip(nn.Sequential):
    """Joins what goes in and what comes out, as U-Net does."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([image, super().forward(image)], 1)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    skip = Skip(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), skip,
        nn.Conv2d(16, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.LeakyReLU(0.2),
        nn.Conv2d(8, 1, 1),
    )  # fmt: skip


def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(sum(SHARES), 4, 20, 20, generator=generator) + 3


def learn(net: nn.Module, image: Tensor, share: float) -> dict[str, Any]:
    """Return a pass's outputs and gradients, the loss being the mean over all slices."""
    image = image.clone().requires_grad_()
    out = net(image)
    (out.square().mean((1, 2, 3)).sum() * share).backward()
    return {
        "out": out.detach(),
        "image": image.grad,
        "weights": {name: each.grad for name, each in net.named_parameters()},
        "buffers": {name: each.clone() for name, each in net.named_buffers()},
    }


def worker(rank: int, folder: str, compiler: str | None) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    net = network()
    synchronise_norms(net)
    if compiler is not None:
        net.compile(backend=compiler)
    mine = images().split(SHARES)[rank]
    learned = learn(net, mine, 2 / sum(SHARES))
    for gradient in learned["weights"].values():
        dist.all_reduce(gradient)
        gradient.div_(2)
    learned["image"] /= 2
    learned["evaluated"] = net.eval()(mine).detach()
    learned["breaks"] = dict(counters["graph_break"])
    torch.save(learned, f"{folder}/{rank}.pt")
    dist.barrier()
    # gloo's threads may outlive the interpreter and then abort the process.
    os._exit(0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "compiler", [None, "aot_eager", pytest.param("inductor", marks=pytest.mark.full)]
)
def test_two_processes_normalise_as_one_does_on_all_slices(
    tmp_path: Path, compiler: str | None
) -> None:
    plain = network()
    alone = learn(plain, images(), 1 / sum(SHARES))
    alone["evaluated"] = plain.eval()(images()).detach()
    spawn(worker, args=(str(tmp_path), compiler), nprocs=2)
    both = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name in ("out", "image", "evaluated"):
        joined = torch.cat([each[name] for each in both])
        torch.testing.assert_close(joined, alone[name], rtol=1e-3, atol=1e-5, msg=name)
    for each in both:
        torch.testing.assert_close(each["buffers"], alone["buffers"], rtol=1e-4, atol=1e-5)
        for name, gradient in each["weights"].items():
            torch.testing.assert_close(gradient, alone["weights"][name], rtol=2e-3, atol=1e-4)
        assert not each["breaks"]
    torch.testing.assert_close(both[0]["buffers"], both[1]["buffers"], rtol=0, atol=0)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of this process."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_mean_far_above_the_deviation_cancels_nothing(alone: None) -> None:
    net = nn.Sequential(nn.BatchNorm2d(2))
    synchronise_norms(net)
    image = torch.randn(4, 2, 32, 32, generator=torch.Generator().manual_seed(0)) + 3000
    exact = (image - image.double().mean((0, 2, 3), keepdim=True)) / image.double().std(
        (0, 2, 3), keepdim=True, unbiased=False
    )
    torch.testing.assert_close(net(image).double(), exact, rtol=1e-3, atol=2e-3)


def test_names_and_values_of_the_state_stay(alone: None) -> None:
    net = network()
    before = net.state_dict()
    synchronise_norms(net)
    kinds = {type(module) for module in net.modules() if "Norm" in type(module).__name__}
    assert kinds == {SynchronisedBatchNorm}
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
