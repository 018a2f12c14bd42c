"""What a sweep is said to take, against what it takes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import fmean

import optuna
import pytest
import torch
from optuna.trial import TrialState

from segan_ray.config import load_experiment
from segan_ray.search.optuna_adapters import make_pruner
from segan_ray.search.space.estimate import (
    LARGEST,
    Estimate,
    checkpoint_bytes,
    estimate,
    expected_epochs,
    experiment_bytes,
    sentence,
)
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.search.space.space_file import load_space
from segan_ray.search.study.sweep_study import SweepStudy
from segan_ray.training.checkpoints.checkpoint import save_checkpoint
from segan_ray.training.state import new_state
from tests.unit.shipped import SPACES

GB = 10**9


def space(**changes: object) -> SearchSpace:
    tree = {
        "name": "test",
        "parameters": {"segmentor.lr": {"type": "float", "low": 1e-5, "high": 1e-2}},
        **changes,
    }
    return SearchSpace.model_validate(tree)


@pytest.mark.parametrize(
    "settings",
    [
        ["segmentor.base_width=4", "critic.base_width=4", "segmentor.depth=2", "critic.depth=1"],
        ["variant=s3-3c", "segmentor.base_width=8", "data.neighbours=1"],
        ["training.ema=0.99", "segmentor.base_width=8"],
        ["segmentor.network=authors", "segmentor.base_width=2", "critic.kind=joint"],
        ["critic.spectral_norm=true", "segmentor.skip=add", "critic.optimizer=adamw"],
        ["variant=unet", "segmentor.base_width=8", "segmentor.optimizer=rmsprop"],
    ],
    ids=lambda settings: settings[0],
)
def test_a_checkpoint_is_as_large_as_it_was_said_to_be(tmp_path: Path, settings: list[str]) -> None:
    experiment = load_experiment(None, settings)
    state = new_state(experiment, torch.device("cpu"))
    for network, optimizer in (
        (state.segmentor, state.segmentor_optimizer),
        (state.critic, state.critic_optimizer),
    ):
        if network is not None and optimizer is not None:
            for parameter in network.parameters():
                parameter.grad = torch.ones_like(parameter)
            optimizer.step()
    save_checkpoint(tmp_path / "checkpoint", state, experiment)
    real = sum(path.stat().st_size for path in (tmp_path / "checkpoint").iterdir())
    assert experiment_bytes(experiment) == pytest.approx(real, rel=0.1)


@pytest.mark.slow
def test_the_largest_networks_of_a_space_count() -> None:
    drawn = space(
        parameters={
            "segmentor.base_width": {"type": "choice", "values": [32, 16]},
            "segmentor.depth": {"type": "int", "low": 3, "high": 4},
            "critic.depth": {"type": "int", "low": 1, "high": 6},
            "variant": {"type": "choice", "values": ["s1-3c", "s3-3c"]},
            "critic.spectral_norm": {"type": "choice", "values": [True, False]},
        },
        # As many weights as the base's depth has scales: no trial, but no matter here either.
        base={"loss": {"scale_weights": [1, 1, 1, 1]}},
    )
    largest = load_experiment(
        None,
        [
            "variant=s3-3c", "segmentor.base_width=32", "segmentor.depth=4", "critic.depth=6",
            "critic.spectral_norm=true",
        ],
    )  # fmt: skip
    assert checkpoint_bytes(drawn) == experiment_bytes(largest)


@pytest.mark.parametrize("variant", ["s1-3c", "unet"])
@pytest.mark.parametrize("path", ["segmentor.skip", "segmentor.optimizer", "critic.optimizer"])
def test_choices_are_ranked_by_what_they_take(path: str, variant: str) -> None:
    small = ["segmentor.base_width=8", "critic.base_width=8", f"variant={variant}"]
    sizes = [
        experiment_bytes(load_experiment(None, [*small, f"{path}={value}"]))
        for value in LARGEST[path.rpartition(".")[2]]
    ]
    assert sizes == sorted(sizes, reverse=True)


def test_networks_are_measured_without_being_made() -> None:
    # Ten gigabytes with their optimizer.
    huge = load_experiment(None, ["segmentor.base_width=300", "segmentor.depth=5"])
    assert experiment_bytes(huge) > 8 * GB


@pytest.mark.parametrize("file", SPACES, ids=lambda path: path.stem)
def test_every_shipped_space_can_be_estimated(file: Path) -> None:
    shipped = load_space(file)
    trials = shipped.budget.trials
    told = estimate(shipped, trials, concurrent=2, keep_checkpoints=10)
    assert told.epochs_at_most == trials * shipped.most_epochs()
    assert told.epochs_expected is None or 0 < told.epochs_expected <= told.epochs_at_most
    assert told.disk_bytes == told.checkpoint_bytes * (min(2, trials) * 3 + min(10, trials) * 3)


def played(tree: dict[str, object], trials: int, most: int, rounds: int) -> float:
    """Run trials of random worth through the pruner that a sweep has, one after the other."""
    searched = space(scheduler=tree, base={"training": {"epochs": most}})
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    random = Random(0)
    total = 0
    for each in range(rounds):
        # Hyperband puts a trial into a bracket by the study's name.
        study = optuna.create_study(
            study_name=f"round {each}", direction="maximize", pruner=make_pruner(searched)
        )
        for _ in range(trials):
            trial, worth = study.ask(), random.random()
            for epoch in range(1, most + 1):
                trial.report(worth, epoch)
                if epoch < most and trial.should_prune():
                    break
            study.tell(trial, state=TrialState.PRUNED)
            total += epoch
    return total / rounds


@pytest.mark.parametrize(
    ("trials", "grace", "factor", "most"), [(50, 3, 3, 20), (6, 2, 2, 8), (4, 1, 4, 16)]
)
def test_epochs_are_those_of_trials_that_wait(trials, grace, factor, most) -> None:
    scheduler = {
        "type": "asha", "grace_period": grace, "reduction_factor": factor, "promote": True,
    }  # fmt: skip
    base = {"training": {"epochs": most}}
    searched = space(scheduler=scheduler, base=base, budget={"trials": trials})
    random, counted = Random(0), []
    for each in range(6):
        study = SweepStudy.create(f"wait {each}", searched, None)
        worth = [random.random() for _ in range(trials)]
        done = [0] * trials
        while point := study.promote() or (study.ask() if study.asked < trials else None):
            number, verdict = point.number, "continue"
            while done[number] < most and verdict == "continue":
                done[number] += 1
                verdict = study.report(number, done[number], worth[number])
            if verdict == "continue":
                study.tell(number, "completed")
        assert max(done) == most
        counted.append(sum(done))
    expected = expected_epochs(searched.scheduler, trials, most)
    assert expected == pytest.approx(fmean(counted), rel=0.25)


@pytest.mark.parametrize(
    ("kind", "trials", "grace", "factor", "most"),
    [
        ("asha", 50, 3, 3, 20),
        ("asha", 6, 2, 2, 8),
        ("asha", 30, 1, 4, 16),
        ("hyperband", 40, 3, 3, 20),
        ("hyperband", 30, 1, 3, 9),
        ("hyperband", 20, 2, 2, 15),
        ("hyperband", 20, 3, 3, 10),
    ],
)
def test_epochs_are_those_that_the_pruner_leaves(
    kind: str, trials: int, grace: int, factor: int, most: int
) -> None:
    tree = {"type": kind, "grace_period": grace, "reduction_factor": factor}
    expected = expected_epochs(space(scheduler=tree).scheduler, trials, most)
    assert expected == pytest.approx(played(tree, trials, most, rounds=300 // trials + 5), rel=0.1)


def test_schedulers_whose_savings_are_known_and_not() -> None:
    def asked(kind: str, trials: int = 50, most: int = 20, **settings: object) -> int | None:
        scheduler = space(scheduler={"type": kind, **settings}).scheduler
        return expected_epochs(scheduler, trials, most)

    assert asked("none") == 1000
    assert asked("median", grace_period=3) is None
    assert asked("pbt") is None
    # The first trial runs to its end; the second does too, or stops at the first rung.
    assert asked("asha", trials=2, most=10, grace_period=2, reduction_factor=2) == 16
    assert asked("asha", grace_period=20, reduction_factor=3) == 1000
    asha = asked("asha", grace_period=3, reduction_factor=3)
    brackets = asked("hyperband", grace_period=3, reduction_factor=3)
    assert asha is not None
    assert brackets is not None
    assert asha < brackets < 1000


def test_sentences() -> None:
    told = Estimate(50, 4, 20, 1000, 367, 40 * 10**6, 1_200_000_000)
    assert sentence(told, 40 * GB) == (
        "50 trials of up to 20 epochs, 4 at once: about 370 epochs with early stopping (at most "
        "1000). Checkpoints take up to 1.2 GB; the disk has 40 GB free."
    )
    assert "4 at once: at most 1000 epochs." in sentence(replace(told, epochs_expected=None), GB)
    first, second = sentence(told, 0.9 * GB).splitlines()
    assert first.endswith("Checkpoints take up to 1.2 GB; the disk has 900 MB free.")
    assert second == (
        "That may not be enough: free some space, choose another --home, or lower "
        "budget.keep_checkpoints or budget.max_concurrent."
    )
    single = Estimate(1, 1, 1, 1, 1, 10_000, 60_000)
    assert sentence(single, 2_000 * GB) == (
        "1 trial of up to 1 epoch: at most 1 epoch. Checkpoints take up to 60 kB; the disk has "
        "2.0 TB free."
    )


def test_importing_it_makes_no_networks() -> None:
    code = (
        "import sys, segan_ray.search.space.estimate; "
        "print([m for m in ('torch', 'monai', 'ray') if m in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"
