"""``enqueue`` and ``set`` steer a sweep while it runs; ``stop --trial`` is with ``stop``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from segan_ray.cli.options import HomeFolder, Json, SweepName
from segan_ray.terminal import show

if TYPE_CHECKING:
    from segan_ray.workflows.steer import Asked


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command(epilog="Example: segan-ray enqueue my-sweep critic.depth=4 segmentor.lr=1e-3")(
        enqueue
    )
    app.command("set", epilog="Example: segan-ray set my-sweep max_concurrent=2 trials=80")(
        set_limits
    )


def enqueue(
    sweep: SweepName,
    settings: Annotated[list[str], typer.Argument(metavar="SETTING", help="E.g. critic.depth=4.")],
    home: HomeFolder = None,
    as_json: Json = False,
) -> None:
    """Let a sweep try these settings next; those left out are drawn."""
    from segan_ray.config import paths, read_assignments
    from segan_ray.home import Home
    from segan_ray.workflows.steer import enqueue as ask

    values = read_assignments(settings, paths(), "enqueue")
    what = f"'{sweep}' tries this as its next trial."
    tell(ask(Home.at(home), sweep, values), what, as_json)


def set_limits(
    sweep: SweepName,
    limits: Annotated[
        list[str],
        typer.Argument(metavar="LIMIT", help="One of trials, max_concurrent, hours, gpu_hours."),
    ],
    home: HomeFolder = None,
    as_json: Json = False,
) -> None:
    """Give a sweep other limits. Trials that have to make room wait and go on later."""
    from segan_ray.config import read_assignments
    from segan_ray.home import Home
    from segan_ray.search.study.study_budget import KEYS
    from segan_ray.workflows.steer import set_limits as ask

    values = read_assignments(limits, KEYS, "set")
    what = f"'{sweep}' has these limits from the end of the next epoch on."
    tell(ask(Home.at(home), sweep, values), what, as_json)


def tell(asked: Asked, what: str, as_json: bool) -> None:
    """Say what a request leads to, and when."""
    if as_json:
        show.document({"sweep": asked.sweep, "asked": dict(asked.content), "runs": asked.runs})
        return
    show.say(what)
    if not asked.runs:
        show.say(f"No process runs '{asked.sweep}' now: that counts from its next --resume on.")
    if asked.hint is not None:
        show.say(asked.hint)
