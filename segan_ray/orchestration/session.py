"""Joining a Ray cluster, or starting one on this machine for the time of a command."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

SETTINGS: Final = {
    # No anonymous statistics leave the machine.
    "RAY_USAGE_STATS_ENABLED": "0",
    # Newer behaviour that Ray otherwise warns of at every start.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Our tracking records trials; Ray's own CSV, JSON and TensorBoard files would double it.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # The newer of Tune's two printers ignores verbose=0; we print ourselves.
    "RAY_AIR_NEW_OUTPUT": "0",
    # How soon the controller sees a report or the end of training, in seconds.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
}

for _name, _value in SETTINGS.items():
    os.environ.setdefault(_name, _value)

import ray


@contextmanager
def ray_session() -> Iterator[None]:
    """Connect to ``RAY_ADDRESS``, or run a cluster of this machine's cores on loopback."""
    if ray.is_initialized():
        yield
        return
    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()
