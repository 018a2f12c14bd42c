"""What people ask of a sweep, from any terminal or machine that sees its study.

Each request is an attribute of the study, of its own name, so that all are heard of several that
come at once. The process that runs the sweep reads them between epochs, one that resumes it reads
them first.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from optuna.storages import BaseStorage

Kind = Literal["stop_trial", "try_point", "set_limits"]
PREFIX: Final = "request "
DONE: Final = "requests_done"
"""The names of the requests that set limits and have been fulfilled."""


@dataclass(frozen=True)
class Request:
    """A request under its ``name``, by which requests are in the order of their times."""

    name: str
    kind: Kind
    content: Mapping[str, Any]


def ask(sweep: str, storage: BaseStorage, kind: Kind, content: Mapping[str, Any]) -> None:
    """Leave a request with the study of a sweep."""
    name = f"{PREFIX}{datetime.now(UTC).isoformat()} {secrets.token_hex(4)}"
    study = storage.get_study_id_from_name(sweep)
    storage.set_study_user_attr(study, name, {"kind": kind, "content": dict(content)})


@dataclass(frozen=True)
class Requests:
    """The requests that a study holds, in order."""

    every: tuple[Request, ...] = ()
    done: frozenset[str] = frozenset()

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> Requests:
        """Read them from the attributes of a study."""
        named = sorted((name, each) for name, each in attributes.items() if name.startswith(PREFIX))
        every = tuple(Request(name, each["kind"], each["content"]) for name, each in named)
        return cls(every, frozenset(attributes.get(DONE, ())))

    @property
    def trials_to_stop(self) -> frozenset[int]:
        """The trials that are to end."""
        return frozenset(int(each.content["trial"]) for each in self._of("stop_trial"))

    @property
    def points(self) -> dict[str, dict[str, Any]]:
        """The points to be tried, under Optuna's names, by the names of their requests."""
        return {each.name: dict(each.content["point"]) for each in self._of("try_point")}

    @property
    def limits_to_set(self) -> tuple[Request, ...]:
        """The requests for other limits that have not been fulfilled."""
        return tuple(each for each in self._of("set_limits") if each.name not in self.done)

    def _of(self, kind: Kind) -> tuple[Request, ...]:
        return tuple(each for each in self.every if each.kind == kind)
