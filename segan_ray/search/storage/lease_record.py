"""The lease as an attribute of its study, changed by compare and set.

Each change is one statement of the database: of two processes that write at once, one succeeds
and the other learns that it failed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final, TypeVar, cast

from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import (
    Engine,
    Insert,
    Update,
    column,
    exists,
    insert,
    literal,
    select,
    table,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError

HELD: Final = "held"
STOP_WANTED: Final = "stop_wanted"
NO_HOLDER: Final = "null"
"""The attribute after a clean end."""
STUDIES: Final = table("studies", column("study_id"))
ATTRIBUTES: Final = table(
    "study_user_attributes", column("study_id"), column("key"), column("value_json")
)
"""Optuna's own tables: ``study.user_attrs`` reads what is written here."""
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Lease:
    """Who runs a sweep: ``by`` for people, ``token`` for this lease alone.

    ``renewals`` counts how often the lease was renewed. ``connections`` is the name of its holder's
    connections to the database, if they have one. Older versions wrote no token.
    """

    by: str
    token: str | None = None
    renewals: int = 0
    connections: str | None = None

    @property
    def text(self) -> str:
        """The lease as the database keeps it."""
        return json.dumps(asdict(self))


def lease_in(text: str | None) -> Lease | None:
    """Read back what ``Lease.text`` wrote."""
    if text is None:
        return None
    content = json.loads(text)
    return Lease(
        content["by"],
        content.get("token"),
        content.get("renewals", 0),
        content.get("connections"),
    )


class LeaseRecord:
    """The lease of one sweep's study, as the exact text in its database."""

    def __init__(self, sweep: str, storage: BaseStorage) -> None:
        """Find the study.

        Raises:
            KeyError: if there is none of that name.
        """
        self.sweep = sweep
        self._study = storage.get_study_id_from_name(sweep)
        self.engine = engine_of(storage)

    def read(self) -> str | None:
        """Return the lease, or None if the study has no holder."""
        return self._value(HELD)

    def stop_wanted_of(self) -> str | None:
        """Return the token of the lease whose holder is asked to end its sweep, or None."""
        wanted = self._value(STOP_WANTED)
        return None if wanted is None else str(json.loads(wanted))

    def change(self, before: str | None, now: str | None) -> bool:
        """Replace the lease if it is still ``before``; tell whether it was."""
        changed = (
            update(ATTRIBUTES)
            .where(ATTRIBUTES.c.study_id == self._study, ATTRIBUTES.c.key == HELD)
            .where(ATTRIBUTES.c.value_json == (before or NO_HOLDER))
            .values(value_json=now or NO_HOLDER)
        )
        return self._runs(changed) or (before is None and self._insert(now or NO_HOLDER))

    def _insert(self, now: str) -> bool:
        """Write the first lease of a study, unless another process does or the study is gone."""
        there = exists().where(STUDIES.c.study_id == self._study)
        row = select(literal(self._study), literal(HELD), literal(now)).where(there)
        try:
            return self._runs(
                insert(ATTRIBUTES).from_select(["study_id", "key", "value_json"], row)
            )
        except IntegrityError:
            return False

    def _runs(self, statement: Insert | Update) -> bool:
        # Not every driver keeps the row count of an INSERT by itself.
        counted = statement.execution_options(preserve_rowcount=True)

        def run() -> bool:
            with self.engine.begin() as connection:
                return connection.execute(counted).rowcount == 1

        return _once_more(run)

    def _value(self, key: str) -> str | None:
        wanted = select(ATTRIBUTES.c.value_json).where(
            ATTRIBUTES.c.study_id == self._study, ATTRIBUTES.c.key == key
        )

        def ask() -> str | None:
            with self.engine.connect() as connection:
                return cast("str | None", connection.execute(wanted).scalar())

        value = _once_more(ask)
        return None if value in (None, NO_HOLDER) else value


def engine_of(storage: BaseStorage) -> Engine:
    """Return the engine by which a storage of studies reaches its database."""
    return cast("RDBStorage", getattr(storage, "_backend", storage)).engine


def _once_more(act: Callable[[], Answer]) -> Answer:
    """Return the result of ``act``, called again if its idle connection was cut."""
    try:
        return act()
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        return act()
