"""MLflow's own server in this process: quiet, for its owner alone, opening on our experiment.

MLflow's UI greets new users with pages for language models, an assistant and news. Our front page
is MLflow's with a script before it, which dismisses these greetings once per browser and opens a
view of the experiment. What the user chooses later stays.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import uvicorn
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from segan_ray.errors import TrackingError
from segan_ray.home import Home
from segan_ray.tracking.ui.access import OwnerOnly
from segan_ray.tracking.ui.confinement import Places, confine_experiments, confined

LOOPBACK: Final = "127.0.0.1"
ENVIRONMENT: Final = {
    # Background jobs serve MLflow's assistants for language models; each is a process.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
ALLOWED_HOSTS: Final = "MLFLOW_SERVER_ALLOWED_HOSTS"
OWN_HOSTS: Final = "127.0.0.1,127.0.0.1:*,localhost,localhost:*,[::1],[[]::1]:*"
"""Host names that no name server can redirect here, at any port, since tunnels use other ports.

MLflow's own list admits ``10.*``, which a host name in any domain can match.
"""
ASSISTANT: Final = "/ajax-api/3.0/mlflow/assistant"
NO_ASSISTANT: Final[Mapping[str, Mapping[str, Any]]] = {
    "config": {"providers": {}, "projects": {}, "remote_access_allowed": False},
    "providers": {"providers": [], "resolved": None, "gateway_vendor_options": {}},
}
"""The answer to MLflow's pages that ask which assistant is set up.

The assistant is off: it runs programs on its user's files, from messages it keeps in /tmp.
"""
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
GREETED: Final[Mapping[str, str]] = {
    "mlflow.workflowType_v1": json.dumps("machine_learning"),
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.detectIssues.guidanceShown_v1": "true",
    "mlflow.settings.telemetry.enabled_v1": "false",
    "_mlflow_model_registry_promo_modal_dismissed_v1": "true",
    "mlflow.telemetry.info.alert.dismissed_v1": "true",
}
"""The browser's storage of a user who has dismissed the greetings, by MLflow's names.

Other versions of MLflow ignore names that they do not know.
"""


def listen(port: int) -> socket.socket:
    """Take ``port`` on loopback.

    Raises:
        TrackingError: if the port is taken or cannot be used, with what to do.
    """
    taken = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # A port that a server closed a moment ago may be taken again.
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((LOOPBACK, port))
        taken.listen()
    except OSError as error:
        taken.close()
        reason = (
            "is taken by another program, perhaps another segan-ray ui"
            if error.errno == errno.EADDRINUSE
            else f"cannot be used ({error.strerror})"
        )
        raise TrackingError(
            f"Port {port} on {LOOPBACK} {reason}. Choose another: "
            f"segan-ray ui --port {port + 1 if port < 65535 else 5001}"
        ) from None
    return taken


def front_page(index: str, start: str) -> str:
    """Return MLflow's ``index`` page so that it opens on ``start`` (from its ``#`` on)."""
    script = (
        f"for (const [key, value] of Object.entries({json.dumps(GREETED)}))"
        " if (localStorage.getItem(key) === null) localStorage.setItem(key, value);"
        f" if (!location.hash) location.replace({json.dumps(start)});"
    ).replace("</", "<\\/")
    return index.replace("<head>", f"<head><script>{script}</script>", 1)


def run_server(
    home: Home,
    places: Places,
    taken: socket.socket,
    start: str,
    secret: str,
    when_ready: Callable[[], None],
) -> None:
    """Serve the home's records on ``taken`` until a signal, opening on ``start``.

    Only requests with ``secret`` are answered; only artifacts at ``places`` are read or written.
    """
    with confined(places):
        application = OwnerOnly(_application(home, places, start), secret, taken.getsockname()[1])
        # MLflow's start would delete old files of its assistant in a folder of /tmp. Any user may
        # have made that folder, even as a link to a folder of the user who starts this server.
        config = uvicorn.Config(application, log_level="warning", access_log=False, lifespan="off")
        server = _Server(config, when_ready)
        # Ctrl-C is the normal end of the server.
        try:
            asyncio.run(server.serve(sockets=[taken]))
        except KeyboardInterrupt:
            pass
        finally:
            taken.close()


class _Server(uvicorn.Server):
    """Calls ``when_ready`` once it answers."""

    def __init__(self, config: uvicorn.Config, when_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._when_ready = when_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._when_ready()


def _application(home: Home, places: Places, start: str) -> Any:
    """Return MLflow's server with our front page, for artifacts at ``places``."""
    # MLflow's server reads these while it is imported.
    os.environ.update(ENVIRONMENT)
    os.environ.setdefault(ALLOWED_HOSTS, OWN_HOSTS)
    from mlflow.server.constants import ARTIFACT_ROOT_ENV_VAR, BACKEND_STORE_URI_ENV_VAR

    os.environ[BACKEND_STORE_URI_ENV_VAR] = home.tracking_uri
    os.environ[ARTIFACT_ROOT_ENV_VAR] = home.artifacts.as_uri()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.server import app as pages
        from mlflow.server.fastapi_app import app
        from mlflow.server.handlers import _get_tracking_store

    confine_experiments(_get_tracking_store(), places)
    index = (Path(str(pages.static_folder)) / "index.html").read_text(encoding="utf-8")
    page = HTMLResponse(front_page(index, start), headers={"Cache-Control": "no-store"})

    off = PlainTextResponse("segan-ray ui serves records; MLflow's assistant is off.\n", 403)
    app.router.routes[:0] = [
        _always("/", page),
        *(_always(f"{ASSISTANT}/{end}", JSONResponse(NO_ASSISTANT[end])) for end in NO_ASSISTANT),
        _always(f"{ASSISTANT}/{{path:path}}", off, METHODS),
    ]
    return app


def _always(path: str, answer: Response, methods: Sequence[str] = ("GET",)) -> Route:
    async def endpoint(_: Request) -> Response:
        return answer

    return Route(path, endpoint, methods=methods)
