"""``submit``: ``tune`` and ``train`` as Ray Jobs on a cluster."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from segan_ray.cli.options import Json
from segan_ray.errors import ClusterError, Interrupted
from segan_ray.redaction import mask
from segan_ray.terminal import show

if TYPE_CHECKING:
    from segan_ray.orchestration.jobs.ray_jobs import Cluster, Job

EXAMPLE = (
    "Example: segan-ray submit --address http://head:8265 -- tune s3://bucket/store --space critic"
)


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command(epilog=EXAMPLE)(submit)


def submit(
    command: Annotated[
        list[str] | None, typer.Argument(help="After --: tune … or train …", metavar="-- COMMAND")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            envvar=["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"],
            help="The cluster's dashboard, e.g. http://head:8265.",
        ),
    ] = None,
    package: Annotated[
        bool,
        typer.Option(
            "--package",
            help="Send this segan-ray's code along (else the nodes' own, of the same version).",
        ),
    ] = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Return once the cluster has the job.")
    ] = False,
    listed: Annotated[bool, typer.Option("--list", help="List the jobs of segan-ray.")] = False,
    follow: Annotated[
        str | None, typer.Option(metavar="JOB|SWEEP", help="Show a job's log until it ends.")
    ] = None,
    stop: Annotated[
        str | None, typer.Option(metavar="JOB|SWEEP", help="End a job; its sweep can be resumed.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run tune or train as a Ray Job on a cluster, and follow it.

    The job goes on when this command ends. A search space or --config file travels along; the
    store and the home are read where the cluster is. Passwords never travel: set them in the
    environment of the cluster's nodes.
    """
    _one_of(bool(command), listed, follow is not None, stop is not None)
    from segan_ray.orchestration.jobs.ray_jobs import Cluster

    if listed:
        _list(Cluster.at(address), as_json)
    elif stop is not None:
        cluster = Cluster.at(address)
        _end(cluster, cluster.job(stop), as_json)
    elif follow is not None:
        cluster = Cluster.at(address)
        _follow(cluster, cluster.job(follow), as_json)
    else:
        _submit(command or [], address, package, no_wait, as_json)


def _one_of(*given: bool) -> None:
    if sum(given) != 1:
        raise typer.BadParameter("Say one thing: a command after --, --list, --follow or --stop.")


def _submit(
    command: list[str], address: str | None, package: bool, no_wait: bool, as_json: bool
) -> None:
    from segan_ray.cli.packing import pack
    from segan_ray.orchestration.jobs.ray_jobs import Cluster

    spec = pack(command, package, show.note)
    cluster = Cluster.at(address)
    job = cluster.submit(spec)
    show.note(f"Submitted {job.job}.")
    if not no_wait:
        _follow(cluster, job, as_json)
    elif as_json:
        show.document(job.document())
    else:
        show.say(_handles(cluster, job))


def _follow(cluster: Cluster, job: Job, as_json: bool) -> None:
    """Show the log until the job has ended, then its status.

    Raises:
        ClusterError: if the job did not succeed.
        Interrupted: if Ctrl-C ended this, but not the job.
    """
    import signal

    from segan_ray.orchestration.jobs.job_logs import follow

    stream = sys.stderr if as_json else sys.stdout
    try:
        job = follow(cluster, job, lambda piece: show.passed_on(piece, stream))
    except KeyboardInterrupt:
        raise Interrupted(f"\n{job.job} goes on. {_handles(cluster, job)}", signal.SIGINT) from None
    if as_json:
        show.document(job.document())
    if job.status != "SUCCEEDED":
        raise ClusterError(f"{job.job}: {job.status}. {job.message}{_go_on(job)}")
    show.note(f"{job.job}: {job.status}.")


def _end(cluster: Cluster, job: Job, as_json: bool) -> None:
    already = job.ended
    job = cluster.stop(job, show.note)
    if as_json:
        show.document(job.document())
        return
    show.say(
        f"{job.job} {'had ended before' if already else 'has ended'}: {job.status}.{_go_on(job)}"
    )


def _list(cluster: Cluster, as_json: bool) -> None:
    jobs = cluster.jobs()
    if as_json:
        show.document({"jobs": [job.document() for job in jobs]})
        return
    if not jobs:
        show.say("No jobs of segan-ray on this cluster.")
        return
    show.table(
        f"Jobs at {mask(cluster.address)}",
        ("job", "sweep", "status", "started"),
        (
            (job.job, job.sweep, job.status, f"{job.started:%Y-%m-%d %H:%M}" if job.started else "")
            for job in jobs
        ),
    )


def _handles(cluster: Cluster, job: Job) -> str:
    return (
        f"Follow it: {cluster.command('--follow', job.job)}\n"
        f"End it: {cluster.command('--stop', job.job)}"
    )


def _go_on(job: Job) -> str:
    return f"\nGo on: {job.again}" if job.again and job.status != "SUCCEEDED" else ""
