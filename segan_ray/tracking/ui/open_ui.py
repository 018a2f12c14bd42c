"""Serving the MLflow UI."""

from __future__ import annotations

from collections.abc import Callable

from segan_ray.errors import TrackingError
from segan_ray.home import Home
from segan_ray.redaction import mask
from segan_ray.tracking.client.connection import connect, experiment_id
from segan_ray.tracking.client.retries import said_in_words
from segan_ray.tracking.description.notes import describe_experiment
from segan_ray.tracking.description.views import SWEEPS, save_views, view_page
from segan_ray.tracking.ui.access import TOKEN, new_secret
from segan_ray.tracking.ui.confinement import places_of
from segan_ray.tracking.ui.server import LOOPBACK, listen, run_server


def serve_ui(home: Home, port: int, when_ready: Callable[[str], None]) -> None:
    """Serve MLflow's UI on loopback until Ctrl-C; ``when_ready`` is told its address.

    The address holds the secret that opens it.

    Raises:
        TrackingError: if records are on a server, which has a UI of its own, if they cannot be
            read, or if ``port`` is taken.
    """
    uri = home.tracking_uri
    client = connect(home)
    with said_in_words(client):
        experiment = experiment_id(client, home)
        describe_experiment(client, experiment)
        save_views(client, experiment, home)
        location = client.get_experiment(experiment).artifact_location
    start = view_page(experiment, SWEEPS)
    if uri.startswith(("http://", "https://")):
        raise TrackingError(
            f"Records are on {mask(uri)}, which has a UI. Open in a browser: "
            f"{mask(uri).rstrip('/')}/{start}"
        )
    secret = new_secret()
    address = f"http://{LOOPBACK}:{port}/?{TOKEN}={secret}"
    with listen(port) as taken:
        places = places_of(home, str(location))
        run_server(home, places, taken, start, secret, lambda: when_ready(address))
