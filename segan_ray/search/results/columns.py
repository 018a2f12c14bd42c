"""The parameters of many trials side by side: one column each, and one for each item of a list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeGuard


class Drawn(Protocol):
    """What columns need to know of a trial."""

    @property
    def trial(self) -> str: ...
    @property
    def params(self) -> Mapping[str, Any]: ...


Column = dict[str, Any]


def columns(trials: Sequence[Drawn]) -> dict[str, Column]:
    """Return ``{parameter: {trial: value}}``; those that most trials have come first."""
    found: dict[str, Column] = {}
    for one in trials:
        for name, value in _scalars(one.params):
            found.setdefault(name, {})[one.trial] = value
    return dict(sorted(found.items(), key=lambda column: -len(column[1])))


def is_number(value: Any) -> TypeGuard[int | float]:
    """Tell a number from a word; true and false are words."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _scalars(params: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in params.items():
        if isinstance(value, list | tuple):
            yield from ((f"{name}[{index}]", one) for index, one in enumerate(value))
        else:
            yield name, value
