"""What is compiled, when, and how often."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from segan_ray.config import TrainingSettings, load_experiment
from segan_ray.training import compiling
from segan_ray.training.build_step import make_step
from segan_ray.training.compiling import (
    PAYS_AFTER_STEPS,
    CompilePlan,
    GraphsOfOneArchitecture,
    compiled_from,
    compiled_passes,
    compiler_flags,
)
from segan_ray.training.state import TrainingState, new_state
from segan_ray.training.step import EAGER, MicroBatch, Passes, StepLosses, keep

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
GRAPHS = 4
"""The segmentor, the loss of its maps, and the critic with and without gradients of its weights."""


@pytest.fixture
def traced() -> Iterator[Passes]:
    """The passes as the compiler sees them, run without generating code."""
    torch.compiler.reset()
    yield Passes(
        *(
            torch.compile(each, backend="eager")
            for each in (
                EAGER.segment, EAGER.raised_distance, EAGER.lowered_distance, EAGER.loss_of_maps
            )
        )
    )  # fmt: skip
    torch.compiler.reset()


def part(size: int = 4) -> MicroBatch:
    generator = torch.Generator().manual_seed(0)
    truth = (torch.rand(size, 3, 64, 64, generator=generator) > 0.7).float()
    image = torch.randn(size, 4, 64, 64, generator=generator)
    layout = torch.channels_last
    return MicroBatch(image.contiguous(memory_format=layout), truth, torch.ones(size, 1, 64, 64))


def trained(passes: Passes, *settings: str, steps: int = 2) -> tuple[TrainingState, StepLosses]:
    experiment = load_experiment(None, ["critic.base_width=4", *settings])
    state = new_state(experiment, CPU)
    step = make_step(experiment, CPU, passes)
    losses = [step(state, [part()], keep) for _ in range(steps)]
    return state, losses[-1]


@pytest.mark.slow
def test_one_process_compiles_every_architecture_and_each_once(traced: Passes) -> None:
    forgets, counts = GraphsOfOneArchitecture(), []
    for width, depth, critic_depth in (
        (4, 2, 1), (8, 2, 2), (4, 3, 3), (8, 3, 2), (4, 2, 3), (6, 2, 2),
    ):  # fmt: skip
        architecture = [
            f"segmentor.base_width={width}", f"segmentor.depth={depth}",
            f"critic.depth={critic_depth}", "training.precision=bfloat16",
        ]  # fmt: skip
        for rate in ("1.0e-3", "2.0e-3"):
            # Rates and weights are drawn anew for each trial, and no part of a graph.
            weights = [1.0, *[float(rate) * 1000] * critic_depth]
            settings = [
                *architecture, f"segmentor.lr={rate}", f"loss.ce_weight={rate}",
                f"loss.scale_weights={weights}",
            ]  # fmt: skip
            forgets.come_to(load_experiment(None, settings))
            counters.clear()
            trained(traced, *settings)
            counts.append(counters["stats"]["unique_graphs"])
            assert not counters["graph_break"]
    assert counts == [GRAPHS, 0] * 6


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ["critic.kind=joint", "critic.input=concat", "critic.norm=instance"],
        ["critic.spectral_norm=true"],
        ["variant=s1-1c", "loss.reduction=concatenated", "loss.class_weights=[1,2,3]"],
        ["critic.scales=single-scale", "critic.clamp_norm=false"],
        ["segmentor.network=authors"],
    ],
    ids=" ".join,
)
def test_no_choice_of_networks_or_losses_breaks_a_graph(
    traced: Passes, settings: list[str]
) -> None:
    counters.clear()
    small = ["segmentor.base_width=4", "segmentor.depth=2", "critic.depth=2", *settings]
    state, losses = trained(traced, *small)
    assert counters["stats"]["unique_graphs"] == GRAPHS
    assert not counters["graph_break"]
    expected, same = trained(EAGER, *small)
    torch.testing.assert_close(losses, same)
    torch.testing.assert_close(state.segmentor.state_dict(), expected.segmentor.state_dict())


@pytest.mark.full
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler on CPU")
def test_compiled_training_is_eager_training() -> None:
    torch.compiler.reset()
    small = [
        # U-Net has biases before norms, whose gradients are but rounding.
        "segmentor.network=segan", "segmentor.base_width=4", "segmentor.depth=2", "critic.depth=1",
        "training.precision=float32", "segmentor.optimizer=rmsprop", "critic.optimizer=rmsprop",
    ]  # fmt: skip
    with compiler_flags(TrainingSettings()):
        state, losses = trained(compiled_passes(), *small)
    expected, same = trained(EAGER, *small)
    torch.testing.assert_close(losses, same, rtol=1e-4, atol=1e-5)
    ours, theirs = state.segmentor.state_dict(), expected.segmentor.state_dict()
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("compile_", "epochs", "steps", "device", "first"),
    [
        (True, 1, 1, CPU, 1),
        (False, 1000, 1000, CUDA, None),
        ("auto", 1000, 1000, CPU, None),
        ("auto", 20, PAYS_AFTER_STEPS, CUDA, 2),
        ("auto", 2, PAYS_AFTER_STEPS, CUDA, 2),
        ("auto", 1, PAYS_AFTER_STEPS, CUDA, None),
        ("auto", 20, PAYS_AFTER_STEPS // 10, CUDA, 11),
        ("auto", 19, PAYS_AFTER_STEPS // 10, CUDA, None),
        ("auto", 10**5, 1, CUDA, PAYS_AFTER_STEPS + 1),
    ],
)
def test_steps_are_compiled_once_that_pays(compile_, epochs, steps, device, first) -> None:
    settings = TrainingSettings(compile=compile_, epochs=epochs)
    assert compiled_from(settings, steps, device) == first


def test_a_plan_says_why_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "obstacle", lambda device: "there is no C++ compiler")
    plan = CompilePlan.of(TrainingSettings(compile=True), 10, CPU)
    assert plan == CompilePlan(None, "there is no C++ compiler")
    assert not plan.compiles(5)
    # Where nothing would be compiled anyway, nothing is said.
    assert CompilePlan.of(TrainingSettings(compile=False), 10, CPU) == CompilePlan(None)


def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *programs: str) -> None:
    """Have torch tell of a GPU, and PATH hold these programs alone."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H100")
    monkeypatch.setattr(compiling, "find_spec", lambda name: object())
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    for program in programs:
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


def test_every_obstacle_to_compiling_is_named(monkeypatch, tmp_path) -> None:
    gpu(monkeypatch, tmp_path)
    assert "no C compiler" in (compiling.obstacle(CUDA) or "")
    assert "no C++ compiler" in (compiling.obstacle(CPU) or "")
    monkeypatch.setenv("CC", "gcc -pipe")
    assert "no C compiler" in (compiling.obstacle(CUDA) or "")
    gpu(monkeypatch, tmp_path, "gcc", "g++")
    headers = tmp_path / "Python.h"
    monkeypatch.setattr(compiling.sysconfig, "get_path", lambda name: str(tmp_path))
    assert "Python's headers are missing" in (compiling.obstacle(CUDA) or "")
    headers.touch()
    assert compiling.obstacle(CUDA) is None
    assert compiling.obstacle(CPU) is None
    monkeypatch.setattr(compiling, "find_spec", lambda name: None)
    assert compiling.obstacle(CUDA) == "Triton is not installed"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    assert compiling.obstacle(CUDA) == "H100 has compute capability 6.1, and Triton needs 7.0"


def test_the_compiler_is_told_to_repeat_and_how_many_cores_it_has() -> None:
    from torch._inductor import config

    before = config.deterministic, config.compile_threads
    with compiler_flags(TrainingSettings(deterministic=True)):
        assert config.deterministic
        assert config.compile_threads == torch.get_num_threads()
    with compiler_flags(TrainingSettings(deterministic=False)):
        assert not config.deterministic
    assert (config.deterministic, config.compile_threads) == before


def test_the_compiler_is_not_imported_where_nothing_is_compiled() -> None:
    code = "import sys; import segan_ray.training.fit; print('torch._inductor' in sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert said.strip() == "False"
