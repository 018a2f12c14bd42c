"""Training on a GPU computes what it does on a CPU: compiled, restored, synchronised, repeated.

Each check also runs on a CPU, as far as it means something there.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from segan_ray.config import Experiment, load_experiment
from segan_ray.data.sampling.slices import epoch_batches, fitting_crop, slice_source
from segan_ray.evaluation.inference.validation import validate, validation_settings
from segan_ray.models.segmentor import double_by_neighbours
from segan_ray.training.build_step import Step, make_step
from segan_ray.training.checkpoints.checkpoint import restore, save_checkpoint
from segan_ray.training.compiling import (
    GraphsOfOneArchitecture,
    compiled_passes,
    compiler_flags,
    obstacle,
)
from segan_ray.training.divergence import DivergenceWatch
from segan_ray.training.fit import DistributedContext, EpochReport, fit
from segan_ray.training.memory import out_of_memory, ran_out
from segan_ray.training.state import TrainingState, new_state
from segan_ray.training.step import EAGER, MicroBatch, keep
from tests.gpu.cases import MadeUpCase
from tests.gpu.conftest import DEVICE, Row

SMALL = ["segmentor.base_width=8", "critic.base_width=8", "segmentor.depth=3", "critic.depth=2"]
HERE = Path(__file__).parents[2]
CPU = torch.device("cpu")


def experiment_of(*settings: str) -> Experiment:
    return load_experiment(None, [*SMALL, *settings])


def part(seed: int = 0, slices: int = 8, crop: int = 64) -> MicroBatch:
    generator = torch.Generator().manual_seed(seed)
    truth = (torch.rand(slices, 3, crop, crop, generator=generator) > 0.8).float()
    image = torch.randn(slices, 4, crop, crop, generator=generator)
    layout = torch.channels_last
    return MicroBatch(
        image.to(DEVICE).contiguous(memory_format=layout),
        truth.to(DEVICE).contiguous(memory_format=layout),
        torch.ones(slices, 1, crop, crop, device=DEVICE),
    )


def step_of(experiment: Experiment, *, compiled: bool) -> Step:
    return make_step(experiment, DEVICE, compiled_passes() if compiled else EAGER)


def train(
    state: TrainingState, experiment: Experiment, seeds: Sequence[int], *, compiled: bool = False
) -> list[list[float]]:
    step = step_of(experiment, compiled=compiled)
    with compiler_flags(experiment.training):
        return [[each.item() for each in step(state, [part(seed)], keep)] for seed in seeds]


def weights(state: TrainingState) -> dict[str, torch.Tensor]:
    assert state.critic is not None
    return {
        f"{number}.{name}": tensor.detach().cpu().clone()
        for number, network in enumerate((state.segmentor, state.critic))
        for name, tensor in network.state_dict().items()
    }


def digest(state: TrainingState) -> str:
    content = b"".join(each.contiguous().numpy().tobytes() for each in weights(state).values())
    return hashlib.sha256(content).hexdigest()[:16]


def needs_compiler() -> None:
    why = obstacle(DEVICE)
    if why is not None:
        pytest.skip(f"cannot compile: {why}")


def test_compiled_training_is_eager_training(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_compiler()
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    experiment = experiment_of("training.precision=float32")
    begun = weights(new_state(experiment, DEVICE))
    ends = []
    for compiled in (False, True):
        state = new_state(experiment, DEVICE)
        losses = train(state, experiment, range(4), compiled=compiled)
        ends.append((weights(state), losses))
    (expected, eager), (actual, compiled_losses) = ends
    torch.testing.assert_close(compiled_losses[0], eager[0], atol=1e-4, rtol=1e-4)
    # An optimizer's first steps make whole steps of gradients that are nearly none, and of their
    # rounding; so single weights may differ, but not where they all have moved to.
    moved = sum((expected[name] - begun[name]).double().square().sum() for name in expected)
    apart = sum((expected[name] - actual[name]).double().square().sum() for name in expected)
    share = float((apart / moved).sqrt())
    row("losses after four steps, eager and compiled", f"{eager[-1]} {compiled_losses[-1]}")
    row("distance between their weights, of the way both went", f"{share:.4f}")
    assert share < 0.1


def test_six_architectures_stay_compiled_and_leave_no_memory(row: Row) -> None:
    needs_compiler()
    graphs, counts, held = GraphsOfOneArchitecture(), [], []
    for width, depth in ((8, 1), (12, 2), (16, 3), (20, 2), (24, 1), (8, 3)):
        experiment = experiment_of(f"segmentor.base_width={width}", f"critic.depth={depth}")
        graphs.come_to(experiment)
        counters.clear()
        state = new_state(experiment, DEVICE)
        train(state, experiment, range(3), compiled=True)
        counts.append(counters["stats"]["unique_graphs"])
        assert not counters["graph_break"]
        del state
        gc.collect()
        if DEVICE.type == "cuda":
            torch.cuda.empty_cache()
            held.append(torch.cuda.memory_allocated() / 1e6)
    row("graphs of six architectures in one process", f"{counts}")
    if held:
        row("MB held after each", str([round(each, 1) for each in held]))
    assert counts == [4] * 6
    # What cuBLAS and cuDNN keep for themselves comes with the first.
    assert not held or held[-1] < held[0] + 16


RUN = """
from tests.gpu.test_training import DEVICE, digest, experiment_of, new_state, train
experiment = experiment_of({settings})
state = new_state(experiment, DEVICE)
train(state, experiment, range(12), compiled={compiled})
print("digest", digest(state))
"""


@pytest.mark.parametrize(
    ("settings", "compiled"),
    [
        ("", False),
        ("", True),
        ("'critic.spectral_norm=true'", False),
    ],
)
def test_two_fresh_processes_train_the_same_weights(
    row: Row, settings: str, compiled: bool, tmp_path: Path
) -> None:
    if compiled:
        needs_compiler()
    code = RUN.format(settings=settings, compiled=compiled)
    # Each tunes and compiles anew.
    running = [start(code, tmp_path / str(number)) for number in range(2)]
    first, second = (finished(process).splitlines()[-1] for process in running)
    row(f"two processes, {settings or 'defaults'}, {'compiled' if compiled else 'eager'}", first)
    assert first == second


def start(code: str, folder: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ, "PYTHONPATH": str(HERE), "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"), **more,
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=HERE,
    )  # fmt: skip


def finished(process: subprocess.Popen[str]) -> str:
    said = process.communicate(timeout=300)[0].strip()
    assert process.returncode == 0, said
    return said


def test_a_restored_state_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    experiment = experiment_of("training.precision=float32")
    one = new_state(experiment, DEVICE)
    train(one, experiment, range(3))
    save_checkpoint(tmp_path, one, experiment)
    two = new_state(experiment, DEVICE)
    restore(tmp_path, two)
    assert train(one, experiment, range(3, 6)) == train(two, experiment, range(3, 6))
    assert digest(one) == digest(two)


def test_doubling_is_the_librarys_with_and_without_gradients(device: torch.device) -> None:
    image = torch.randn(2, 8, 20, 24, device=device)
    library = torch.nn.functional.interpolate(image, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(double_by_neighbours(image), library, atol=1e-5, rtol=1e-5)


def test_a_loss_that_is_no_number_is_seen_one_step_later(device: torch.device) -> None:
    watch = DivergenceWatch(device)
    fine, bad = torch.ones(2, device=device), torch.tensor([1.0, torch.nan], device=device)
    assert [watch.diverged_before(each) for each in (fine, bad, fine)] == [False, False, True]


def test_pinned_batches_are_not_overwritten_while_they_are_copied(cuda: torch.device) -> None:
    source = slice_source([MadeUpCase(number) for number in range(4)])

    def sums(device: torch.device, threads: int, *, busy: bool) -> list[float]:
        weight = torch.randn(4096, 4096, device=device) if busy else None
        found = []
        for batch in epoch_batches(
            source, steps=60, batch_size=16, crop=96, tumour_fraction=0.7, flip=True, seed=0,
            epoch=1, threads=threads, pinned=busy,
        ):  # fmt: skip
            if weight is not None:
                # The copy waits behind this.
                weight = torch.tanh(weight @ weight)
            found.append(batch.unpack(device).image.double().sum())
        return [each.item() for each in found]

    plain, pinned = sums(CPU, 1, busy=False), sums(cuda, 4, busy=True)
    assert pinned == pytest.approx(plain, abs=1.0)


@pytest.mark.parametrize("deterministic", ["true", "false"])
def test_fit_trains_and_validates(row: Row, deterministic: str) -> None:
    cases = [MadeUpCase(number) for number in range(4)]
    steps = 40 if DEVICE.type == "cuda" else 12
    experiment = experiment_of(
        "training.epochs=3", f"training.steps_per_epoch={steps}", "segmentor.lr=4.0e-3",
        f"training.deterministic={deterministic}",
    )  # fmt: skip
    state, reports = new_state(experiment, DEVICE), list[EpochReport]()
    fit(
        state, experiment, slice_source(cases[1:]), crop=fitting_crop(96, cases, 3),
        context=DistributedContext(DEVICE),
        validate=lambda network: validate(
            network, cases[:1], validation_settings(experiment, DEVICE)
        ),
        report=reports.append,
    )  # fmt: skip
    last = reports[-1].metrics
    row(
        f"fit, deterministic={deterministic}",
        f"Dice {last['val/dice_mean']:.3f}, {last['time/slices_per_s']:.0f} slices/s",
    )
    assert last["val/dice_whole"] > 0.5


PAIR = """
import json, os, sys, torch, torch.distributed as dist
from torch._dynamo.utils import counters
from segan_ray.training.distributed import average, gather
from segan_ray.training.step import MicroBatch
from tests.gpu.test_training import DEVICE, digest, experiment_of, new_state, part, step_of
rank, compiled = int(sys.argv[1]), sys.argv[3] == "True"
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
experiment = experiment_of("training.precision=float32")
state, losses = new_state(experiment, DEVICE, synchronised=True), []
step = step_of(experiment, compiled=compiled)
for seed in range(3):
    whole = part(seed)
    mine = MicroBatch(*(each[rank::2] for each in (whole.image, whole.truth, whole.brain)))
    ours = torch.stack(step(state, [mine], average))
    average([ours])
    losses.append(ours.tolist())
stats = {"graphs": counters["stats"]["unique_graphs"], "breaks": dict(counters["graph_break"])}
print(json.dumps({"digests": gather(digest(state)), "losses": losses, **stats}), flush=True)
dist.barrier()
os._exit(0)
"""


@pytest.mark.parametrize("compiled", [False, True])
def test_two_workers_with_synchronised_norms_train_what_one_does(
    row: Row, compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By gloo, since NCCL refuses two workers on one GPU."""
    if compiled:
        needs_compiler()
    meet = str(tmp_path / "meet")
    both = [
        start(PAIR, tmp_path, str(rank), meet, str(compiled), NVIDIA_TF32_OVERRIDE="0")
        for rank in range(2)
    ]
    said = [json.loads(finished(process).splitlines()[-1]) for process in both]
    row(f"two workers, {'compiled' if compiled else 'eager'}", str(said[0]))
    assert said[0] == said[1]
    assert len(set(said[0]["digests"])) == 1
    assert (said[0]["graphs"], said[0]["breaks"]) == (4 if compiled else 0, {})

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    experiment = experiment_of("training.precision=float32")
    alone = train(new_state(experiment, DEVICE), experiment, range(3))
    torch.testing.assert_close(said[0]["losses"], alone, rtol=2e-3, atol=1e-4)


NO_COMPILER = """
from segan_ray.data.sampling.slices import slice_source
from segan_ray.evaluation.inference.validation import validate, validation_settings
from segan_ray.training.fit import DistributedContext, fit
from tests.gpu.cases import MadeUpCase
from tests.gpu.test_training import DEVICE, experiment_of, new_state
experiment = experiment_of(
    "training.compile=true", "training.epochs=1", "training.steps_per_epoch=2"
)
cases = [MadeUpCase(0)]
def report(epoch):
    assert epoch.failure is None
    print("said", epoch.warning)
fit(
    new_state(experiment, DEVICE), experiment, slice_source(cases), crop=64,
    context=DistributedContext(DEVICE),
    validate=lambda network: validate(network, cases, validation_settings(experiment, DEVICE)),
    report=report,
)
"""


def test_without_a_compiler_training_goes_on_and_says_so(row: Row, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    said = finished(start(NO_COMPILER, tmp_path, PATH=str(empty), CC="", CXX="")).splitlines()[-1]
    row("with an empty PATH", said)
    assert said.startswith("said trains slower than it could, not compiled: there is no C")


ON_CPU = """
import sys, torch
from pathlib import Path
from tests.gpu.test_training import CPU, experiment_of, new_state, restore, save_checkpoint
experiment = experiment_of("training.compile=false")
state = new_state(experiment, CPU)
save_checkpoint(Path(sys.argv[1]), state, experiment)
restore(Path(sys.argv[1]), state)
print("cuda begun", torch.cuda.is_initialized())
"""


def test_a_process_that_trains_on_the_cpu_touches_no_gpu(tmp_path: Path) -> None:
    said = finished(start(ON_CPU, tmp_path, str(tmp_path / "checkpoint")))
    assert said.splitlines()[-1] == "cuda begun False"


def test_a_checkpoint_goes_from_gpu_to_cpu_and_back(cuda: torch.device, tmp_path: Path) -> None:
    experiment = experiment_of("training.precision=float32")
    there = new_state(experiment, cuda)
    train(there, experiment, range(2))
    save_checkpoint(tmp_path / "gpu", there, experiment)
    here = new_state(experiment, CPU)
    restore(tmp_path / "gpu", here)
    assert digest(here) == digest(there)
    save_checkpoint(tmp_path / "cpu", here, experiment)
    back = new_state(experiment, cuda)
    restore(tmp_path / "cpu", back)
    assert digest(back) == digest(there)


def test_too_little_memory_is_told_in_words(row: Row, cuda: torch.device) -> None:
    experiment = experiment_of()
    with pytest.raises(torch.OutOfMemoryError) as raised:
        torch.empty(2**50, device=cuda)
    assert ran_out(raised.value)
    told = str(out_of_memory(raised.value, experiment, cuda))
    row("asked for too much", told)
    assert "out of memory: asked for" in told
    assert "GiB free on" in told
    assert "training.batch_size (8)" in told
