"""Searches played on recorded curves: what was handed out after each epoch that was spent.

A drawn point is answered by the nearest point of the grid, with the curve of one of its seeds
drawn at random. Trials run ``SLOTS`` side by side, an epoch of each in turn, so that a scheduler
decides while others are under way. The incumbent is what the search would hand out: the setting
of the trial with the best score observed so far, stopped and running ones too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from statistics import mean, variance
from typing import Any, Final, Literal, Protocol

from recorded import Curves, Setting

from segan_ray.search.points.points import Verdict

SLOTS: Final = 4
TOP: Final = 0.1


class Point(Protocol):
    """What was drawn, and the number of its trial."""

    @property
    def number(self) -> int: ...

    @property
    def params(self) -> Mapping[str, Any]: ...


class Search(Protocol):
    """What ``segan_ray.search.study.sweep_study.SweepStudy`` is to whoever runs trials."""

    def ask(self) -> Point: ...

    def promote(self) -> Point | None: ...

    def report(self, number: int, epoch: int, value: float) -> Verdict: ...

    def tell(
        self, number: int, outcome: Literal["completed", "stopped", "failed"], *, learn: bool
    ) -> None: ...


@dataclass(frozen=True)
class Drawn:
    number: int
    params: Mapping[str, Any]


class GridSearch:
    """Every point of a list once, each to its last epoch."""

    def __init__(self, settings: Sequence[Setting]) -> None:
        self._waiting = iter(settings)
        self._asked = 0

    def ask(self) -> Drawn:
        """Return the next point; StopIteration ends the search."""
        setting = next(self._waiting)
        self._asked += 1
        return Drawn(self._asked - 1, setting.params())

    def promote(self) -> None:
        """Return None: no point waits."""

    def report(self, number: int, epoch: int, value: float) -> Verdict:  # noqa: ARG002
        return "continue"

    def tell(self, number: int, outcome: str, *, learn: bool) -> None:
        pass


@dataclass
class _Trial:
    number: int
    setting: Setting
    curve: tuple[float, ...]
    ended: int | None
    epoch: int = 0


@dataclass(frozen=True)
class Replay:
    """The incumbent after each epoch spent, and how many trials began and how they ended."""

    incumbents: tuple[Setting, ...]
    trials: int
    completed: int
    stopped: int


@dataclass(frozen=True)
class Measure:
    """What counts as found: a seed-averaged score within the seeds' noise of the grid's best.

    ``quality`` is a setting's best epoch averaged over its seeds. ``noise`` is the standard
    deviation between seeds of one setting, pooled over the best tenth of the grid: those are the
    settings a search must tell apart, and poor ones differ more (some collapse).
    """

    quality: Mapping[Setting, float]
    noise: float
    grid_epochs: int

    @property
    def best(self) -> float:
        return max(self.quality.values())

    def within(self, share_of_noise: float) -> float:
        """Return the score from which on a setting counts as found."""
        return self.best - share_of_noise * self.noise

    def settings_within(self, share_of_noise: float) -> int:
        return sum(score >= self.within(share_of_noise) for score in self.quality.values())

    def reached(self, replay: Replay, share_of_noise: float) -> float | None:
        """Return the share of the grid's epochs from which on the incumbent is good enough.

        None where it is not at the end.
        """
        goal = self.within(share_of_noise)
        spent = len(replay.incumbents)
        while spent and self.quality[replay.incumbents[spent - 1]] >= goal:
            spent -= 1
        if spent == len(replay.incumbents):
            return None
        return (spent + 1) / self.grid_epochs

    def found_at(self, replay: Replay, share: float, share_of_noise: float) -> bool:
        """Tell whether the incumbent is good enough after that share of the grid's epochs."""
        spent = min(max(1, int(share * self.grid_epochs)), len(replay.incumbents))
        return self.quality[replay.incumbents[spent - 1]] >= self.within(share_of_noise)


def measure(curves: Curves) -> Measure:
    """Return what counts as found on these curves.

    The grid's epochs are those of one seed that are really run: a run that collapses ends early,
    in the grid as in a search.
    """
    bests = {
        setting: [max(scores) for scores in seeds.values()]
        for setting, seeds in curves.scores.items()
    }
    quality = {setting: mean(values) for setting, values in bests.items()}
    top = sorted(quality, key=quality.__getitem__, reverse=True)[: max(1, int(TOP * len(quality)))]
    noise = mean(variance(bests[setting]) for setting in top) ** 0.5
    grid = curves.grid
    lengths = [
        curves.ended.get((setting, seed), grid.epochs)
        for setting in grid.settings()
        for seed in grid.seeds
    ]
    return Measure(quality, noise, round(sum(lengths) / len(grid.seeds)))


def replay(curves: Curves, search: Search, epochs: int, seed: int, slots: int = SLOTS) -> Replay:
    """Spend ``epochs`` epochs on a search, ``slots`` trials side by side."""
    random = Random(seed)
    running: list[_Trial | None] = [None] * slots
    paused: dict[int, _Trial] = {}
    best: tuple[float, Setting] | None = None
    incumbents: list[Setting] = []
    counts = {"trials": 0, "completed": 0, "stopped": 0}
    for slot in _turns(slots):
        trial = running[slot] or _start(curves, search, random, paused)
        if trial is None:
            if not any(running):
                break
            continue
        counts["trials"] += trial.epoch == 0
        trial.epoch += 1
        score = trial.curve[trial.epoch - 1]
        if best is None or score > best[0]:
            best = score, trial.setting
        incumbents.append(best[1])
        outcome = _outcome(search, trial, score)
        if outcome == "pause":
            paused[trial.number] = trial
        elif outcome:
            search.tell(trial.number, outcome, learn=True)
            counts[outcome] = counts.get(outcome, 0) + 1
        running[slot] = None if outcome else trial
        if len(incumbents) == epochs:
            break
    return Replay(tuple(incumbents), counts["trials"], counts["completed"], counts["stopped"])


def _turns(slots: int) -> Iterator[int]:
    while True:
        yield from range(slots)


def _start(
    curves: Curves, search: Search, random: Random, paused: dict[int, _Trial]
) -> _Trial | None:
    promoted = search.promote()
    if promoted is not None:
        return paused.pop(promoted.number)
    try:
        point = search.ask()
    except StopIteration:
        return None
    setting = curves.grid.nearest(point.params)
    seed = random.choice(curves.grid.seeds)
    return _Trial(
        point.number,
        setting,
        curves.scores[setting][seed],
        curves.ended.get((setting, seed)),
    )


def _outcome(
    search: Search, trial: _Trial, score: float
) -> Literal["completed", "stopped", "failed", "pause"] | None:
    verdict = search.report(trial.number, trial.epoch, score)
    if verdict == "pause":
        return "pause"
    if trial.epoch == trial.ended:
        return "failed"
    if trial.epoch == len(trial.curve):
        return "completed"
    return "stopped" if verdict == "stop" else None
