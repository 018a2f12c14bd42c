"""Telling a tracking store that is away from one that says no."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from segan_ray.errors import TrackingError, named
from segan_ray.redaction import mask

FOR_GOOD: Final = {
    "INVALID_PARAMETER_VALUE",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
    "NOT_IMPLEMENTED",
}
"""What MLflow says of a record that will not be better next time."""
PERHAPS: Final = {"BAD_REQUEST", "ENDPOINT_NOT_FOUND"}
"""A database in trouble or a proxy whose server restarts may say so too: ask a few times."""
ASKED_OFTEN: Final = 6
AWAY: Final = {401, 403, 404, 408, 425, 429}
"""Answers of 4xx that speak of the server or of credentials, not of what was sent."""
SHORT_PAUSES_S: Final = (0.25, 0.5, 1.0)
Answer = TypeVar("Answer")
OURS: Final = (
    TypeError, ValueError, KeyError, AttributeError, IndexError, NotImplementedError, TrackingError,
)  # fmt: skip
"""What is raised here, by the record itself."""


def is_refusal(error: Exception, tries: int) -> bool:
    """Tell whether trying the same again is hopeless, having tried ``tries`` times before."""
    often = tries >= ASKED_OFTEN
    if isinstance(error, MlflowException):
        return error.error_code in FOR_GOOD or (often and error.error_code in PERHAPS)
    if isinstance(error, requests.HTTPError) and error.response is not None:
        status = error.response.status_code
        return 400 <= status < 500 and (status not in AWAY or (often and status == 404))
    if isinstance(error, requests.RequestException):
        return False
    return isinstance(error, OURS)


def persistently(act: Callable[[], Answer]) -> Answer:
    """Return what ``act`` does, trying a few times: another process may hold the database."""
    for tries, pause_s in enumerate(SHORT_PAUSES_S):
        try:
            return act()
        except Exception as error:  # every store has errors of its own
            if is_refusal(error, tries):
                raise
            time.sleep(pause_s)
    return act()


def reason_of(error: Exception) -> str:
    """Return what went wrong on one line."""
    return mask(named(error))


@contextlib.contextmanager
def said_in_words(client: MlflowClient) -> Iterator[None]:
    """Raise TrackingError for whatever keeps MLflow from answering."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, requests.RequestException, OSError) as error:
        raise TrackingError(
            f"MLflow at {mask(client.tracking_uri)} cannot be used ({reason_of(error)}).\n"
            "Is MLFLOW_TRACKING_URI right and the server up?"
        ) from None
