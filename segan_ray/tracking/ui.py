"""Serving the MLflow UI."""

from __future__ import annotations

import os
import sys
from typing import Final, NoReturn

from segan_ray.errors import TrackingError
from segan_ray.home import Home
from segan_ray.tracking.client import connect

QUIET: Final = {
    # Background jobs serve MLflow's assistants for language models; each is a process.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def serve_ui(home: Home, port: int) -> NoReturn:
    """Become MLflow's server, on loopback; does not return.

    Raises:
        TrackingError: if records are on a server, which has a UI of its own.
    """
    uri = home.tracking_uri
    if uri.startswith(("http://", "https://")):
        raise TrackingError(f"Records are on {uri}: open that address in a browser.")
    connect(home)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri]
    command += ["--default-artifact-root", home.artifacts.as_uri()]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # In place of this process, so that whoever ends it ends the server and its workers.
    os.execve(command[0], command, {**os.environ, **QUIET})
