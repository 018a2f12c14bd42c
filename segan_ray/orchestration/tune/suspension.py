"""Suspending a sweep in the records when it is interrupted."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Iterator

from segan_ray.errors import Interrupted, SeganRayError, SweepError, TakenOver, said
from segan_ray.orchestration.tune.sweep_lock import EndRequest
from segan_ray.orchestration.tune.trial_lifecycle import TrialLifecycle

log = logging.getLogger(__name__)


@contextlib.contextmanager
def suspended_if_cut_off(
    name: str, command: str, lifecycle: TrialLifecycle, request: EndRequest
) -> Iterator[None]:
    """Suspend the sweep in the records if the block does not come to its end.

    Raises:
        Interrupted: for a signal, with the command to go on.
        TakenOver: if another process has taken the sweep over; its records stay as they are.
    """
    try:
        with _suspended(name, command, lifecycle, request):
            yield
    except TakenOver:
        lifecycle.abandon()
        raise


@contextlib.contextmanager
def _suspended(
    name: str, command: str, lifecycle: TrialLifecycle, request: EndRequest
) -> Iterator[None]:
    try:
        request.now()
        yield
    except TakenOver:
        raise
    except KeyboardInterrupt:
        lifecycle.suspend()
        raise Interrupted.of(name, command, request.signal or signal.SIGINT) from None
    except BaseException as error:
        try:
            lifecycle.suspend()
        except TakenOver:
            # The first error came of the other process, which has cut this one off.
            raise
        except Exception as second:  # the first error counts
            log.debug("The sweep could not be suspended: %s", said(second))
        if isinstance(error, SeganRayError):
            raise SweepError(f"{error} Then go on: {command}") from None
        raise
