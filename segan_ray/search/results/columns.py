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
    """Return ``{parameter: {trial: value}}``, the parameters of most trials first."""
    by_name: dict[str, Column] = {}
    for trial in trials:
        for name, value in _scalars(trial.params):
            by_name.setdefault(name, {})[trial.trial] = value
    return dict(sorted(by_name.items(), key=lambda column: -len(column[1])))


def is_number(value: Any) -> TypeGuard[int | float]:
    """Tell a number from a word; true and false are words."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _scalars(params: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in params.items():
        if isinstance(value, list | tuple):
            yield from ((f"{name}[{index}]", item) for index, item in enumerate(value))
        else:
            yield name, value
