"""Aliases of the registered model: moved and rolled back by one process at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mlflow import MlflowClient

from segan_ray.errors import RegistryError
from segan_ray.filesystem import locks
from segan_ray.home import Home
from segan_ray.tracking.client.connection import connect
from segan_ray.tracking.client.retries import said_in_words
from segan_ray.tracking.registry.model_versions import MODEL, check_alias, find_alias

CHAMPION: Final = "champion"
PREVIOUS: Final = "previous"
LOCK: Final = ".registry.lock"
WAIT_S: Final = 300.0
"""How long to wait for another process that writes to the registry, perhaps a whole model."""


@dataclass(frozen=True)
class Rollback:
    """An alias that went back from version ``left`` to ``restored``, which had it before."""

    alias: str
    left: str
    restored: str

    def document(self) -> dict[str, str]:
        """Return the ``rollback`` document."""
        return {"alias": self.alias, "from": self.left, "to": self.restored}


def previous_of(alias: str) -> str:
    """Return the alias of the version that had ``alias`` before.

    It is ``previous`` for the champion, and ``ALIAS-previous`` for any other.
    """
    return PREVIOUS if alias == CHAMPION else f"{alias}-{PREVIOUS}"


def check_movable(alias: str) -> str:
    """Return ``alias`` if it may be moved and its previous version can be remembered.

    Raises:
        RegistryError: saying what an alias may be.
    """
    if check_alias(alias) == PREVIOUS or alias.endswith(f"-{PREVIOUS}"):
        raise RegistryError(
            f"'{alias}' is where the version before is remembered; it moves with its alias. "
            "Name another, such as champion."
        )
    check_alias(previous_of(alias))
    return alias


def move_alias(client: MlflowClient, alias: str, version: str) -> None:
    """Point ``alias`` at ``version``; the version that had it becomes the previous one.

    If this is interrupted, the alias has not moved, and the same call does the rest.
    """
    held = find_alias(client, alias)
    if held is None or str(held.version) != version:
        if held is not None:
            _point(client, previous_of(alias), str(held.version))
        _point(client, alias, version)


def rollback(home: Home, alias: str) -> Rollback:
    """Give ``alias`` back to the version that had it before; the two versions swap aliases.

    A second rollback therefore undoes the first.

    Raises:
        RegistryError: if no version has the alias, or none had it before.
        TrackingError: if the registry does not answer.
    """
    check_movable(alias)
    client = connect(home)
    with registry_lock(home), said_in_words(client):
        held = find_alias(client, alias)
        if held is None:
            raise RegistryError(
                f"No version of the model has the alias '{alias}'. Promote one: "
                f"segan-ray promote SWEEP --alias {alias}"
            )
        before = find_alias(client, previous_of(alias))
        left = str(held.version)
        if before is None or str(before.version) == left:
            raise RegistryError(
                f"'{alias}' is version {left}, and no other version had it before: there is "
                "nothing to go back to."
            )
        restored = str(before.version)
        _point(client, alias, restored)
        _point(client, previous_of(alias), left)
    return Rollback(alias, left, restored)


@contextlib.contextmanager
def registry_lock(home: Home) -> Iterator[None]:
    """Lock the registry against other processes that use this home.

    Raises:
        RegistryError: if another process writes to it for longer than ``WAIT_S``.
    """
    path = home.folder / LOCK
    handle = locks.acquire(path, wait_s=WAIT_S)
    if handle is None:
        raise RegistryError(
            f"{locks.holder(path)} has been writing to the model registry for {WAIT_S:.0f} s. "
            "Wait for it, or end it, and try again."
        )
    try:
        yield
    finally:
        locks.release(handle)


def _point(client: MlflowClient, alias: str, version: str) -> None:
    client.set_registered_model_alias(MODEL, alias, version)
