"""``train`` and ``tune``: one run, and a sweep of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segan_ray.cli.options import HomeFolder, Json, Store
from segan_ray.sizes import MOST_HOURS, MOST_SEEDS, MOST_TRIALS, MOST_WORKERS
from segan_ray.terminal import show

if TYPE_CHECKING:
    from segan_ray.search.results.ranking import SweepRecord

Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with what an earlier process left, or begin.")
]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command(epilog="Example: segan-ray train store --set critic.depth=4")(train)
    app.command(epilog="Example: segan-ray tune store --space demo")(tune)


def train(
    store: Store,
    config: Annotated[
        Path | None, typer.Option(help="A YAML file of settings; defaults fill the rest.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Published settings to begin from, such as paper."),
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="One setting, e.g. critic.depth=4.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The run's name.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_WORKERS, help="Ray Train workers (sets resources.workers)."),
    ] = None,
    resume: Resume = False,
    home: HomeFolder = None,
    as_json: Json = False,
) -> None:
    """Train one model with fixed settings."""
    from segan_ray.api.sweeps import train as train_one
    from segan_ray.config import load_experiment
    from segan_ray.home import Home, resume_command

    given = [*(assignments or []), *([f"resources.workers={workers}"] if workers else [])]
    as_before = resume and config is None and preset is None and not given
    result = train_one(
        store,
        None if as_before else load_experiment(config, given, preset),
        name=name,
        resume=resume,
        home=home,
        resume_with=lambda run: resume_command(Home.at(home), "train", store, "--name", run),
        on_note=show.note,
    )
    if as_json:
        show.document(
            {
                "run": result.run,
                "epochs": result.epochs,
                "best": {"epoch": result.best_epoch, **result.best_scores},
                "checkpoint": str(result.checkpoint),
            }
        )
        return
    score = result.best_scores["val/dice_mean"]
    show.say(f"{result.name}: val/dice_mean {score:.3f} at epoch {result.best_epoch}")
    show.say(f"Checkpoint: {result.checkpoint}")


def tune(
    store: Store,
    space: Annotated[
        str, typer.Option(help="A search-space file, or the name of a shipped one, e.g. critic.")
    ],
    name: Annotated[str | None, typer.Option(help="The sweep's name.")] = None,
    trials: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_TRIALS, help="How many trials (else the space's budget)."),
    ] = None,
    hours: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=MOST_HOURS, help="After how many hours nothing trains any more."
        ),
    ] = None,
    gpu_hours: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=MOST_HOURS, help="The same, for hours times the GPUs that trials hold."
        ),
    ] = None,
    price_per_gpu_hour: Annotated[
        float | None, typer.Option(min=0, help="Say what the sweep costs, in any currency.")
    ] = None,
    resume: Resume = False,
    repeat_top: Annotated[
        int,
        typer.Option(
            min=0, max=MOST_SEEDS, help="Train the best K settings again with fresh seeds."
        ),
    ] = 0,
    seeds: Annotated[
        int, typer.Option(min=1, max=MOST_SEEDS, help="How many seeds --repeat-top takes.")
    ] = 3,
    home: HomeFolder = None,
    as_json: Json = False,
) -> None:
    """Search a space with a sweep of trials."""
    from segan_ray.api.sweeps import tune as search
    from segan_ray.home import Home, resume_command

    repeats = ("--repeat-top", str(repeat_top), "--seeds", str(seeds)) if repeat_top else ()
    price = price_per_gpu_hour
    priced = () if price is None else ("--price-per-gpu-hour", f"{price:g}")

    def again(sweep: str) -> str:
        options = ("--space", space, "--name", sweep, *repeats, *priced)
        return resume_command(Home.at(home), "tune", store, *options)

    record = search(
        store,
        space,
        name=name,
        trials=trials,
        hours=hours,
        gpu_hours=gpu_hours,
        price_per_gpu_hour=price_per_gpu_hour,
        resume=resume,
        repeat_top=repeat_top,
        seeds=seeds,
        home=home,
        resume_with=again,
        on_note=show.note,
    )
    if as_json:
        show.document(record.document())
    else:
        _say_best(record)


def _say_best(record: SweepRecord) -> None:
    best = record.best
    if best is None and any(trial.infeasible for trial in record.trials):
        show.say(f"No trial of {record.sweep} can win: those with a score are infeasible.")
    if best is not None:
        show.say(f"Best of {record.sweep}: trial {best.trial}, {record.metric} {best.score:.3f}")
    show.say(f"Leaderboard: segan-ray trials {record.sweep}")
