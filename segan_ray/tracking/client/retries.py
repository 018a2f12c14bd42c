"""Telling a tracking store that is away from a store that refuses a record."""

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
"""MLflow's codes for a record that it would refuse again."""
MAYBE_FOR_GOOD: Final = {"BAD_REQUEST", "ENDPOINT_NOT_FOUND"}
"""Also codes of a failing database or of a proxy whose server restarts: try a few times."""
MANY_TRIES: Final = 6
NOT_ABOUT_RECORDS: Final = {401, 403, 404, 408, 425, 429}
"""Statuses of 4xx that are about the server or credentials, not about the request."""
SHORT_PAUSES_S: Final = (0.25, 0.5, 1.0)
Answer = TypeVar("Answer")
RECORD_ERRORS: Final = (
    TypeError, ValueError, KeyError, AttributeError, IndexError, NotImplementedError, TrackingError,
)  # fmt: skip
"""Errors that this process raises because of the record itself."""


def is_refusal(error: Exception, tries: int) -> bool:
    """Tell whether another try is hopeless after ``tries`` earlier ones."""
    often = tries >= MANY_TRIES
    if isinstance(error, MlflowException):
        return error.error_code in FOR_GOOD or (often and error.error_code in MAYBE_FOR_GOOD)
    if isinstance(error, requests.HTTPError) and error.response is not None:
        status = error.response.status_code
        return 400 <= status < 500 and (
            status not in NOT_ABOUT_RECORDS or (often and status == 404)
        )
    if isinstance(error, requests.RequestException):
        return False
    return isinstance(error, RECORD_ERRORS)


def persistently(act: Callable[[], Answer]) -> Answer:
    """Return the result of ``act``, tried a few times: another process may lock the database."""
    for tries, pause_s in enumerate(SHORT_PAUSES_S):
        try:
            return act()
        except Exception as error:  # every store has errors of its own
            if is_refusal(error, tries):
                raise
            time.sleep(pause_s)
    return act()


def reason_of(error: Exception) -> str:
    """Return the reason of an error on one line, without secrets."""
    return mask(named(error))


@contextlib.contextmanager
def said_in_words(client: MlflowClient) -> Iterator[None]:
    """Turn errors of MLflow and its store into a TrackingError."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, requests.RequestException, OSError) as error:
        raise TrackingError(
            f"MLflow at {mask(client.tracking_uri)} cannot be used ({reason_of(error)}).\n"
            "Is MLFLOW_TRACKING_URI right and the server up?"
        ) from None
