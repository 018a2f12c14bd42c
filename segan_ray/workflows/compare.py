"""The fair comparison: arms tuned under one budget, trained again with seeds, scored on patients.

Each arm is a sweep, whose best settings are trained again with fresh seeds. The trial that won the
search is not scored itself: it is the best of many partly by luck. What a seed's model is scored
with is what ``promote`` would package. After a kill a comparison goes on with what is not done.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import yaml

from segan_ray.config import Experiment
from segan_ray.data.store.cache import local_store
from segan_ray.data.store.opened_store import PreparedCase, open_test
from segan_ray.data.store.prepare import OnCase
from segan_ray.errors import SweepError, many
from segan_ray.evaluation.comparison_page import render_comparison
from segan_ray.evaluation.scoring.arms import INTERVAL, ScoredArm, ScoredSeed, differences
from segan_ray.evaluation.scoring.score_cases import model_predictor, score_cases
from segan_ray.home import Home
from segan_ray.models.numerics import fastest_device
from segan_ray.orchestration.cluster.session import ray_session
from segan_ray.orchestration.tune.one_trial import train_one
from segan_ray.orchestration.tune.sweep import run_sweep
from segan_ray.orchestration.tune.sweep_plan import Sweep
from segan_ray.orchestration.tune.trial_lifecycle import STOPPED
from segan_ray.search.results.ranking import SweepRecord, TrialRecord
from segan_ray.search.results.trial_state import OnState
from segan_ray.search.space.arms_file import TIMING, Arms
from segan_ray.search.space.parameters import FixedParameter
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

    def sweep_of(self, arm: str) -> str:
        """Return the name of an arm's sweep."""
        return f"{self.name}-{arm}"

    def timing_of(self, arm: str) -> str:
        """Return the name of the run that times an arm."""
        return f"{self.name}-{arm}{TIMING}"


def compare_arms(plan: ComparisonPlan, watch: Watch, scoring: Scoring, say: Say) -> dict[str, Any]:
    """Tune, train and score every arm; return the ``compare`` document, recorded with a page.

    Raises:
        SweepError: if the name is taken, or an arm has no model to score.
        StoreError: if the store has no test patients.
        TrackingError, Interrupted, TakenOver: as ``search``.
    """
    test = open_test(local_store(plan.store))
    run = open_comparison(
        plan.home, plan.name, plan.card, plan.arms.text, _asked(plan), resume=plan.resume
    )
    with run.ended_with():
        if run.is_new:
            _refuse_taken(plan)
        scores = _ArmScoring(plan, run, test, scoring, say)
        with ExitStack() as until_the_end:
            training = _ArmTraining(plan, watch, say, until_the_end)
            arms = plan.arms if plan.equal == "epochs" else training.timed()
            found = {
                arm: scores.scored(arm, space.most_epochs(), training.tuned(arm, space))
                for arm, space in arms.spaces.items()
            }
        document = _document(plan, arms, found, len({case.record.patient for case in test}))
        run.finish(document, render_comparison(document))
    return document


def _asked(plan: ComparisonPlan) -> dict[str, Any]:
    """Return what must be the same when the comparison goes on, spaces of other files included."""
    spaces = {arm: space.model_dump(mode="json") for arm, space in plan.arms.spaces.items()}
    text = json.dumps(spaces, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {"equal": plan.equal, "seeds": plan.seeds, "arms' digest": digest}


def _refuse_taken(plan: ComparisonPlan) -> None:
    for arm in plan.arms.spaces:
        for name in (plan.sweep_of(arm), plan.timing_of(arm)):
            if name_is_taken(plan.home, name):
                raise SweepError(
                    f"A sweep or run named '{name}' exists already. Choose another --name."
                )


def _document(
    plan: ComparisonPlan, arms: Arms, found: Mapping[str, ScoredArm | None], patients: int
) -> dict[str, Any]:
    scored = [arm for arm in found.values() if arm is not None]
    unscored = [arm for arm, scores in found.items() if scores is None]
    if not scored:
        raise SweepError(f"No arm of '{plan.name}' has a model to score: {', '.join(unscored)}.")
    return {
        "comparison": plan.name,
        "store": plan.card.fingerprint,
        "patients": patients,
        "equal": plan.equal,
        "budget": {
            "trials": {arm: space.budget.trials for arm, space in arms.spaces.items()},
            "epochs": plan.arms.epochs,
            "seeds": plan.seeds,
        },
        "interval": INTERVAL,
        "arms": [arm.document() for arm in scored],
        "unscored": unscored,
        "differences": differences(scored),
    }


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
        plan, name = self.plan, self.plan.sweep_of(arm)
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
            run_sweep(sweep, on_state, self.say)
        record = self._finished(name)
        if record is None:
            raise SweepError(
                f"Not all of '{name}' has been recorded, and the comparison waits for it. Go on: "
                f"{plan.resume_with}"
            )
        return record

    def _seconds(self, arm: str, space: SearchSpace) -> float:
        """Return how long an epoch of an arm takes, drawn parameters at the base's values."""
        plan, name = self.plan, self.plan.timing_of(arm)
        record = self._finished(name)
        if record is None:
            experiment = _timed_experiment(space)
            self.until_the_end.enter_context(ray_session())
            with self.watch(name, SearchSpace.of_experiment(name, experiment), 1) as on_state:
                train_one(
                    name, experiment, plan.store, plan.card, plan.home, on_state, self.say,
                    resume=plan.resume, resume_with=plan.resume_with,
                )  # fmt: skip
            record = read_sweep(plan.home, name)
        ((_, times),) = histories(plan.home, record, "time/epoch_s").items()
        return statistics.median(seconds for epoch, seconds in times if epoch > 1)

    def _finished(self, name: str) -> SweepRecord | None:
        """Return the record of a sweep that has been finished, or None.

        Raises:
            SweepError: if it was cut short, so that it says nothing of its arm.
        """
        if not name_is_taken(self.plan.home, name):
            return None
        record = read_sweep(self.plan.home, name)
        if any(trial.reason == STOPPED for trial in record.trials):
            raise SweepError(
                f"'{name}' was stopped, and its trials are shorter than those of other arms. "
                f"Delete it, then go on: segan-ray delete {name}; {self.plan.resume_with}"
            )
        return record if record.status == "finished" else None


def _timed_experiment(space: SearchSpace) -> Experiment:
    """Return what times an arm: its fixed settings, and its critic from the first epoch on."""
    fixed = {
        path: parameter.value
        for path, parameter in space.parameters.items()
        if isinstance(parameter, FixedParameter) and not parameter.when
    }
    always = {"training.epochs": TIMED_EPOCHS, "loss.adversarial_from": 1}
    return space.experiment({**fixed, **always})


@dataclass(frozen=True)
class _ArmScoring:
    """The scores of a comparison on its test patients."""

    plan: ComparisonPlan
    run: ComparisonRun
    test: tuple[PreparedCase, ...]
    scoring: Scoring
    say: Say

    def scored(self, arm: str, epochs: int, record: SweepRecord) -> ScoredArm | None:
        """Score the seeds of an arm on the test patients and record it, unless that is done.

        Return None if no seed trained a model.
        """
        originals = {trial.repeat_of for trial in record.trials} - {None}
        repeats = [trial for trial in record.trials if trial.repeat_of is not None]
        ended = (trial for trial in repeats if trial.status == "completed")
        usable = sorted(ended, key=lambda trial: trial.trial)
        failed = len(repeats) - len(usable)
        if failed:
            self.say(f"{many(failed, 'seed')} of the arm '{arm}' failed, and without a score.")
        if not usable:
            return None
        (winner,) = (trial for trial in record.trials if trial.trial in originals)
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
        known = self.run.recorded(unscored, [trial.trial for trial in usable])
        if known is not None:
            return known
        with self.scoring(arm) as on_case:
            scored = replace(unscored, seeds=tuple(self._seed(each, on_case) for each in usable))
        self.run.record_arm(scored)
        return scored

    def _seed(self, trial: TrialRecord, on_case: OnCase) -> ScoredSeed:
        store = local_store(self.plan.store)
        model = candidate_model(self.plan.home, [trial], store, on_case=on_case)
        scores = score_cases(model_predictor(model, fastest_device()), self.test, on_case)
        return ScoredSeed(trial.trial, model.experiments[0].seed, float(trial.score or 0.0), scores)

    def _values(self, record: SweepRecord, trials: list[TrialRecord], metric: str) -> list[float]:
        found = histories(self.plan.home, record, metric)
        return [value for trial in trials for _, value in found[trial.trial]]
