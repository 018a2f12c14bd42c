"""What a sweep's study says of its trials, and under which names it keeps that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Outcome = Literal["completed", "stopped", "failed"]

DRAWN: Final = "drawn"
EPOCHS: Final = "epochs"
STOP: Final = "stop"
TAKEN_OVER: Final = "taken_over"
REPEAT_OF: Final = "repeat_of"
SEED: Final = "seed"
REUSED: Final = "reused"
"""Of a trial at a point that another was at before: that one's number. It is not trained."""
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
    """After an epoch a trial goes on from another's weights, with settings changed from its."""

    source: int
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Ended:
    """How a trial ended, and why if that needs saying.

    Of one that failed of its own settings there is something to ``learn``.
    """

    outcome: Outcome
    reason: str | None
    learn: bool = False


def settings_now(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a trial has: as drawn, or as last taken over."""
    taken = {int(epoch): one for epoch, one in attributes.get(TAKEN_OVER, {}).items() if one}
    return dict(taken[max(taken)]["params"] if taken else attributes[DRAWN])


def numbers(params: Mapping[str, Any]) -> dict[str, float]:
    """Return the settings that are numbers; of a list, each under the name it is drawn by."""
    flat = {
        (f"{path}.{place}" if isinstance(value, list) else path): each
        for path, value in params.items()
        for place, each in enumerate(value if isinstance(value, list) else [value])
    }
    return {name: float(each) for name, each in flat.items() if isinstance(each, (int, float))}
