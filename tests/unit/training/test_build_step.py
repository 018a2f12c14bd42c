"""Which update settings select, and how the critic comes in."""

from __future__ import annotations

import pytest
import torch

from segan_ray.config import Experiment, load_experiment
from segan_ray.errors import ConfigError
from segan_ray.training.build_step import adversarial_weight, make_step
from segan_ray.training.state import TrainingState, new_state
from segan_ray.training.step import MicroBatch, StepLosses, keep

SMALL = ["segmentor.base_width=4", "critic.base_width=4", "segmentor.depth=2", "critic.depth=2"]

CPU = torch.device("cpu")


def batch() -> MicroBatch:
    torch.manual_seed(0)
    truth = (torch.rand(2, 3, 16, 16) > 0.7).float()
    return MicroBatch(torch.randn(2, 4, 16, 16), truth, None)


def update(*settings: str, epoch: int = 1) -> tuple[TrainingState, StepLosses]:
    """Return the state after one update in ``epoch``, and its losses."""
    experiment = load_experiment(None, [*SMALL, *settings])
    state = new_state(experiment, CPU)
    state.epoch = epoch - 1
    return state, make_step(experiment, CPU)(state, [batch()], keep)


def weights(state: TrainingState) -> list[torch.Tensor]:
    assert state.critic is not None
    return [parameter.detach().clone() for parameter in state.critic.parameters()]


@pytest.mark.parametrize("network", ["segan", "authors", "unet", "residual-unet", "segresnet"])
@pytest.mark.parametrize("kind", ["per-region", "joint", "none"])
@pytest.mark.parametrize("variant", ["s1-3c", "s3-3c"])
def test_any_segmentor_learns_with_any_critic(network: str, kind: str, variant: str) -> None:
    experiment = load_experiment(
        None,
        [
            "segmentor.base_width=2", "critic.base_width=2", "segmentor.depth=2", "critic.depth=2",
            f"segmentor.network={network}", f"critic.kind={kind}", f"variant={variant}",
            "segmentor.lr=0.003",
        ],
    )  # fmt: skip
    state = new_state(experiment, CPU)
    step = make_step(experiment, CPU)
    image = torch.randn(2, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    truth = torch.zeros(2, 3, 64, 64)
    truth[:, :, 16:48, 16:48] = 1
    part = MicroBatch(image + truth[:, :1], truth, None)
    losses = [step(state, [part], keep) for _ in range(8)]
    rest = [(each.segmentor - each.adversarial).item() for each in losses]
    assert rest[-1] < rest[0]
    assert all((each.adversarial > 0) == (kind != "none") for each in losses)


def test_the_critic_comes_in_late_and_step_by_step() -> None:
    loss = load_experiment(
        None,
        ["loss.adversarial_weight=2", "loss.adversarial_from=3", "loss.adversarial_ramp=3"],
    ).loss
    assert [adversarial_weight(loss, epoch) for epoch in range(1, 8)] == [
        0, 0, 0.5, 1.0, 1.5, 2.0, 2.0,
    ]  # fmt: skip
    assert adversarial_weight(Experiment().loss, 1) == 1


def test_before_it_comes_in_the_critic_stays_as_it_is() -> None:
    late = "loss.adversarial_from=3"
    before, losses = update(late, epoch=2)
    fresh = new_state(load_experiment(None, [*SMALL, late]), CPU)
    assert losses.adversarial == losses.critic == 0
    assert all(map(torch.equal, weights(before), weights(fresh)))
    after, losses = update(late, epoch=3)
    assert losses.adversarial > 0
    assert not all(map(torch.equal, weights(after), weights(fresh)))


def test_a_segmentor_without_any_other_loss_waits_for_the_critic() -> None:
    alone = ("loss.dice_weight=0", "loss.ce_weight=0", "loss.adversarial_from=2")
    _, losses = update(*alone, epoch=1)
    assert losses.segmentor == 0
    _, losses = update(*alone, epoch=2)
    assert losses.segmentor == losses.adversarial > 0


@pytest.mark.parametrize("last", ["critic.kind=none", "loss.adversarial_weight=0"])
def test_a_segmentor_without_any_loss_is_refused(last: str) -> None:
    with pytest.raises(ConfigError, match="the segmentor has no loss"):
        load_experiment(None, ["loss.dice_weight=0", "loss.ce_weight=0", last])


def test_one_critic_of_all_regions_cannot_train_each_by_itself() -> None:
    with pytest.raises(ConfigError, match=r"Set critic\.kind per-region"):
        load_experiment(None, ["variant=s1-1c", "critic.kind=joint"])
