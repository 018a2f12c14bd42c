"""Memory: what is estimated is what autograd keeps, and too little is told in words."""

from __future__ import annotations

import pytest
import torch

from segan_ray.config import Experiment, load_experiment
from segan_ray.training.build_step import feature_distance, map_loss
from segan_ray.training.memory import out_of_memory, ran_out, training_bytes
from segan_ray.training.state import new_state
from segan_ray.training.step import MicroBatch, loss_of_maps, lowered_distance, segment

CPU = torch.device("cpu")
CROP = 64


def experiment_of(*settings: str) -> Experiment:
    return load_experiment(None, ["training.precision=float32", *settings])


def kept_bytes(experiment: Experiment) -> int:
    """Add up what autograd keeps of a real step's second half."""
    state, kept = new_state(experiment, CPU), dict[int, torch.Tensor]()
    slices = experiment.training.batch_size
    truth = torch.zeros(slices, 3, CROP, CROP)
    part = MicroBatch(torch.randn(slices, 4, CROP, CROP), truth, None)
    weights = {each.untyped_storage().data_ptr() for each in state.segmentor.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    of_maps = map_loss(experiment.loss, CPU)
    assert of_maps is not None
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        probability = segment(state.segmentor, part)
        loss_of_maps(part, probability, of_maps)
        if state.critic is not None:
            weights |= {each.untyped_storage().data_ptr() for each in state.critic.parameters()}
            distance = feature_distance(experiment, CPU)
            lowered_distance(state.critic.requires_grad_(False), part, probability, distance)
    return sum(each.untyped_storage().nbytes() for each in kept.values())


@pytest.mark.parametrize("settings", [(), ("variant=unet",), ("critic.kind=none",)])
def test_the_estimate_is_near_what_a_step_keeps(settings: tuple[str, ...]) -> None:
    experiment = experiment_of(*settings)
    state = new_state(experiment, CPU)
    networks = [each for each in (state.segmentor, state.critic) if each is not None]
    count = sum(weights.numel() for network in networks for weights in network.parameters())
    real = kept_bytes(experiment) + 16 * count
    assert training_bytes(experiment, CROP, torch.float32) == pytest.approx(real, rel=0.25)


def test_larger_settings_need_more_and_cut_batches_less() -> None:
    def needed(*settings: str, precision: torch.dtype = torch.float32) -> int:
        return training_bytes(experiment_of(*settings), CROP, precision)

    usual = needed()
    assert needed("training.batch_size=16") > 1.6 * usual
    assert needed("segmentor.base_width=32") > 1.2 * usual
    assert needed("training.accumulate=2") < 0.6 * usual
    assert needed("resources.workers=2") < 0.7 * usual
    assert needed(precision=torch.bfloat16) < 0.7 * usual
    # A crop that the depths do not divide is taken as the next that they do.
    assert training_bytes(experiment_of(), CROP - 1, torch.float32) == usual


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a …"),
            "out of memory: asked for 2.50 GiB more. Lower training.batch_size (8)",
        ),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:126] DefaultCPUAllocator: can't allocate memory: "
                "you tried to allocate 1073741824 bytes. Error code 12"
            ),
            "out of memory: asked for 1.00 GiB more. Lower",
        ),
        (MemoryError(), "out of memory. Lower"),
    ],
)
def test_too_little_memory_is_told_with_what_to_lower(error: Exception, words: str) -> None:
    assert ran_out(error)
    told = str(out_of_memory(error, Experiment(), CPU))
    assert told.startswith(words)
    assert told.endswith("or raise training.accumulate (1)")


def test_other_errors_are_not_taken_for_it() -> None:
    assert not ran_out(RuntimeError("CUDA error: device-side assert triggered"))
    assert not ran_out(ValueError("out of memory"))
