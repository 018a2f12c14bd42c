"""``sweeps``, ``trials``, ``report``, ``ui`` show sweeps; ``stop``, ``delete`` end them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from segan_ray.cli.options import HomeFolder, Json, SweepName
from segan_ray.cli.steering import tell
from segan_ray.errors import SweepError, many
from segan_ray.filesystem.locations import is_page
from segan_ray.terminal import show

SAID_END: Final = {
    "hours": ", hours used up",
    "gpu_hours": ", GPU hours used up",
    "no_gain_for": ", no gain",
}  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command(epilog="Example: segan-ray sweeps --json")(sweeps)
    app.command(epilog="Example: segan-ray trials demo-20260101-120000")(trials)
    app.command(epilog="Example: segan-ray stop demo-20260101-120000")(stop)
    app.command(epilog="Example: segan-ray delete demo-20260101-120000")(delete)
    app.command(epilog="Example: segan-ray report demo-20260101-120000 report.html")(report)
    app.command(epilog="Example: segan-ray ui --port 5000")(ui)


def sweeps(home: HomeFolder = None, as_json: Json = False) -> None:
    """List every sweep, oldest first."""
    from segan_ray.home import Home
    from segan_ray.tracking.reading.sweeps import list_sweeps

    with show.noting() as note:
        records = list_sweeps(Home.at(home), note)
    if as_json:
        show.document({"sweeps": [sweep.summary() for sweep in records]})
        return
    if not records:
        show.say("No sweeps yet. Start one: segan-ray tune STORE --space demo")
        return
    columns = ("sweep", "status", "trials", "metric", "best", "created", "store")
    left_out = show.table(
        "Sweeps",
        columns,
        (
            (
                sweep.sweep,
                sweep.status + SAID_END.get(sweep.ended_by or "trials", ""),
                len(sweep.trials),
                sweep.metric,
                show.figure(sweep.best.score if sweep.best else None),
                # To the minute, in UTC as it is recorded.
                sweep.created[:16].replace("T", " "),
                sweep.store,
            )
            for sweep in records
        ),
        essential=5,
    )
    _tell(left_out)


def trials(sweep: SweepName, home: HomeFolder = None, as_json: Json = False) -> None:
    """Show the leaderboard of one sweep."""
    from segan_ray.home import Home
    from segan_ray.search.results.ranking import said_status
    from segan_ray.tracking.reading.sweeps import read_sweep

    with show.noting() as note:
        record = read_sweep(Home.at(home), sweep, note)
    if as_json:
        show.document(record.document())
        return
    paths = list(dict.fromkeys(path for trial in record.trials for path in trial.params))
    others = [metric for metric, _ in record.objectives if metric != record.metric]
    left_out = show.table(
        f"{record.sweep} ({record.status}): {record.metric}, {record.mode}",
        ("trial", "status", "epochs", "score", *others, *show.short_names(paths)),
        (
            (
                trial.trial,
                said_status(trial),
                trial.epochs,
                show.figure(trial.score),
                *(show.setting(trial.objectives.get(metric)) for metric in others),
                *(show.setting(trial.params.get(path)) for path in paths),
            )
            for trial in record.trials
        ),
        essential=4 + len(others),
    )
    _tell(left_out)
    if others:
        show.say(
            f"Pareto front: {', '.join(record.pareto)} (none is better than these in everything)"
        )
    for repeats in record.repeats:
        scores = ", ".join(show.figure(score) for score in repeats.scores)
        show.say(f"Fresh seeds of {repeats.trial}: mean {show.figure(repeats.mean)} ({scores})")
    if record.repeats and record.best is not None:
        show.say(f"Best by that mean: the settings of {record.repeats[0].trial}")
    for trial in record.trials:
        if trial.reason:
            show.say(f"Trial {trial.trial}: {trial.reason}")


def stop(
    sweep: SweepName,
    trial: Annotated[
        int | None, typer.Option(min=0, help="End this trial alone, at its epoch's end.")
    ] = None,
    home: HomeFolder = None,
    as_json: Json = False,
) -> None:
    """End a sweep or run: trials that are running end as stopped."""
    from segan_ray.home import Home
    from segan_ray.orchestration.tune.end_sweep import stop as end
    from segan_ray.workflows.steer import stop_trial

    if trial is not None:
        asked = stop_trial(Home.at(home), sweep, trial)
        tell(asked, f"Trial {trial:03d} of '{sweep}' ends with its epoch.", as_json)
        return
    ended = end(Home.at(home), sweep, show.note)
    if as_json:
        show.document({"sweep": sweep, "status": ended.status})
        return
    show.say(f"'{sweep}' {'had ended before' if ended.already else 'has ended'}: {ended.status}.")


def delete(
    sweep: SweepName,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: HomeFolder = None,
    as_json: Json = False,
) -> None:
    """Delete a sweep or run: its runs, checkpoints and study; never a registered model."""
    from segan_ray.home import Home
    from segan_ray.orchestration.tune.end_sweep import delete as remove
    from segan_ray.orchestration.tune.end_sweep import plan_deletion

    where = Home.at(home)
    goes = plan_deletion(where, sweep, show.note)
    _confirm(goes.sentence(), yes)
    gone = remove(where, sweep, show.note, goes)
    if as_json:
        show.document(
            {
                "sweep": sweep,
                "deleted": {
                    "runs": gone.runs,
                    "folder": gone.folder,
                    "study": goes.study,
                    "checkpoint_bytes": goes.checkpoint_bytes,
                },
                "kept": [asdict(run) for run in gone.kept],
                "out_of_reach": list(goes.out_of_reach),
            }
        )
        return
    show.say(
        f"Deleted '{sweep}': {many(gone.runs, 'run')}{' and its study' if goes.study else ''}."
    )
    for left in goes.out_of_reach:
        show.say(f"Not deleted: {left}.")
    for run in gone.kept:
        aliases = f" ({', '.join(run.aliases)})" if run.aliases else ""
        trial = f" of trial {run.trial}" if run.trial else ""
        show.say(f"Kept run {run.run}{trial}: segan version {run.version}{aliases} is made of it.")
    if gone.kept:
        show.say(f"The name '{sweep}' stays taken while that is so.")


def _confirm(what: str, yes: bool) -> None:
    """Ask whether to delete, unless ``yes``.

    Raises:
        SweepError: if stdin is no terminal, or the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise SweepError(f"{what} Nobody is there to ask whether to: say --yes.")
    if not typer.confirm(f"{what} Delete that?", err=True):
        raise SweepError("Nothing was deleted.")


def report(
    names: Annotated[
        list[str],
        typer.Argument(
            help="The sweep, or several to set side by side; then the page to write.",
            metavar="SWEEP... [OUT.html]",
        ),
    ],
    home: HomeFolder = None,
) -> None:
    """Write a sweep as one self-contained page, or several sweeps side by side.

    Without OUT.html the page is named after the sweeps and lies in the current folder.
    """
    from segan_ray.evaluation.report import write_report
    from segan_ray.home import Home
    from segan_ray.workflows.side_by_side import write_side_by_side
    from segan_ray.workflows.write_report import collect_report

    sweeps, out = _sweeps_and_page(names)
    with show.noting() as note:
        if len(sweeps) == 1:
            write_report(collect_report(Home.at(home), sweeps[0], note), out)
        else:
            write_side_by_side(Home.at(home), sweeps, out, note)
    show.say(f"Report: {out}")


def _sweeps_and_page(names: Sequence[str]) -> tuple[list[str], Path]:
    """Return the sweeps and the page that the arguments of ``report`` name."""
    *before, last = names
    named = is_page(Path(last))
    sweeps = list(dict.fromkeys(before if named else names))
    if not sweeps:
        raise SweepError(f"Of which sweep? Give its name: segan-ray report SWEEP {last}")
    return sweeps, Path(last) if named else Path(f"{'-and-'.join(sweeps)}.html")


def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on loopback.")] = 5000,
    home: HomeFolder = None,
) -> None:
    """Open the MLflow UI on the right store, for you alone, until Ctrl-C.

    It listens on loopback, and answers only with the token in the address that it prints.
    """
    from segan_ray.home import Home
    from segan_ray.tracking.ui.open_ui import serve_ui

    where = Home.at(home)
    serve_ui(where, port, lambda at: show.invite(f"MLflow UI of {where.folder}", at, "Ctrl-C ends"))


def _tell(left_out: Sequence[str]) -> None:
    if left_out:
        show.say(
            f"Not shown, the terminal is narrow: {', '.join(left_out)}. --json has everything."
        )
