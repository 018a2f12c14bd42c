from __future__ import annotations

from pathlib import Path

import pytest
import torch

from segan_ray.config import Experiment, load_experiment
from segan_ray.data.slices import fitting_crop, slice_source
from segan_ray.data.store import TuningCases
from segan_ray.errors import CheckpointError
from segan_ray.evaluation.validation import validate
from segan_ray.models.build import halvings
from segan_ray.training.checkpoint import load_segmentor, restore, save_checkpoint
from segan_ray.training.fit import EpochReport, Place, fit, steps_per_epoch
from segan_ray.training.state import TrainingState, new_state, rate_factor

CPU = torch.device("cpu")
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
    depth = halvings(experiment)

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
            place=Place(CPU),
            validate=lambda network: validate(
                network, cases.val, halvings=depth, brain_mask=True, device=CPU
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


@pytest.mark.parametrize("variant", ["s1-3c", "unet"])
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_a_resumed_run_continues_the_uninterrupted_one_exactly(
    tuning_cases: TuningCases, tmp_path: Path, variant: str, optimizer: str
) -> None:
    experiment = load_experiment(
        None, [*SMALL, f"variant={variant}", f"segmentor.optimizer={optimizer}"]
    )
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
    for one, two in zip(
        second.segmentor.state_dict().values(), whole.segmentor.state_dict().values(), strict=True
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
    from segan_ray.search.space import METRICS

    experiment = load_experiment(None, [*SMALL, "training.epochs=1"])
    (report,) = train(experiment, tuning_cases, new_state(experiment, CPU))
    assert set(report.metrics) == set(METRICS)
    assert report.improved


def test_it_learns(tuning_cases: TuningCases) -> None:
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
    assert report.diverged is not None
    assert report.metrics["val/dice_mean"] == 0.0
    assert all(value == value for value in report.metrics.values())


def test_rates_fall_to_a_tenth_and_less(tuning_cases: TuningCases) -> None:
    experiment = load_experiment(None, ["training.epochs=10", "training.schedule=poly"])
    factors = [rate_factor(experiment, epoch) for epoch in range(1, 11)]
    assert factors[0] == 1.0
    assert factors == sorted(factors, reverse=True)
    assert 0.1 < factors[-1] < 0.2
    constant = load_experiment(None, ["training.schedule=constant"])
    assert rate_factor(constant, 7) == 1.0


def test_an_epoch_shows_every_slice_once_on_average(tuning_cases: TuningCases) -> None:
    source = slice_source(tuning_cases.train)
    experiment = load_experiment(None, ["training.batch_size=8"])
    assert steps_per_epoch(experiment, source, 1) == -(-len(source) // 8)
    assert steps_per_epoch(experiment, source, 2) == -(-len(source) // 16)


def test_a_checkpoints_segmentor_predicts_the_same(tmp_path: Path) -> None:
    experiment = load_experiment(None, SMALL)
    state = new_state(experiment, CPU)
    save_checkpoint(tmp_path / "checkpoint", state, experiment)
    loaded, found = load_segmentor(tmp_path / "checkpoint")
    assert found == experiment
    image = torch.randn(1, 4, 16, 16)
    assert torch.equal(loaded(image), state.segmentor.eval()(image))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "state.json").unlink(), "no checkpoint here"),
        (lambda folder: (folder / "state.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "state.json").write_text('{"version": 9}'), "version 9"),
        (lambda folder: (folder / "segmentor.safetensors").write_bytes(b"x"), "cannot be read"),
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
