"""Serving the MLflow UI."""

from __future__ import annotations

import subprocess
import sys

from segan_ray.errors import TrackingError
from segan_ray.home import Home
from segan_ray.tracking.client import connect


def serve_ui(home: Home, port: int) -> int:
    """Run MLflow's server on loopback until it is ended; return its exit code.

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
    with subprocess.Popen(command) as server:
        try:
            return server.wait()
        except KeyboardInterrupt:
            server.terminate()
            return 0
