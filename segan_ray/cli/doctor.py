"""``doctor``: is this machine, or this cluster, fit for sweeps?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from segan_ray.cli.options import HomeFolder, Json
from segan_ray.engine_settings import prepare_ray
from segan_ray.errors import ClusterError
from segan_ray.terminal import show

if TYPE_CHECKING:
    from segan_ray.home import Home
    from segan_ray.orchestration.cluster.findings import Check

EXAMPLE = "Example: segan-ray doctor s3://bucket/store --address 10.0.0.1:6379"


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command(epilog=EXAMPLE)(doctor)


def doctor(
    store: Annotated[
        str | None,
        typer.Argument(help="A prepared store that every node must read.", metavar="[STORE]"),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="The cluster: HOST:PORT of its head, or its dashboard http://… (then as a job). "
            "Default RAY_ADDRESS, or this machine alone.",
        ),
    ] = None,
    home: HomeFolder = None,
    as_json: Json = False,
) -> None:
    """Look from every node: versions, GPUs, storage, records, clocks, disks, network."""
    from segan_ray.filesystem.locations import absolute
    from segan_ray.home import Home

    location = None if store is None else absolute(store)
    checks = []
    for check in _checks(address, Home.at(home), location):
        checks.append(check)
        if not as_json:
            show.say(f"{'ok ' if check.ok else 'BAD'}  {check.sentence()}")
    bad = sum(not check.ok for check in checks)
    if as_json:
        show.document({"ok": not bad, "checks": [check.document() for check in checks]})
    if bad:
        raise ClusterError(f"{bad} of {len(checks)} checks failed.")


def _checks(address: str | None, home: Home, store: str | None) -> Iterator[Check]:
    if address is not None and address.startswith(("http://", "https://")):
        from segan_ray.orchestration.jobs.doctor_job import examine_by_job

        yield from examine_by_job(address, home, store)
        return
    if address is not None:
        os.environ["RAY_ADDRESS"] = address
    prepare_ray()
    from segan_ray.orchestration.cluster.doctor import examine
    from segan_ray.orchestration.cluster.session import ray_session

    with ray_session():
        yield from examine(home, store)
