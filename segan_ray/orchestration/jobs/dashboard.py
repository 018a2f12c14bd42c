"""Connecting to Ray's dashboard, which takes jobs, with errors in words."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from ray.dashboard.modules.job.sdk import JobSubmissionClient
from ray.exceptions import AuthenticationError

from segan_ray.errors import ClusterError
from segan_ray.redaction import mask

EXPECTED: Final = (
    "Expected is the address of the cluster's dashboard, as in http://head:8265 "
    "(--address, RAY_API_SERVER_ADDRESS or RAY_ADDRESS)."
)
OVERRIDES: Final = "RAY_API_SERVER_ADDRESS"
"""The variable that Ray prefers to the address in its argument."""
TALKATIVE: Final = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
NO_AGENT: Final = "No available agent"
"""Ray's message while no node can start a job, such as soon after the head's start."""
PATIENCE_S: Final = 60.0
"""How long an answer may take; Ray's client has no time limit."""


class Dashboard(JobSubmissionClient):
    """Ray's client of jobs with a time limit."""

    def _do_request(self, method: str, endpoint: str, **more: Any) -> Any:
        return super()._do_request(method, endpoint, timeout=PATIENCE_S, **more)


def dashboard(address: str | None) -> Dashboard:
    """Return a client of the dashboard at ``address``.

    Raises:
        ClusterError: if it is no address of a dashboard, if no dashboard or too old a one answers
            there, or if the cluster asks for a token that is missing or wrong.
    """
    where = check_address(address)
    # Each of these loggers has its own level, at which it logs every upload and connection.
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    with said_in_words(where), _only(where):
        return Dashboard(where)


def check_address(address: str | None) -> str:
    """Return ``address`` if it has the form of a dashboard's.

    Raises:
        ClusterError: if it is missing, or another kind of address of a cluster.
    """
    if not address:
        raise ClusterError(f"No cluster is named. {EXPECTED}")
    parts = urlsplit(address)
    if parts.scheme in {"http", "https"} and parts.hostname:
        return address.rstrip("/")
    other = "Ray Client's" if parts.scheme == "ray" else "no dashboard's"
    raise ClusterError(f"{mask(address)}: is {other} address. {EXPECTED}")


@contextmanager
def _only(address: str) -> Iterator[None]:
    """Make Ray use ``address``: without this it would prefer the one in RAY_ADDRESS."""
    before = os.environ.get(OVERRIDES)
    os.environ[OVERRIDES] = address
    try:
        yield
    finally:
        if before is None:
            del os.environ[OVERRIDES]
        else:
            os.environ[OVERRIDES] = before


@contextmanager
def said_in_words(address: str) -> Iterator[None]:
    """Turn errors of the dashboard and its connection into a ClusterError."""
    try:
        yield
    except AuthenticationError as error:
        raise ClusterError(
            f"{mask(address)}: the cluster asks for a token ({_first_line(error)}). Set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's."
        ) from None
    except (requests.JSONDecodeError, requests.HTTPError, KeyError):
        raise ClusterError(
            f"{mask(address)}: what answers is no Ray dashboard. {EXPECTED}"
        ) from None
    except (requests.RequestException, OSError) as error:
        late = isinstance(error, requests.Timeout)
        said = f"did not answer within {PATIENCE_S:.0f} s" if late else "nothing answers"
        raise ClusterError(f"{mask(address)}: {said}. Is the cluster up? {EXPECTED}") from None
    except RuntimeError as error:
        raise ClusterError(f"{mask(address)}: {_refusal(error)}") from None


def _refusal(error: RuntimeError) -> str:
    said = _first_line(error)
    if "returned 404" in said:
        return f"what answers is no Ray dashboard, or one without jobs. {EXPECTED}"
    if NO_AGENT in said:
        return (
            "the head node takes no jobs: its dashboard agent does not run. Its log there: "
            "/tmp/ray/session_latest/logs/dashboard_agent.log"
        )
    return f"{said}."


def _first_line(error: Exception) -> str:
    return mask(str(error).splitlines()[0].split(". ")[0][:300].rstrip("."))
