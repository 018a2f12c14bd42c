"""Leaving nothing running in the records when a sweep is cut off."""

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
    """Leave nothing running in the records if the block does not come to its end.

    Raises:
        Interrupted: for a signal, saying how to go on.
        TakenOver: if the records are another process's by now; they are left as they are.
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
            # What went wrong did so since the other process cut this one off.
            raise
        except Exception as second:  # what went wrong first is what counts
            log.debug("The sweep could not be suspended: %s", said(second))
        if isinstance(error, SeganRayError):
            raise SweepError(f"{error} Then go on: {command}") from None
        raise
