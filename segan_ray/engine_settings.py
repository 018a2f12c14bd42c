"""The environment variables that Ray, its processes and MLflow read, and why they are set.

Importing a module sets nothing. A command calls these functions before it imports an engine, since
engines read some of the variables when they are imported.
"""

from __future__ import annotations

import os
from typing import Final

RAY: Final = {
    # No anonymous statistics leave the machine.
    "RAY_USAGE_STATS_ENABLED": "0",
    # Newer behaviour that Ray otherwise warns of at every start.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Our tracking records trials; Ray's own CSV, JSON and TensorBoard files would double it.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # A sweep answers Ctrl-C itself: Tune would end its trials as if they were done.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # How many trainables may be starting at once. With Tune's default for searchers, 1, a trainable
    # that becomes free goes to a trial whose own is starting, and Tune then kills the latter.
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",
    # Ray would send the whole folder to its workers if the command was begun by "uv run".
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # How soon the controller sees a report or the end of training, in seconds.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # The C library of the processes that Ray starts asks Linux for pages of 2 MiB: a training step
    # frees its large tensors and would get the next ones page by page. Elsewhere it means nothing.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
RAY_ALWAYS: Final = {
    # Our trainables need this version, even if other programs set another.
    "RAY_TRAIN_V2_ENABLED": "1",
    # The newer of Tune's two printers ignores verbose=0; we print ourselves.
    "RAY_AIR_NEW_OUTPUT": "0",
}
ON_NODES: Final = (
    "GLIBC_TUNABLES", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S",
    "RAY_TRAIN_V2_ENABLED",
)  # fmt: skip
"""The variables that trainables and workers need, on every node."""
MLFLOW: Final = {
    # No progress bars between our lines, and no statistics that leave the machine.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # No addresses of runs on stdout, which is for our documents.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # By default a mistyped address costs four minutes of silent retries of every request.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
}


def prepare_ray() -> None:
    """Set Ray's variables in this process; the user's values stay, but for ``RAY_ALWAYS``."""
    for name, value in RAY.items():
        os.environ.setdefault(name, value)
    os.environ.update(RAY_ALWAYS)


def prepare_mlflow() -> None:
    """Set MLflow's variables in this process; the user's values stay."""
    for name, value in MLFLOW.items():
        os.environ.setdefault(name, value)
