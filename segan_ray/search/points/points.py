"""What a sweep's study records of its trials, and the names of these attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Outcome = Literal["completed", "stopped", "failed"]
Verdict = Literal["continue", "stop", "pause"]
"""What a trial does after an epoch. A paused trial may go on later, from its checkpoint."""

DRAWN: Final = "drawn"
EPOCHS: Final = "epochs"
STOP: Final = "stop"
RUNG: Final = "rung"
"""The last rung that a trial has reached, an epoch, and whether it waits there."""
TAKEN_OVER: Final = "taken_over"
REPEAT_OF: Final = "repeat_of"
SEED: Final = "seed"
REQUESTED: Final = "requested"
"""The name of the request that asked for a trial's point."""
REUSED: Final = "reused"
"""The number of an earlier trial at the same point; a trial that has this is not trained."""
TOP: Final = "repeat_top"
ENDED: Final = "ended"


@dataclass(frozen=True)
class Point:
    """One drawn point: the number of its trial, and what was drawn.

    ``repeat_of`` is the trial whose settings this one repeats with another ``seed``; a ``seed``
    without it is a point that was tried before and is to be trained anew all the same.
    """

    number: int
    params: Mapping[str, Any]
    repeat_of: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Exploit:
    """After an epoch a trial goes on from the weights of ``source``, with changed settings."""

    source: int
    params: Mapping[str, Any]


@dataclass(frozen=True)
class AtRung:
    """A trial at a rung, which is an epoch: ``paused`` there, or past it."""

    epoch: int
    paused: bool


@dataclass(frozen=True)
class Ended:
    """How a trial ended, and why if that needs saying.

    ``learn`` is true of a trial that failed because of its settings: the sampler learns from it.
    An ``infeasible`` one broke a constraint or ran out of memory, and cannot win.
    """

    outcome: Outcome
    reason: str | None
    learn: bool = False
    infeasible: bool = False


def settings_now(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the current settings of a trial: as drawn, or as of its last exploit."""
    taken = {int(epoch): each for epoch, each in attributes.get(TAKEN_OVER, {}).items() if each}
    return dict(taken[max(taken)]["params"] if taken else attributes[DRAWN])


def numbers(params: Mapping[str, Any]) -> dict[str, float]:
    """Return the settings that are numbers, each item of a list under Optuna's name for it."""
    flat = {
        (f"{path}.{index}" if isinstance(value, list) else path): each
        for path, value in params.items()
        for index, each in enumerate(value if isinstance(value, list) else [value])
    }
    return {name: float(each) for name, each in flat.items() if isinstance(each, (int, float))}
