"""A sweep's Optuna study: asking for points, telling what came of them.

One study per sweep, named after it, in a real storage; only the process that runs the sweep
writes to it. The study is the truth about a sweep: which points were drawn, what every epoch
scored, how each trial ended. Samplers and pruners keep nothing in memory that is not in it, so
a sweep whose process was killed goes on from its study as if nothing had happened.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Literal

import optuna
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from segan_ray.errors import SweepError
from segan_ray.search.difference import difference
from segan_ray.search.first_points import first_points
from segan_ray.search.population import donor, perturb
from segan_ray.search.samplers import grid_size, make_sampler
from segan_ray.search.schedulers import PbtScheduler, make_pruner
from segan_ray.search.space import SearchSpace

Outcome = Literal["completed", "stopped", "failed"]

SPACE: Final = "space"
STORE: Final = "store"
BUDGET: Final = "budget"
WARM: Final = "warm"
READY: Final = "ready"
DRAWN: Final = "drawn"
EPOCHS: Final = "epochs"
TAKEN_OVER: Final = "taken_over"
REPEAT_OF: Final = "repeat_of"
SEED: Final = "seed"
TOP: Final = "repeat_top"
ENDED: Final = "ended"


@dataclass(frozen=True)
class Point:
    """One drawn point: the number of its trial, and what was drawn.

    ``repeat_of`` is the trial whose settings this one repeats with another ``seed``.
    """

    number: int
    params: Mapping[str, Any]
    repeat_of: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class TakeOver:
    """After an epoch a trial goes on from another's weights, with settings changed from its."""

    donor: int
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Ended:
    """How a trial ended, and why if that needs saying."""

    outcome: Outcome
    reason: str | None


@dataclass
class _Open:
    trial: optuna.Trial
    last_epoch: int
    repeated: bool


@dataclass
class SweepStudy:
    """Ask and tell for one sweep. A trial's score is its best epoch's, whatever came after.

    Trials are numbered from 0 in the order they were asked for.
    """

    space: SearchSpace
    study: optuna.Study
    skipped: tuple[str, ...] = ()
    _warm: int = 0
    _asked: int = 0
    _open: dict[int, _Open] = field(default_factory=dict)
    _values: dict[int, dict[int, tuple[float, ...]]] = field(default_factory=dict)

    @classmethod
    def create(
        cls,
        sweep: str,
        space: SearchSpace,
        storage: BaseStorage | None,
        *,
        store: str = "",
        earlier: Sequence[FrozenTrial] = (),
    ) -> SweepStudy:
        """Start the study of a new sweep over the store of that fingerprint.

        ``earlier`` are ended trials of another study that its sampler learns from first.

        Raises:
            SweepError: if ``storage`` holds a study of that name already.
        """
        modes = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}
        try:
            study = optuna.create_study(
                study_name=sweep,
                storage=storage,
                directions=[modes[objective.mode] for objective in space.objectives],
                pruner=make_pruner(space),
            )
        except DuplicatedStudyError:
            raise SweepError(
                f"A sweep named '{sweep}' exists already. Choose another --name, or go on with "
                "it: --resume."
            ) from None
        study.set_user_attr(SPACE, space.model_dump_json())
        study.set_user_attr(STORE, store)
        study.set_user_attr(BUDGET, space.budget.trials)
        study.add_trials(earlier)
        study.set_user_attr(WARM, len(earlier))
        first = first_points(space)
        for point in first.points:
            study.enqueue_trial(point)
        # A study without this was cut off while it was made, and is made anew.
        study.set_user_attr(READY, True)
        return cls(space, study, first.skipped, len(earlier))

    @classmethod
    def open(
        cls, sweep: str, space: SearchSpace, storage: BaseStorage, *, store: str = ""
    ) -> SweepStudy:
        """Go on with the study of an earlier process.

        Raises:
            SweepError: if it searched something else, or another store.
        """
        study = optuna.load_study(study_name=sweep, storage=storage)
        study.pruner = make_pruner(space)
        before = SearchSpace.model_validate_json(study.user_attrs[SPACE])
        changed = difference(before, space)
        if changed:
            raise SweepError(
                f"'{sweep}' searched something else: {' '.join(changed)} Resume it with the "
                "space it began with, or begin another sweep."
            )
        if study.user_attrs[STORE] != store:
            raise SweepError(
                f"'{sweep}' was trained on the store with fingerprint {study.user_attrs[STORE]}, "
                f"this one has {store}: scores of two stores cannot be compared."
            )
        # The order of parameters in a file changes what is drawn, so it stays as it was.
        unchanged = before.model_copy(update={"budget": space.budget})
        opened = cls(unchanged, study, _warm=study.user_attrs[WARM])
        opened._recall()
        return opened

    @property
    def asked(self) -> int:
        """How many trials have been asked for, repeats included."""
        return self._asked

    @property
    def budget(self) -> int:
        """How many trials the sweep is to have, repeats aside; raised with ``raise_budget``."""
        return int(self.study.user_attrs[BUDGET])

    def raise_budget(self, trials: int) -> None:
        """Let the sweep have ``trials`` trials."""
        self.study.set_user_attr(BUDGET, trials)

    @property
    def repeats(self) -> int:
        """How many of the trials asked for repeat another."""
        return sum(REPEAT_OF in trial.user_attrs for trial in self._trials())

    @property
    def most_trials(self) -> int:
        """How many trials there can be: a grid has only so many points."""
        return grid_size(self.space) if self.space.sampler.type == "grid" else sys.maxsize

    @property
    def all_failed(self) -> bool:
        """Whether no trial came to an end worth keeping."""
        return all(ended.outcome == "failed" for ended in self.ended().values())

    @property
    def first_reason(self) -> str:
        """Why the first failed trial did."""
        reasons = (ended.reason for ended in self.ended().values() if ended.outcome == "failed")
        return next((reason for reason in reasons if reason), "No trial was started.")

    def ask(self) -> Point:
        """Draw the next point."""
        # A sampler of its own for each trial, seeded by the trial's number: what it draws
        # depends on the study alone, not on how often the sweep's process was started anew.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self.study.sampler = make_sampler(self.space, self._asked)
            trial = self.study.ask()
            point = self._draw(trial)
        self._asked += 1
        return point

    def reopen(self) -> list[Point]:
        """Return the points of all trials that were asked for and did not end, in order."""
        points = []
        for frozen in self._trials():
            number = frozen.number - self._warm
            if frozen.state.is_finished() or number in self._open:
                continue
            if frozen.state == TrialState.WAITING:
                if DRAWN not in frozen.user_attrs:
                    continue
                self._set_state(frozen, TrialState.RUNNING)
            self.study.sampler = make_sampler(self.space, number)
            trial_id = frozen._trial_id  # noqa: SLF001 - what Optuna's own ask makes a Trial of
            points.append(self._draw(optuna.Trial(self.study, trial_id)))
        return points

    def report(self, number: int, epoch: int, *values: float) -> bool:
        """Record the objectives after one epoch; return whether the trial is to stop there.

        An epoch said before is not said again, and gets the same answer while nothing else came.
        """
        trial, known = self._open[number], self._values[number]
        if epoch not in known:
            known[epoch] = values
            if len(values) > 1:
                trial.trial.set_user_attr(EPOCHS, {str(e): list(v) for e, v in known.items()})
            else:
                trial.trial.report(values[0], epoch)
        if len(values) > 1 or trial.repeated or epoch >= trial.last_epoch or epoch < max(known):
            return False
        return trial.trial.should_prune()

    def take_over(self, number: int, epoch: int) -> TakeOver | None:
        """Return whose weights a trial goes on from after ``epoch``, if its population says so.

        What was decided once stays decided (Jaderberg et al. 2017, exploit and explore).
        """
        scheduler, trial = self.space.scheduler, self._open[number]
        if not isinstance(scheduler, PbtScheduler) or trial.repeated or epoch % scheduler.interval:
            return None
        decided = dict(trial.trial.user_attrs.get(TAKEN_OVER, {}))
        if str(epoch) not in decided:
            random = Random(f"{self.study.study_name}/{number}/{epoch}")
            scores = {n: v[epoch][0] for n, v in self._values.items() if epoch in v}
            mode = self.space.objective.mode
            chosen = donor(scores, number, mode, scheduler.quantile, random)
            if chosen is None:
                return None
            params = perturb(self.space, self.current(chosen), scheduler.resample, random)
            decided[str(epoch)] = {"donor": chosen, "params": params}
            trial.trial.set_user_attr(TAKEN_OVER, decided)
        return TakeOver(**decided[str(epoch)])

    def changing(self, number: int) -> dict[str, float]:
        """Return the settings of a trial that change while it trains, where they are numbers."""
        if not isinstance(self.space.scheduler, PbtScheduler):
            return {}
        flat: dict[str, float] = {}
        for path, value in self.current(number).items():
            values = value if isinstance(value, list) else [value]
            names = [f"{path}.{i}" for i in range(len(values))] if values is value else [path]
            pairs = zip(names, values, strict=True)
            flat |= {name: float(each) for name, each in pairs if isinstance(each, (int, float))}
        return flat

    def current(self, number: int) -> dict[str, Any]:
        """Return the settings a trial has now: as drawn, or as last taken over."""
        attributes = self._trials()[number].user_attrs
        taken: dict[str, Any] = attributes.get(TAKEN_OVER, {})
        if taken:
            return dict(taken[max(taken, key=int)]["params"])
        return dict(attributes[DRAWN])

    def tell(
        self, number: int, outcome: Outcome, reason: str | None = None, *, learn: bool = False
    ) -> None:
        """Close a trial: COMPLETE with its best value, PRUNED if stopped early, or FAIL.

        A trial that failed of its own settings (``learn``) is PRUNED at its last, worst value, so
        that the sampler keeps away from them; a FAIL says nothing of its settings.
        """
        opened = self._open.pop(number, None)
        if opened is None:
            return
        opened.trial.set_user_attr(ENDED, {"outcome": outcome, "reason": reason})
        values = self._values[number].values()
        if outcome == "completed" and values:
            pick = max if self.space.objective.mode == "max" else min
            best = pick(values, key=lambda value: value[0])
            self.study.tell(opened.trial, list(best))
        elif values and (outcome == "stopped" or learn):
            self.study.tell(opened.trial, state=TrialState.PRUNED)
        else:
            self.study.tell(opened.trial, state=TrialState.FAIL)

    def ended(self) -> dict[int, Ended]:
        """Return how each trial that ended did."""
        return {
            frozen.number - self._warm: Ended(**frozen.user_attrs[ENDED])
            for frozen in self._trials()
            if frozen.state.is_finished()
        }

    def enqueue_repeats(self, top: int, seeds: int) -> int:
        """Have the ``top`` best settings tried with ``seeds`` fresh seeds each.

        Returns how many trials that adds to those asked for already.
        """
        known = {
            (trial.user_attrs[REPEAT_OF], trial.user_attrs[SEED])
            for trial in self._trials()
            if REPEAT_OF in trial.user_attrs
        }
        # Who is best is decided once: a repeat must not change it when the sweep is resumed.
        best = self.study.user_attrs.get(TOP) or self._best(top)
        self.study.set_user_attr(TOP, best)
        first = self.space.base_experiment().seed
        for number in best:
            for seed in range(first + 1, first + 1 + seeds):
                if (number, seed) not in known:
                    drawn = self._trials()[number].params
                    self.study.enqueue_trial(drawn, user_attrs={REPEAT_OF: number, SEED: seed})
        return sum(
            trial.state == TrialState.WAITING and REPEAT_OF in trial.user_attrs
            for trial in self._trials()
        )

    def _best(self, top: int) -> list[int]:
        sign = -1 if self.space.objective.mode == "max" else 1
        ended = self.ended()
        scores = {
            number: min(sign * value[0] for value in values.values())
            for number, values in self._values.items()
            if values and number in ended and ended[number].outcome != "failed"
        }
        return sorted(scores, key=lambda number: (scores[number], number))[:top]

    def park(self) -> None:
        """Leave no trial RUNNING: those open now wait for the sweep to be resumed."""
        frozen = self._trials()
        for number in self._open:
            self._set_state(frozen[number], TrialState.WAITING)
        self._open.clear()

    def _draw(self, trial: optuna.Trial) -> Point:
        number, attributes = trial.number - self._warm, trial.user_attrs
        params = attributes.get(DRAWN)
        if params is None:
            params = self.space.suggest(trial)
            trial.set_user_attr(DRAWN, params)
        elif attributes.get(TAKEN_OVER):
            params = self.current(number)
        repeat_of = attributes.get(REPEAT_OF)
        epochs = params.get("training.epochs") or self.space.base_experiment().training.epochs
        self._open[number] = _Open(trial, int(epochs), repeat_of is not None)
        self._values.setdefault(number, {})
        return Point(number, params, repeat_of, attributes.get(SEED))

    def _recall(self) -> None:
        """Take up what earlier processes knew."""
        for frozen in self._trials():
            if frozen.state == TrialState.WAITING and DRAWN not in frozen.user_attrs:
                continue
            number = frozen.number - self._warm
            several = frozen.user_attrs.get(EPOCHS, {})
            self._values[number] = {
                **{epoch: (value,) for epoch, value in frozen.intermediate_values.items()},
                **{int(epoch): tuple(values) for epoch, values in several.items()},
            }
            self._asked += 1

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)[self._warm :]

    def _set_state(self, frozen: FrozenTrial, state: TrialState) -> None:
        # Optuna has no public way to let a trial wait again; its storages allow it.
        storage = self.study._storage  # noqa: SLF001
        storage.set_trial_state_values(frozen._trial_id, state)  # noqa: SLF001


def study_exists(sweep: str, storage: BaseStorage) -> bool:
    """Tell whether ``storage`` holds the study of that sweep.

    One that was cut off while it was made is none, and is removed.
    """
    if sweep not in optuna.get_all_study_names(storage):
        return False
    if optuna.load_study(study_name=sweep, storage=storage).user_attrs.get(READY):
        return True
    delete_study(sweep, storage)
    return False


def delete_study(sweep: str, storage: BaseStorage) -> None:
    """Remove a sweep's study, if there is one."""
    if sweep in optuna.get_all_study_names(storage):
        optuna.delete_study(study_name=sweep, storage=storage)
