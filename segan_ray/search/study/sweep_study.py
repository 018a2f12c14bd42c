"""A sweep's Optuna study: asks for points and tells their results.

One study per sweep, named after it, in a real storage; only the process that runs the sweep
writes to it, and others leave requests (``requests.py``). The study is the truth about a sweep: the
points that were drawn, the scores of every epoch, the end of each trial. Samplers and pruners keep
nothing in memory that the study does not hold, so a sweep whose process was killed goes on from its
study as if nothing had happened.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from random import Random
from types import MappingProxyType
from typing import Any, Final

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from segan_ray.search.optuna_adapters import make_sampler
from segan_ray.search.points.first_points import first_points
from segan_ray.search.points.points import (
    DRAWN,
    ENDED,
    REPEAT_OF,
    REQUESTED,
    SEED,
    TAKEN_OVER,
    TOP,
    Ended,
    Exploit,
    Outcome,
    Point,
    Verdict,
    numbers,
    settings_now,
)
from segan_ray.search.points.priors import believed_point
from segan_ray.search.points.repeats import Repeat, best_trials, plan_repeats
from segan_ray.search.points.same_points import have_tried_all, tell_again, twin_of
from segan_ray.search.results.needs import Needs
from segan_ray.search.results.ranking import EndedBy
from segan_ray.search.space.grid import grid_size
from segan_ray.search.space.scheduler_settings import PbtScheduler
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.search.storage.study_record import (
    BY_RANK,
    WARM,
    delete_study,
    fill_study,
    load_study,
    recorded,
    reserve_study,
    study_exists,
)
from segan_ray.search.study.early_stopping import EarlyStopping
from segan_ray.search.study.gains import Gains
from segan_ray.search.study.measured import MEMORY, Metrics
from segan_ray.search.study.population import perturb, scores_by, source_trial
from segan_ray.search.study.requests import Requests
from segan_ray.search.study.sampler_view import sampler_view
from segan_ray.search.study.scores import Scores
from segan_ray.search.study.study_budget import Limits, StudyBudget
from segan_ray.search.study.study_trials import StudyTrials

__all__ = [
    "Ended",
    "Exploit",
    "Outcome",
    "Point",
    "SweepStudy",
    "delete_study",
    "study_exists",
]

NO_METRICS: Final[Metrics] = MappingProxyType({})
DRAWS: Final = 10
"""A draw of a point that was tried before is repeated this often, then the point is trained."""


@dataclass
class _Open:
    trial: optuna.Trial
    last_epoch: int
    repeated: bool


@dataclass
class SweepStudy:
    """Ask and tell for one sweep. A trial's score is that of its best epoch.

    Trials are numbered from 0 in the order in which they were asked for.
    """

    space: SearchSpace
    trials: StudyTrials
    first: tuple[dict[str, Any], ...] = ()
    skipped: tuple[str, ...] = ()
    _asked: int = 0
    _repeats: list[Repeat] = field(default_factory=list)
    _open: dict[int, _Open] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.budget = StudyBudget(self.study)
        self._scores = Scores.of(self.space, self.trials)
        self._stopping = EarlyStopping(self.space, self.trials, self._scores)
        self._gains = Gains.of(self.study, self.space.objective.mode, self._scores.that_count())
        self._requests = Requests()

    @classmethod
    def create(
        cls,
        sweep: str,
        space: SearchSpace,
        storage: BaseStorage | None,
        *,
        store: str = "",
        earlier: Sequence[FrozenTrial] = (),
        by_rank: bool = False,
    ) -> SweepStudy:
        """Start the study of a new sweep over the store of that fingerprint.

        ``earlier`` are ended trials of another study that its sampler learns from first,
        ``by_rank`` if they are of another store.

        Raises:
            SweepError: if ``storage`` holds a study of that name already.
        """
        study = reserve_study(sweep, space, storage)
        return cls.begin(study, space, store=store, earlier=earlier, by_rank=by_rank)

    @classmethod
    def begin(
        cls,
        study: optuna.Study,
        space: SearchSpace,
        *,
        store: str,
        earlier: Sequence[FrozenTrial],
        by_rank: bool = False,
    ) -> SweepStudy:
        """Start in a study that is there and still empty; see ``create``."""
        fill_study(study, space, store, earlier, by_rank=by_rank)
        first = first_points(space)
        return cls(space, StudyTrials(study, len(earlier)), first.points, first.skipped)

    @classmethod
    def open(
        cls, sweep: str, space: SearchSpace, storage: BaseStorage, *, store: str = ""
    ) -> SweepStudy:
        """Go on with the study of an earlier process.

        Raises:
            SweepError: if there is none, or it searched something else, or another store.
        """
        study, before = load_study(sweep, space, storage, store)
        # The order of parameters in a file changes what is drawn, so it stays as it was.
        unchanged = before.model_copy(update={"budget": space.budget})
        points = first_points(unchanged).points
        trials = StudyTrials(study, study.user_attrs[WARM])
        return cls(unchanged, trials, points, _asked=len(trials.all()))

    @classmethod
    def reopened(cls, sweep: str, storage: BaseStorage) -> SweepStudy:
        """Open the study of an earlier process as it was, without its space file.

        Raises:
            SweepError: if there is none of that name.
        """
        space, store = recorded(sweep, storage)
        return cls.open(sweep, space, storage, store=store)

    @property
    def study(self) -> optuna.Study:
        """The study in Optuna."""
        return self.trials.study

    @property
    def asked(self) -> int:
        """How many trials have been asked for, repeats included."""
        return self._asked

    def take_budget(self, given: Limits) -> None:
        """Let the sweep have what is ``given``, the rest as its space file says or as before.

        Raises:
            SweepError: if it has more trials already.
        """
        self.budget.take(Limits.of(self.space.budget), given, self.trials.searched)

    def take_requests(self) -> None:
        """Read what was asked of the sweep, and set the limits that were."""
        self._requests = Requests.of(self.study.user_attrs)
        self.budget.fulfil(self._requests)

    def is_to_stop(self, number: int) -> bool:
        """Tell whether a trial was asked to end."""
        return number in self._requests.trials_to_stop

    @property
    def waiting(self) -> list[int]:
        """The trials that have not ended and are not under way: paused, cut off, without room."""
        return [number for number in self.unfinished if number not in self._open]

    @property
    def unfinished(self) -> list[int]:
        """The trials that have not ended."""
        every = enumerate(self.trials.all())
        return [number for number, frozen in every if not frozen.state.is_finished()]

    @property
    def most_trials(self) -> int:
        """How many trials there can be: a grid has only so many points."""
        return grid_size(self.space) if self.space.sampler.type == "grid" else sys.maxsize

    def left(self, repeats: int = 0) -> int:
        """Return how many trials are left to train, with that many ``repeats`` in all."""
        return max(0, self._most + repeats - len(self.trials.ended()))

    def needs(self, trials: int, price: float | None) -> Needs | None:
        """Return what so many more trials take if they are as those so far; None if none ended.

        ``price`` is that of a GPU hour.
        """
        epochs = {number: len(values) for number, values in self._scores.values.items()}
        ended, spent = self.trials.ended(), self.budget.spent
        if not ended or not any(epochs.values()):
            return None
        usual = sum(epochs.get(number, 0) for number in ended) / len(ended)
        share = trials * usual / sum(epochs.values())
        return Needs(share * spent.hours * 3600, share * spent.gpu_hours * 3600, price)

    @property
    def ended_by(self) -> EndedBy | None:
        """What has ended the sweep, or the drawing of new trials; None while more are to be drawn.

        A running trial may still bring a gain, and then more are drawn.
        """
        if self.is_cut_short:
            return self.budget.used_up
        if self.trials.searched >= self._most:
            return "trials"
        patience = self.space.budget.no_gain_for
        missing = self._gains.missing_for(self.trials.searched)
        return "no_gain_for" if patience is not None and missing >= patience.trials else None

    @property
    def is_cut_short(self) -> bool:
        """Whether the hours are used up, with trials or repeats left that wait for more of them."""
        if self.budget.used_up is None:
            return False
        return self.left(self.trials.repeats + len(self._repeats)) > 0

    @property
    def more(self) -> int:
        """How many trials may yet be asked for: repeats that were planned, else new points."""
        if self._repeats:
            return len(self._repeats)
        return max(0, self._most - self.trials.searched) if self.ended_by is None else 0

    @property
    def _most(self) -> int:
        return min(self.budget.trials, self.most_trials)

    def ask(self) -> Point:
        """Draw the next point: a planned repeat, one that is to be tried first, or a new one.

        With the same seed a point that was tried before would come to the same scores, so its
        result is told to the sampler again, and another is drawn. Where all have been tried, or
        the sampler insists, it is trained with a fresh seed.
        """
        for _ in range(DRAWS):
            point = self._ask()
            twin = self._twin(point)
            if twin is None:
                return point
            if have_tried_all(self.space, self.trials.all()):
                break
            trial = self._open.pop(point.number).trial
            tell_again(self.study, trial, twin, twin.number - self.trials.warm)
        else:
            point = self._ask()
        return self._with_fresh_seed(point)

    def _ask(self) -> Point:
        searched = self._asked - self.trials.repeats
        # Each point is enqueued right before it is asked for. So every trial in the study was
        # asked for, and a trial's number is its place in that order.
        if self._repeats:
            repeat = self._repeats.pop(0)
            drawn = self.trials.all()[repeat.of].params
            self.study.enqueue_trial(drawn, user_attrs={REPEAT_OF: repeat.of, SEED: repeat.seed})
        elif searched < len(self.first):
            self.study.enqueue_trial(self.first[searched])
        elif (asked_for := self._point_asked_for()) is not None:
            name, drawn = asked_for
            self.study.enqueue_trial(drawn, user_attrs={REQUESTED: name})
        elif (believed := self._believed(searched)) is not None:
            self.study.enqueue_trial(believed)
        # Each trial has a sampler of its own, seeded by the trial's number: the draw depends on
        # the study alone, not on how often the sweep's process was started anew.
        self.study.sampler = make_sampler(self.space, self._asked)
        with _without_warnings():
            point = self._draw(self._as_sampled().ask())
        self._asked += 1
        return point

    def _believed(self, searched: int) -> dict[str, Any] | None:
        random = Random(f"{self.study.study_name}/{self.space.sampler.seed}/{searched}")
        return believed_point(self.space, searched - len(self.first), random)

    def _point_asked_for(self) -> tuple[str, dict[str, Any]] | None:
        """Return the first point that was asked for and has not been tried, with its request."""
        tried = {frozen.user_attrs.get(REQUESTED) for frozen in self.trials.all()}
        waiting = (each for each in self._requests.points.items() if each[0] not in tried)
        return next(waiting, None)

    def _twin(self, point: Point) -> FrozenTrial | None:
        """Return the trial that was at the same point with the same seed before, if one was."""
        if point.seed is not None or isinstance(self.space.scheduler, PbtScheduler):
            return None
        return twin_of(point.params, self.trials.all()[: point.number])

    def _with_fresh_seed(self, point: Point) -> Point:
        if self._twin(point) is None:
            return point
        seed = self.space.base_experiment().seed + 1 + point.number
        self._open[point.number].trial.set_user_attr(SEED, seed)
        return replace(point, seed=seed)

    def reopen(self) -> list[Point]:
        """Return the points of all trials that were asked for and did not end, in order."""
        points, paused = [], self.trials.paused()
        for frozen in self.trials.all():
            number, attributes = frozen.number - self.trials.warm, frozen.user_attrs
            if frozen.state.is_finished() or number in self._open:
                continue
            trial = self._again(frozen, number)
            if ENDED in attributes:
                # The process was killed between the decision on its end and the telling.
                self._close(trial, number, Ended(**attributes[ENDED]))
            elif number not in paused:
                with _without_warnings():
                    points.append(self._draw(trial))
        return points

    def _again(self, frozen: FrozenTrial, number: int) -> optuna.Trial:
        """Return a trial that was asked for before and did not end, as running."""
        if frozen.state == TrialState.WAITING:
            self._set_state(frozen, TrialState.RUNNING)
        # A point that was drawn before is not drawn again, so there is nothing to sample.
        known = DRAWN in frozen.user_attrs
        self.study.sampler = (
            optuna.samplers.RandomSampler() if known else make_sampler(self.space, number)
        )
        with _without_warnings():
            # Optuna's own ask makes its Trial in this way.
            return optuna.Trial(self._as_sampled(), frozen._trial_id)  # noqa: SLF001

    def report(
        self, number: int, epoch: int, *values: float, metrics: Metrics = NO_METRICS
    ) -> Verdict:
        """Record the objectives after one epoch; return what the trial does next.

        ``metrics`` holds those that the space's constraints bound. An epoch that was reported
        before is not reported again. It gets the same answer, as long as no later epoch was
        reported.
        """
        trial, known = self._open[number], self._scores.values[number]
        if epoch not in known:
            counts = len(values) == 1 and not trial.repeated
            gain = counts and self._gains.is_one(values[0])
            if gain and self._scores.measured.are_kept_by(metrics):
                self._gains.note(values[0], self.trials.searched)
            self._scores.note(trial.trial, number, epoch, values, metrics)
        if epoch >= trial.last_epoch or epoch < max(known):
            return "continue"
        if self.is_to_stop(number) or self._scores.measured.breaks_for_good(number):
            return "stop"
        within_fold = self.space.folds is not None and epoch % (trial.last_epoch // self.space.runs)
        verdict: Verdict = "continue"
        if not trial.repeated and not within_fold:
            verdict = self._stopping.verdict(trial.trial, number, epoch)
        if verdict == "pause":
            self._open.pop(number)
        if verdict == "continue" and self.budget.used_up:
            self.hold(number)
            return "pause"
        return verdict

    def hold(self, number: int) -> None:
        """Let a trial wait at its last epoch; ``reopen`` returns it as one that was cut off."""
        self._open.pop(number)

    def promote(self) -> Point | None:
        """Return the paused trial that goes on now, or None; a later report may change that."""
        idle = not self._open and self.ended_by is not None
        number = self._stopping.next_to_go_on(last=idle)
        if number is None:
            return None
        trial = self._again(self.trials.all()[number], number)
        self._stopping.go_on(trial, number)
        return self._draw(trial)

    def out_of_reach(self) -> list[int]:
        """Return the paused trials that cannot go on, however the trials to come do."""
        return self._stopping.out_of_reach(self._most)

    def stop_waiting(self, number: int, reason: str | None = None) -> Ended:
        """End a trial that waits as stopped, and return how it ended."""
        self._draw(self._again(self.trials.all()[number], number))
        return self.tell(number, "stopped", reason)

    def _as_sampled(self) -> optuna.Study:
        ranked = self.trials.warm if self.study.user_attrs.get(BY_RANK) else 0
        if not self._stopping.pauses and not ranked:
            return self.study
        return sampler_view(self.study, ranked)

    def exploit(self, number: int, epoch: int) -> Exploit | None:
        """Return the trial to exploit after ``epoch`` and the new settings, or None.

        A decision stays as it was made (Jaderberg et al. 2017, exploit and explore).
        """
        scheduler, trial = self.space.scheduler, self._open[number]
        if not isinstance(scheduler, PbtScheduler) or trial.repeated or epoch % scheduler.interval:
            return None
        decided = dict(trial.trial.user_attrs.get(TAKEN_OVER, {}))
        if str(epoch) not in decided:
            decided[str(epoch)] = self._exploit(number, epoch, scheduler)
            trial.trial.set_user_attr(TAKEN_OVER, decided)
        taken = decided[str(epoch)]
        return None if taken is None else Exploit(**taken)

    def _exploit(self, number: int, epoch: int, scheduler: PbtScheduler) -> dict[str, Any] | None:
        """Return the source trial and the settings for a trial that is among the weak at ``epoch``.

        Other trials count with the last epoch that they reached by then. To wait for all of them,
        the whole population would have to run at once; so the first to arrive are judged leniently.
        """
        random = Random(f"{self.study.study_name}/{number}/{epoch}")
        scores = scores_by(self._scores.reached(), epoch)
        mode = self.space.objective.mode
        chosen = source_trial(scores, number, mode, scheduler.quantile, random)
        if chosen is None:
            return None
        settings = settings_now(self.trials.all()[chosen].user_attrs)
        params = perturb(self.space.parameters, settings, scheduler.resample, random)
        return {"source": chosen, "params": params}

    def changing(self, number: int) -> dict[str, float]:
        """Return the settings of a trial that change while it trains, where they are numbers."""
        if not isinstance(self.space.scheduler, PbtScheduler):
            return {}
        return numbers(settings_now(self.trials.all()[number].user_attrs))

    def tell(
        self,
        number: int,
        outcome: Outcome,
        reason: str | None = None,
        *,
        learn: bool = False,
        out_of_memory: bool = False,
    ) -> Ended:
        """Close a trial: COMPLETE with its best value, PRUNED if stopped early, or FAIL.

        A trial that failed because of its settings (``learn``) is PRUNED at its last, worst value,
        so that the sampler avoids them; a FAIL tells the sampler nothing. One that ran
        ``out_of_memory``, or breaks a constraint of the space, is infeasible: samplers that know
        constraints take it for worse than any that keeps them.
        """
        opened = self._open.pop(number, None)
        if opened is None:
            return Ended(outcome, reason)
        broken = self.broken(number)
        reason = "; ".join(filter(None, (reason, broken))) or None
        infeasible = out_of_memory or broken is not None
        ended = Ended(outcome, reason, learn or out_of_memory, infeasible)
        opened.trial.set_user_attr(ENDED, asdict(ended))
        self._close(opened.trial, number, ended)
        return ended

    def broken(self, number: int) -> str | None:
        """Return in words which constraints a trial breaks at its best epoch so far, if any."""
        return self._scores.broken(number)

    def _close(self, trial: optuna.Trial, number: int, ended: Ended) -> None:
        values, best = self._scores.values[number], self._scores.best_epoch(number)
        violations = self._scores.measured.violations(number, best)
        if ended.infeasible and not any(each > 0 for each in violations.values()):
            violations[MEMORY] = 1.0
        for name, violation in violations.items():
            # The process may have been killed between this and the telling.
            if name not in trial.constraints:
                trial.set_constraint(name, violation)
        # Of stopped trials with several objectives Optuna's samplers would learn nothing.
        learnt = ended.outcome == "completed" or len(self.space.objectives) > 1
        if learnt and ended.outcome != "failed" and best is not None:
            self.study.tell(trial, list(values[best]))
        elif values and (ended.outcome == "stopped" or ended.learn):
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, state=TrialState.FAIL)

    def enqueue_repeats(self, top: int, seeds: int) -> int:
        """Let ``ask`` try the ``top`` best settings with ``seeds`` fresh seeds each, next.

        Returns how many trials that adds to those asked for already.
        """
        decided = self.study.user_attrs.get(TOP, [])
        scores = self.trials.scores(self._scores.values)
        ranked = best_trials(scores, self.space.objective.mode, decided)
        best = ranked[: max(top, len(decided))]
        self.study.set_user_attr(TOP, best)
        first_seed = self.space.base_experiment().seed
        known, used = self.trials.planned_repeats(), self.trials.seeds_of(best)
        self._repeats = plan_repeats(best[:top], first_seed, seeds, known, used)
        return len(self._repeats)

    def suspend(self) -> None:
        """Leave no trial RUNNING: those that did not end wait for the sweep to be resumed."""
        for frozen in self.trials.all():
            if frozen.state == TrialState.RUNNING:
                self._set_state(frozen, TrialState.WAITING)
        self._open.clear()

    def end(self, reason: str) -> dict[int, Ended]:
        """End every trial that did not, as stopped if it has scores; return how each ended."""
        for point in self.reopen():
            outcome: Outcome = "stopped" if self._scores.values[point.number] else "failed"
            self.tell(point.number, outcome, reason)
        for number in self.trials.paused():
            self.stop_waiting(number, reason)
        return self.trials.ended()

    def _draw(self, trial: optuna.Trial) -> Point:
        number, attributes = trial.number - self.trials.warm, trial.user_attrs
        if DRAWN in attributes:
            params = settings_now(attributes)
        else:
            params = self.space.suggest(trial)
            trial.set_user_attr(DRAWN, params)
        # A pruner compares with what trials really scored, not with what samplers see of them.
        trial.study = self.study
        repeat_of = attributes.get(REPEAT_OF)
        epochs = params.get("training.epochs") or self.space.base_experiment().training.epochs
        self._open[number] = _Open(trial, int(epochs) * self.space.runs, repeat_of is not None)
        self._scores.values.setdefault(number, {})
        return Point(number, params, repeat_of, attributes.get(SEED))

    def _set_state(self, frozen: FrozenTrial, state: TrialState) -> None:
        # Optuna has no public way to let a trial wait again; its storages allow it.
        storage = self.study._storage  # noqa: SLF001
        storage.set_trial_state_values(frozen._trial_id, state)  # noqa: SLF001


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence Optuna's warnings that some of its features used here are experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
