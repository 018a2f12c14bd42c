"""The fair comparison: arms tuned under one budget, trained again with seeds, scored on patients.

Each arm is a sweep, whose best settings are trained again with fresh seeds. The trial that won the
search is not scored itself: it is the best of many partly by luck. What a seed's model is scored
with is what ``promote`` would package. After a kill a comparison goes on with what is not done.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import yaml

from segan_ray.data.store.cache import local_store
from segan_ray.data.store.opened_store import PreparedCase, open_test
from segan_ray.data.store.prepare import OnCase
from segan_ray.errors import SweepError, many
from segan_ray.evaluation.comparison_page import render_comparison
from segan_ray.evaluation.scoring.arms import INTERVAL, ScoredArm, ScoredSeed, differences
from segan_ray.evaluation.scoring.score_cases import model_predictor, score_cases
from segan_ray.home import Home
from segan_ray.models.build import fastest_device
from segan_ray.orchestration.cluster.session import ray_session
from segan_ray.orchestration.tune.one_trial import train_one
from segan_ray.orchestration.tune.sweep import run_sweep
from segan_ray.orchestration.tune.sweep_plan import Sweep
from segan_ray.search.results.ranking import SweepRecord, TrialRecord
from segan_ray.search.results.trial_state import OnState
from segan_ray.search.space.arms_file import Arms
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.sizes import MOST_EPOCHS, MOST_TRIALS
from segan_ray.tracking.description.card import StoreCard
from segan_ray.tracking.reading.sweeps import histories, name_is_taken, read_sweep
from segan_ray.tracking.recording.comparison_run import ComparisonRun, open_comparison
from segan_ray.workflows.candidate import candidate_model

Equal = Literal["epochs", "seconds"]
Watch = Callable[[str, SearchSpace, int], AbstractContextManager[OnState]]
"""Opens the view of a sweep, given its name, space and trials, and yields what takes its events."""
Scoring = Callable[[str], AbstractContextManager[OnCase]]
"""Opens the view of an arm's scoring, and yields what takes each case."""
Say = Callable[[str], object]
TIMED_EPOCHS: Final = 3
"""How long an arm is trained to time its epochs; the first, which also compiles, is left out."""


@dataclass(frozen=True)
class ComparisonPlan:
    """What to compare: arms on a store, each with ``seeds`` final models, under one budget.

    ``equal`` says what is the same for the trials of every arm. With ``seconds`` the first arm's
    trials run the epochs of the file, and those of the others as many as take the same time.
    """

    name: str
    arms: Arms
    store: str
    card: StoreCard
    home: Home
    equal: Equal
    seeds: int
    resume_with: str
    resume: bool = False


def compare_arms(plan: ComparisonPlan, watch: Watch, scoring: Scoring, say: Say) -> dict[str, Any]:
    """Tune, train and score every arm; return the ``compare`` document, recorded with a page.

    Raises:
        SweepError: if the name is taken, or an arm has no model to score.
        StoreError: if the store has no test patients.
        TrackingError, Interrupted, TakenOver: as ``search``.
    """
    test = open_test(local_store(plan.store))
    asked = {"equal": plan.equal, "seeds": plan.seeds}
    run = open_comparison(
        plan.home, plan.name, plan.card, plan.arms.text, asked, resume=plan.resume
    )
    scores = _ArmScoring(plan, run, test, scoring, say)
    with run.ended_with(), ExitStack() as until_the_end:
        training = _ArmTraining(plan, watch, say, until_the_end)
        arms = plan.arms if plan.equal == "epochs" else training.timed()
        scored = [
            scores.scored(arm, space.most_epochs(), training.tuned(arm, space))
            for arm, space in arms.spaces.items()
        ]
    document = {
        "comparison": plan.name,
        "store": plan.card.fingerprint,
        "patients": len({case.record.patient for case in test}),
        "equal": plan.equal,
        "budget": {
            "trials": {arm: space.budget.trials for arm, space in arms.spaces.items()},
            "epochs": plan.arms.epochs,
            "seeds": plan.seeds,
        },
        "interval": INTERVAL,
        "arms": [arm.document() for arm in scored],
        "differences": differences(scored),
    }
    run.finish(document, render_comparison(document))
    return document


@dataclass(frozen=True)
class _ArmTraining:
    """The sweeps of a comparison, all in one session of Ray, which ends with ``until_the_end``."""

    plan: ComparisonPlan
    watch: Watch
    say: Say
    until_the_end: ExitStack

    def timed(self) -> Arms:
        """Return the arms with as many epochs as the first arm's take, by a short run of each."""
        arms = self.plan.arms
        seconds = {arm: self._seconds(arm, space) for arm, space in arms.spaces.items()}
        first = next(iter(seconds.values()))
        epochs = {
            arm: min(MOST_EPOCHS, max(1, round(arms.epochs * first / each)))
            for arm, each in seconds.items()
        }
        said = ", ".join(f"{arm} {seconds[arm]:.1f} s ({epochs[arm]} epochs)" for arm in seconds)
        self.say(f"Seconds per epoch, and the epochs that take as long: {said}")
        return arms.lengthened(epochs)

    def tuned(self, arm: str, space: SearchSpace) -> SweepRecord:
        """Search one arm and train its best settings with fresh seeds, unless that is done."""
        plan, name = self.plan, f"{self.plan.name}-{arm}"
        record = self._finished(name)
        if record is not None:
            return record
        trials = space.budget.trials
        # Every model that is to be scored must be kept, whatever its validation score.
        kept = min(MOST_TRIALS, trials + plan.seeds)
        budget = space.budget.model_copy(update={"keep_checkpoints": kept})
        space = space.model_copy(update={"name": name, "budget": budget})
        text = yaml.safe_dump(space.model_dump(mode="json"), sort_keys=False)
        sweep = Sweep(
            name, space, text, plan.store, plan.card, plan.home, plan.resume_with,
            resume=plan.resume, repeat_top=1, seeds=plan.seeds,
        )  # fmt: skip
        self.until_the_end.enter_context(ray_session())
        with self.watch(name, space, trials + plan.seeds) as on_state:
            status = run_sweep(sweep, on_state, self.say)
        if status == "stopped":
            raise SweepError(
                f"'{name}' was stopped before its end, and the comparison with it. Go on with "
                f"it: {plan.resume_with}"
            )
        return read_sweep(plan.home, name)

    def _seconds(self, arm: str, space: SearchSpace) -> float:
        """Return how long an epoch of an arm takes, drawn parameters at the base's values."""
        plan, name = self.plan, f"{self.plan.name}-{arm}-timing"
        record = self._finished(name)
        if record is None:
            experiment = space.base_experiment()
            training = experiment.training.model_copy(update={"epochs": TIMED_EPOCHS})
            experiment = experiment.model_copy(update={"training": training})
            self.until_the_end.enter_context(ray_session())
            with self.watch(name, SearchSpace.of_experiment(name, experiment), 1) as on_state:
                train_one(
                    name, experiment, plan.store, plan.card, plan.home, on_state, self.say,
                    resume=plan.resume,
                )  # fmt: skip
            record = read_sweep(plan.home, name)
        ((_, times),) = histories(plan.home, record, "time/epoch_s").items()
        return statistics.median(seconds for epoch, seconds in times if epoch > 1)

    def _finished(self, name: str) -> SweepRecord | None:
        """Return the record of a sweep that an earlier process finished, or None."""
        if not self.plan.resume or not name_is_taken(self.plan.home, name):
            return None
        record = read_sweep(self.plan.home, name)
        return record if record.status == "finished" else None


@dataclass(frozen=True)
class _ArmScoring:
    """The scores of a comparison on its test patients."""

    plan: ComparisonPlan
    run: ComparisonRun
    test: tuple[PreparedCase, ...]
    scoring: Scoring
    say: Say

    def scored(self, arm: str, epochs: int, record: SweepRecord) -> ScoredArm:
        """Score the seeds of an arm on the test patients and record it, unless that is done."""
        if not record.repeats:
            raise SweepError(
                f"No seed of the arm '{arm}' trained a model: segan-ray trials {record.sweep}"
            )
        original = record.repeats[0].trial
        repeats = [trial for trial in record.trials if trial.repeat_of == original]
        ended = (trial for trial in repeats if trial.status in ("completed", "stopped"))
        usable = sorted(ended, key=lambda trial: trial.trial)
        failed = len(repeats) - len(usable)
        if failed:
            self.say(f"The arm '{arm}': {many(failed, 'seed')} failed, and without a score.")
        winner = next(trial for trial in record.trials if trial.trial == original)
        unscored = ScoredArm(
            arm=arm,
            sweep=record.sweep,
            settings={name: value for name, value in winner.params.items() if name != "seed"},
            params=round(self._values(record, usable, "model/parameters")[-1]),
            epochs=epochs,
            seconds_per_epoch=statistics.median(self._values(record, usable, "time/epoch_s")),
            seeds=(),
            failed=failed,
        )
        known = self.run.recorded(unscored)
        if known is not None:
            return known
        with self.scoring(arm) as on_case:
            scored = replace(unscored, seeds=tuple(self._seed(each, on_case) for each in usable))
        self.run.record_arm(scored)
        return scored

    def _seed(self, trial: TrialRecord, on_case: OnCase) -> ScoredSeed:
        store = local_store(self.plan.store)
        model = candidate_model(self.plan.home, trial, store, on_case=on_case)
        scores = score_cases(model_predictor(model, fastest_device()), self.test, on_case)
        return ScoredSeed(trial.trial, model.experiment.seed, float(trial.score or 0.0), scores)

    def _values(self, record: SweepRecord, trials: list[TrialRecord], metric: str) -> list[float]:
        found = histories(self.plan.home, record, metric)
        return [value for trial in trials for _, value in found[trial.trial]]
