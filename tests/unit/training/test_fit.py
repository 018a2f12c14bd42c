from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from segan_ray.config import Experiment, load_experiment
from segan_ray.data.sampling.slices import fitting_crop, slice_source
from segan_ray.data.store.opened_store import TuningCases
from segan_ray.errors import CheckpointError, ConfigError
from segan_ray.evaluation.inference.validation import validate, validation_settings
from segan_ray.models.build import downsampling_levels
from segan_ray.training.checkpoints.checkpoint import load_segmentor, restore, save_checkpoint
from segan_ray.training.fit import DistributedContext, EpochReport, fit, steps_per_epoch
from segan_ray.training.state import TrainingState, learning_rate, new_state, rate_factor
from segan_ray.training.validation_scores import Validation

CPU = torch.device("cpu")
AUGMENTED = [
    "data.rotation_deg=20", "data.scaling=0.2", "data.intensity=0.2", "data.bias=0.3",
]  # fmt: skip
SMALL = [
    "segmentor.base_width=4",
    "segmentor.depth=2",
    "critic.base_width=4",
    "critic.depth=2",
    "training.batch_size=4",
    "training.steps_per_epoch=3",
    "training.epochs=4",
]


def train(
    experiment: Experiment, cases: TuningCases, state: TrainingState, stop_after: int = 99
) -> list[EpochReport]:
    reports: list[EpochReport] = []
    depth = downsampling_levels(experiment)

    def report(epoch: EpochReport) -> None:
        reports.append(epoch)
        if epoch.epoch == stop_after:
            raise KeyboardInterrupt

    try:
        fit(
            state,
            experiment,
            slice_source(cases.train),
            crop=fitting_crop(32, cases.train, depth),
            context=DistributedContext(CPU),
            validate=lambda network: validate(
                network, cases.val, validation_settings(experiment, CPU)
            ),
            report=report,
        )
    except KeyboardInterrupt:
        assert reports[-1].epoch == stop_after
    return reports


def comparable(reports: list[EpochReport]) -> list[dict[str, float]]:
    return [
        {name: value for name, value in report.metrics.items() if not name.startswith("time/")}
        for report in reports
    ]


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["variant=unet", "segmentor.optimizer=rmsprop"],
        ["variant=s1-1c", "segmentor.optimizer=adamw", "critic.optimizer=rmsprop"],
        ["variant=s3-3c", "training.schedule=cosine", "critic.steps=2"],
        ["critic.spectral_norm=true", "training.accumulate=2"],
        ["critic.scales=single-scale", "loss.reduction=concatenated", "critic.clamp=0.1"],
        ["training.precision=bfloat16", "training.schedule=halving", "training.halve_every=1"],
        [*AUGMENTED, "data.neighbours=1", "training.accumulate=2"],
        [*AUGMENTED, "data.neighbours=1", "variant=s1-1c"],
        [*AUGMENTED, "data.neighbours=2", "variant=s3-3c"],
        [*AUGMENTED, "data.neighbours=1", "variant=unet"],
        ["training.ema=0.9", "critic.kind=joint", "critic.input=concat", "critic.norm=instance"],
        ["segmentor.network=authors", "segmentor.base_width=2", "loss.adversarial_from=3"],
        ["segmentor.network=segresnet", "loss.adversarial_ramp=2", "data.flip_front_back=true"],
        ["segmentor.network=residual-unet", "loss.class_weights=[1, 2, 3]", "variant=s3-3c"],
    ],
    ids=lambda settings: " ".join(settings) or "defaults",
)
def test_a_resumed_run_continues_the_uninterrupted_one_exactly(
    tuning_cases: TuningCases, tmp_path: Path, settings: list[str]
) -> None:
    experiment = load_experiment(None, [*SMALL, *settings])
    whole = new_state(experiment, CPU)
    expected = train(experiment, tuning_cases, whole)
    first = new_state(experiment, CPU)
    before = train(experiment, tuning_cases, first, stop_after=2)
    save_checkpoint(tmp_path / "checkpoint", first, experiment)

    second = new_state(experiment, CPU)
    restore(tmp_path / "checkpoint", second)
    after = train(experiment, tuning_cases, second)
    assert comparable(before + after) == comparable(expected)
    assert second.best == whole.best
    restored = (second.segmentor, second.critic, second.mean)
    uninterrupted = (whole.segmentor, whole.critic, whole.mean)
    for network, reference in zip(restored, uninterrupted, strict=True):
        if network is not None and reference is not None:
            for one, two in zip(
                network.state_dict().values(), reference.state_dict().values(), strict=True
            ):
                assert torch.equal(one, two)


def test_the_seed_decides_everything(tuning_cases: TuningCases) -> None:
    runs = []
    for seed in (0, 0, 1):
        experiment = load_experiment(None, [*SMALL, "training.epochs=1", f"seed={seed}"])
        runs.append(comparable(train(experiment, tuning_cases, new_state(experiment, CPU))))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_a_report_holds_the_metrics_of_the_contract(tuning_cases: TuningCases) -> None:
    from segan_ray.orchestration.train.usage import PEAK
    from segan_ray.search.space.objectives import METRICS

    experiment = load_experiment(None, [*SMALL, "training.epochs=1"])
    (report,) = train(experiment, tuning_cases, new_state(experiment, CPU))
    # The caller adds what its process took of the machine.
    assert {*report.metrics, PEAK} == {*METRICS, "train/adversarial_share"}
    assert report.improved


@pytest.mark.slow
def test_training_raises_the_score(tuning_cases: TuningCases) -> None:
    experiment = load_experiment(
        None, [*SMALL, "training.epochs=6", "training.steps_per_epoch=25", "segmentor.lr=5e-3"]
    )
    reports = train(experiment, tuning_cases, new_state(experiment, CPU))
    scores = [report.metrics["val/dice_whole"] for report in reports]
    assert max(scores) > 0.4
    assert max(scores) > scores[0]


def test_a_loss_that_is_no_number_ends_training_with_the_worst_score(
    tuning_cases: TuningCases,
) -> None:
    experiment = load_experiment(None, SMALL)
    state = new_state(experiment, CPU)
    with torch.no_grad():
        next(state.segmentor.parameters()).fill_(torch.nan)
    (report,) = train(experiment, tuning_cases, state)
    assert report.failure is not None
    assert report.metrics["val/dice_mean"] == 0.0
    assert all(value == value for value in report.metrics.values())


def test_a_loss_that_becomes_no_number_ends_training_within_a_step(
    tuning_cases: TuningCases,
) -> None:
    """Training ends long before the epoch's steps are done."""
    experiment = load_experiment(None, [*SMALL, "training.steps_per_epoch=100000"])
    state = new_state(experiment, CPU)
    forwards: list[int] = []

    def poison(module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        forwards.append(1)
        if len(forwards) == 5:
            next(module.parameters()).data.fill_(torch.inf)

    state.segmentor.register_forward_pre_hook(poison)
    (report,) = train(experiment, tuning_cases, state)
    assert report.failure is not None
    assert "at step 5 of epoch 1" in report.failure
    assert len(forwards) == 6


class Constant(torch.nn.Module):
    """A segmentor that has stopped looking at its image."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value
        self.deaf = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image[:, :3] * 0 + self.value + 0 * self.deaf


def collapsed_state(experiment: Experiment, value: float) -> TrainingState:
    state = new_state(experiment, CPU)
    state.segmentor = Constant(value)
    state.segmentor_optimizer = torch.optim.Adam(state.segmentor.parameters())
    return state


@pytest.mark.parametrize(("value", "kind"), [(0.0, "empty"), (1.0, "full")])
@pytest.mark.parametrize("brain_mask", [True, False])
def test_a_collapsed_segmentor_ends_training_once_patience_is_out(
    tuning_cases: TuningCases, value: float, kind: str, brain_mask: bool
) -> None:
    experiment = load_experiment(
        None, [*SMALL, "training.epochs=9", f"training.brain_mask={brain_mask}"]
    )
    reports = train(experiment, tuning_cases, collapsed_state(experiment, value))
    assert [report.failure for report in reports[:-1]] == [None, None]
    assert reports[-1].failure == f"collapsed: every map is {kind}, 3 validations in a row"
    assert reports[-1].metrics["val/dice_mean"] == 0.0
    assert all(math.isfinite(score) for score in reports[-1].metrics.values())


def test_patience_survives_a_checkpoint_and_a_useful_map_resets_it(
    tuning_cases: TuningCases, tmp_path: Path
) -> None:
    experiment = load_experiment(None, [*SMALL, "training.epochs=9", "training.patience=2"])
    first = collapsed_state(experiment, 0.0)
    train(experiment, tuning_cases, first, stop_after=1)
    save_checkpoint(tmp_path / "checkpoint", first, experiment)
    second = collapsed_state(experiment, 0.0)
    restore(tmp_path / "checkpoint", second)
    reports = train(experiment, tuning_cases, second)
    assert len(reports) == 1
    assert reports[0].failure is not None

    # A useful map in between begins the count anew.
    third = collapsed_state(experiment, 0.0)
    restore(tmp_path / "checkpoint", third)
    third.segmentor = new_state(experiment, CPU).segmentor
    third.segmentor_optimizer = torch.optim.Adam(third.segmentor.parameters())
    train(experiment, tuning_cases, third, stop_after=2)
    assert third.collapsed == 0


def test_one_useful_map_is_no_collapse() -> None:
    def filled(whole: float, core: float, enhancing: float) -> Validation:
        return Validation({}, {"whole": whole, "core": core, "enhancing": enhancing})

    assert filled(0.1, 0.0, 0.0).collapse is None
    assert filled(0.0, 0.0, 0.0).collapse == "every map is empty"
    assert filled(1.0, 1.0, 0.0).collapse == "whole is full, core is full, enhancing is empty"


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1, 1, 1, 1]),
        ("poly", [1, 0.75**0.9, 0.5**0.9, 0.25**0.9]),
        ("cosine", [1, (1 + 2**-0.5) / 2, 0.5, (1 - 2**-0.5) / 2]),
        ("halving", [1, 1, 0.5, 0.5]),
    ],
)
def test_rates_follow_their_schedule(schedule: str, expected: list[float]) -> None:
    experiment = load_experiment(
        None, [f"training.schedule={schedule}", "training.epochs=4", "training.halve_every=2"]
    )
    actual = [rate_factor(experiment, epoch) for epoch in range(1, 5)]
    assert actual == pytest.approx(expected)


def test_the_authors_rates_are_halved_after_the_1st_26th_and_51st_epoch() -> None:
    code = load_experiment(None, ["training.epochs=60"], "authors-skin")
    factors = {epoch: rate_factor(code, epoch) for epoch in range(1, 61)}
    assert {epoch for epoch in range(2, 61) if factors[epoch] < factors[epoch - 1]} == {2, 27, 52}
    assert factors[60] == 1 / 8


def test_a_rate_falls_to_its_floor_and_is_never_raised_to_it() -> None:
    experiment = load_experiment(
        None, ["training.schedule=halving", "training.halve_every=1", "training.min_lr=1e-3"]
    )
    assert learning_rate(experiment, 4e-3, 2) == 2e-3
    assert learning_rate(experiment, 4e-3, 9) == 1e-3
    assert learning_rate(experiment, 1e-4, 1) == 1e-4


def test_a_new_rate_keeps_the_optimizers_state(tuning_cases: TuningCases) -> None:
    experiment = load_experiment(
        None, [*SMALL, "training.schedule=halving", "training.halve_every=1"]
    )
    state = new_state(experiment, CPU)
    train(experiment, tuning_cases, state)
    for optimizer in (state.segmentor_optimizer, state.critic_optimizer):
        assert optimizer is not None
        steps = {int(entries["step"]) for entries in optimizer.state.values()}
        assert steps == {4 * 3}


def test_a_restored_optimizer_keeps_its_tensors_as_its_parameters_are(tmp_path: Path) -> None:
    experiment = load_experiment(None, SMALL)
    state = new_state(experiment, CPU)
    for parameter in state.segmentor.parameters():
        parameter.grad = torch.randn_like(parameter)
    state.segmentor_optimizer.step()
    save_checkpoint(tmp_path, state, experiment)
    second = new_state(experiment, CPU)
    restore(tmp_path, second)
    for parameter, entries in second.segmentor_optimizer.state.items():
        assert entries["exp_avg"].stride() == parameter.stride()


def test_batches_too_small_to_normalise_are_refused(tuning_cases: TuningCases) -> None:
    experiment = load_experiment(None, [*SMALL, "segmentor.depth=5", "training.batch_size=1"])
    with pytest.raises(ConfigError, match="batch norm needs two values"):
        train(experiment, tuning_cases, new_state(experiment, CPU))


def test_an_epoch_shows_every_slice_once_on_average(tuning_cases: TuningCases) -> None:
    source = slice_source(tuning_cases.train)
    experiment = load_experiment(None, ["training.batch_size=8"])
    assert steps_per_epoch(experiment, source) == -(-len(source) // 8)


def test_a_checkpoints_segmentor_predicts_the_same(tmp_path: Path) -> None:
    experiment = load_experiment(None, [*SMALL, "training.precision=float32"])
    state = new_state(experiment, CPU)
    save_checkpoint(tmp_path / "checkpoint", state, experiment)
    loaded, actual = load_segmentor(tmp_path / "checkpoint")
    assert actual == experiment
    image = torch.randn(1, 4, 16, 16)
    assert torch.equal(loaded(image), state.segmentor.eval()(image))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "state.json").unlink(), "no checkpoint here"),
        (lambda folder: (folder / "state.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "state.json").write_text('{"version": 9}'), "version 9"),
        (lambda folder: (folder / "segmentor.safetensors").write_bytes(b"x"), "was changed after"),
        (lambda folder: (folder / "segmentor.safetensors").unlink(), "cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, damage, words: str) -> None:
    experiment = load_experiment(None, SMALL)
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, new_state(experiment, CPU), experiment)
    damage(folder)
    with pytest.raises(CheckpointError, match=words):
        load_segmentor(folder)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    experiment = load_experiment(None, SMALL)
    save_checkpoint(tmp_path, new_state(experiment, CPU), experiment)
    other = load_experiment(None, [*SMALL, "segmentor.depth=3"])
    with pytest.raises(CheckpointError, match="other networks"):
        restore(tmp_path, new_state(other, CPU))


def test_a_checkpoint_holds_no_pickle(tmp_path: Path) -> None:
    experiment = load_experiment(None, SMALL)
    save_checkpoint(tmp_path, new_state(experiment, CPU), experiment)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}
