"""``train`` and ``tune``: one run, and a sweep of them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segan_ray.cli.options import HomeFolder, Json, Store
from segan_ray.cli.terminal import show
from segan_ray.engine_settings import prepare_ray
from segan_ray.errors import Interrupted, SweepError
from segan_ray.sizes import MOST_HOURS, MOST_SEEDS, MOST_TRIALS, MOST_WORKERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from segan_ray.config import Experiment
    from segan_ray.home import Home
    from segan_ray.search.results.ranking import SweepRecord
    from segan_ray.search.space.search_space import SearchSpace
    from segan_ray.tracking.description.card import StoreCard

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
    from segan_ray.home import Home, check_name, resume_command
    from segan_ray.orchestration.cluster.address import check_reachable

    where = Home.at(home)
    run_name = check_name(named(name, resume) or f"train-{now()}")
    given = [*(assignments or []), *([f"resources.workers={workers}"] if workers else [])]
    experiment = _experiment(where, run_name, config, given, preset, resume=resume)
    card = store_card(store, (experiment.data.fold,))

    check_reachable()
    prepare_ray()
    with resumable(run_name, resume_command(where, "train", store, "--name", run_name)):
        from segan_ray.cli.terminal.live import live_run
        from segan_ray.orchestration.tune.one_trial import train_one

        with live_run(run_name, "val/dice_mean", experiment.training.epochs) as on_state:
            result = train_one(
                run_name, experiment, store, card, where, on_state, show.note, resume=resume
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
    show.say(f"{run_name}: val/dice_mean {score:.3f} at epoch {result.best_epoch}")
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
    from segan_ray.config import read_settings
    from segan_ray.home import Home, check_name, resume_command
    from segan_ray.orchestration.cluster.address import check_reachable
    from segan_ray.search.space.space_file import load_space, resolve_space

    file = resolve_space(space)
    checked = load_space(file)
    sweep_name = check_name(named(name, resume) or f"{checked.name}-{now()}")
    card, checked = card_for(store, checked)

    where = Home.at(home)
    repeats = ("--repeat-top", str(repeat_top), "--seeds", str(seeds)) if repeat_top else ()
    again = resume_command(where, "tune", store, "--space", space, "--name", sweep_name, *repeats)
    check_reachable()
    prepare_ray()
    with resumable(sweep_name, again):
        from segan_ray.cli.terminal.live import live_view
        from segan_ray.orchestration.tune.sweep import run_sweep
        from segan_ray.orchestration.tune.sweep_plan import Sweep
        from segan_ray.search.study.study_budget import Limits
        from segan_ray.tracking.reading.sweeps import read_sweep

        sweep = Sweep(
            sweep_name, checked, read_settings(file), store, card, where,
            again, Limits(trials, hours, gpu_hours), resume, repeat_top, seeds,
            price_per_gpu_hour,
        )  # fmt: skip
        total = (trials or checked.budget.trials) + repeat_top * seeds
        objective = checked.objective
        shown = (sweep_name, objective.metric, objective.mode, total)
        with live_view(*shown, price=price_per_gpu_hour) as on_state:
            run_sweep(sweep, on_state, show.note)
        with show.noting() as note:
            record = read_sweep(sweep.home, sweep_name, note)
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


@contextmanager
def resumable(name: str, again: str) -> Iterator[None]:
    """Say how to go on after Ctrl-C, even while Ray and MLflow are still being imported.

    Raises:
        Interrupted: for Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted.of(name, again, signal.SIGINT) from None


def named(name: str | None, resume: bool) -> str | None:
    """Return ``name``, which ``resume`` requires.

    Raises:
        SweepError: if it is missing.
    """
    if resume and name is None:
        raise SweepError("--resume needs the --name of what to go on with: segan-ray sweeps")
    return name


def _experiment(
    home: Home,
    name: str,
    config: Path | None,
    given: list[str],
    preset: str | None,
    *,
    resume: bool,
) -> Experiment:
    """Return the given settings, or those that a resumed run began with if none are given."""
    from segan_ray.config import load_experiment

    if resume and config is None and preset is None and not given:
        from segan_ray.orchestration.tune.one_trial import recorded_experiment

        before = recorded_experiment(home, name)
        if before is not None:
            return before
    return load_experiment(config, given, preset)


def now() -> str:
    """Return the time in the form that names of sweeps have."""
    return datetime.now().strftime("%Y%m%d-%H%M%S")


def store_card(store: str, folds: Sequence[int | None]) -> StoreCard:
    """Return the card of the store, after a check that every fold can be trained on."""
    from segan_ray.data.store.opened_store import check_tunable
    from segan_ray.data.store.remote_manifest import manifest_at
    from segan_ray.filesystem.locations import absolute
    from segan_ray.tracking.description.card import StoreCard

    manifest = manifest_at(store)
    for fold in folds:
        check_tunable(manifest, store, fold)
    patients: dict[str, int] = {split: len(members) for split, members in manifest.splits.items()}
    return StoreCard(absolute(store), manifest.fingerprint, patients, len(manifest.folds))


def card_for(store: str, space: SearchSpace) -> tuple[StoreCard, SearchSpace]:
    """Return the card of the store, and the space with as many folds as the store has.

    Raises:
        StoreError: if the space asks for folds that the store does not have.
    """
    card = store_card(store, ())
    if space.folds is not None:
        # One fold is asked for, so that a store without any says so.
        space = space.on_folds(card.folds or 1)
    return store_card(store, space.single_folds()), space
