"""``train`` and ``tune``: one run, and a sweep of them."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segan_ray.cli import show
from segan_ray.cli.options import HomeFolder, Json, Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from segan_ray.orchestration.progress import OnEvent, TrialEvent
    from segan_ray.tracking.card import StoreCard


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command(epilog="Example: segan-ray train store --set critic.depth=4")(train)
    app.command(epilog="Example: segan-ray tune store --space search_spaces/demo.yaml")(tune)


def train(
    store: Store,
    config: Annotated[
        Path | None, typer.Option(help="A YAML file of settings; defaults fill the rest.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Settings to begin from: paper, or authors-code.")
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="One setting, e.g. critic.depth=4.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The run's name.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Ray Train workers (sets resources.workers).")
    ] = None,
    home: HomeFolder = None,
    as_json: Json = False,
) -> None:
    """Train one model with fixed settings."""
    from segan_ray.config import load_experiment
    from segan_ray.home import Home, check_name

    given = [*(assignments or []), *([f"resources.workers={workers}"] if workers else [])]
    experiment = load_experiment(config, given, preset)
    run_name = check_name(name or f"train-{_now()}")
    card = _card(store, (experiment.data.fold,))

    from segan_ray.orchestration.sweep import run_single

    result = run_single(experiment, run_name, store, card, Home.at(home), on_event=_narrator("run"))
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
    print(f"{run_name}: val/dice_mean {score:.3f} at epoch {result.best_epoch}")
    print(f"Checkpoint: {result.checkpoint}")


def tune(
    store: Store,
    space: Annotated[Path, typer.Option(help="A search-space file.")],
    name: Annotated[str | None, typer.Option(help="The sweep's name.")] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="How many trials (else the space's budget).")
    ] = None,
    home: HomeFolder = None,
    as_json: Json = False,
) -> None:
    """Search a space with a sweep of trials."""
    from segan_ray.home import Home, check_name
    from segan_ray.search.space import load_space

    checked = load_space(space)
    sweep = check_name(name or f"{checked.name}-{_now()}")
    card = _card(store, checked.folds())

    from segan_ray.orchestration.sweep import run_sweep
    from segan_ray.tracking.sweeps import read_sweep

    where = Home.at(home)
    show.note(f"Sweep {sweep}: {trials or checked.budget.trials} trials.")
    run_sweep(
        checked,
        space.read_text(encoding="utf-8"),
        sweep,
        store,
        card,
        where,
        trials=trials or checked.budget.trials,
        on_event=_narrator("trial"),
    )
    record = read_sweep(where, sweep)
    if as_json:
        show.document(record.document())
        return
    best = record.best
    if best is not None:
        print(f"Best of {sweep}: trial {best.trial}, {record.metric} {best.score:.3f}")
    print(f"Leaderboard: segan-ray trials {sweep}")


def _now() -> str:
    return datetime.now().strftime("%Y%m%d-%H%M%S")


def _card(store: str, folds: Sequence[int | None]) -> StoreCard:
    """Return what runs say of the store, once it is sure that every fold can be trained on."""
    from segan_ray.data.places import absolute, manifest_at
    from segan_ray.data.store import check_tunable
    from segan_ray.tracking.card import StoreCard

    manifest = manifest_at(store)
    for fold in folds:
        check_tunable(manifest, store, fold)
    patients: dict[str, int] = {split: len(members) for split, members in manifest.splits.items()}
    return StoreCard(absolute(store), manifest.fingerprint, patients)


def _narrator(what: str) -> OnEvent:
    """Return a function that tells a trial's events on stderr: epochs to terminals only."""
    watched = sys.stderr.isatty()

    def tell(event: TrialEvent) -> None:
        score = f", best {event.score:.3f}" if event.score is not None else ""
        reason = f" ({event.reason})" if event.reason else ""
        if event.status != "running":
            show.note(
                f"{what} {event.trial} {event.status} at epoch "
                f"{event.epoch}/{event.epochs}{score}{reason}"
            )
        elif watched:
            state = f"epoch {event.epoch}/{event.epochs}" if event.epoch else "started"
            show.note(f"{what} {event.trial} {state}{score}")

    return tell
