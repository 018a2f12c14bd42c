"""Training the best settings again with fresh seeds: which, and with which seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import count, islice

from segan_ray.training.epoch_record import Mode


@dataclass(frozen=True)
class Repeat:
    """The settings of trial ``of``, once more, with ``seed``."""

    of: int
    seed: int


def best_trials(
    scores: Mapping[int, Sequence[float]], mode: Mode, decided: Iterable[int]
) -> list[int]:
    """Return the trials ``decided`` before, then others by the best of their ``scores``.

    Which trials are best is decided once: repeats and later trials do not change it.
    """
    first = list(decided)
    sign = -1 if mode == "max" else 1
    worth = {number: min(sign * score for score in all_) for number, all_ in scores.items() if all_}
    ranked = sorted(worth, key=lambda number: (worth[number], number))
    return [*first, *(number for number in ranked if number not in first)]


def plan_repeats(
    best: Sequence[int], first_seed: int, seeds: int, known: Set[Repeat], used: Set[int]
) -> list[Repeat]:
    """Return ``seeds`` repeats of each of ``best`` with seeds above ``first_seed``, less ``known``.

    Seeds ``used`` by the trials themselves are passed over: a repeat would be the same run. Each
    seed is given to all trials in turn, so a plan cut short repeats each about as often.
    """
    fresh = islice((seed for seed in count(first_seed + 1) if seed not in used), seeds)
    wanted = (Repeat(number, seed) for seed in fresh for number in best)
    return [repeat for repeat in wanted if repeat not in known]
