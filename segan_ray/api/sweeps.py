"""Training, searching and comparing, and reading what came of it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segan_ray.api.models import home_at
from segan_ray.api.notes import Note, log_note
from segan_ray.engine_settings import prepare_mlflow, prepare_ray
from segan_ray.errors import Interrupted, StoreError, SweepError, many
from segan_ray.home import Home, check_name
from segan_ray.terminal.show import progress as bar

if TYPE_CHECKING:
    import pandas as pd

    from segan_ray.config import Experiment
    from segan_ray.orchestration.tune.one_trial import TrainResult
    from segan_ray.search.results.ranking import SweepRecord
    from segan_ray.search.results.trial_state import OnState, SweepEvent
    from segan_ray.search.space.search_space import SearchSpace
    from segan_ray.tracking.description.card import StoreCard

ResumeWith = Callable[[str], str]
"""Returns what goes on with the sweep of a name: a command, or a call."""


def train(
    store: str | Path,
    experiment: Experiment | None = None,
    *,
    name: str | None = None,
    resume: bool = False,
    home: str | Path | None = None,
    resume_with: ResumeWith | None = None,
    progress: bool = True,
    on_note: Note = log_note,
) -> TrainResult:
    """Train one model with fixed settings, by default those of ``Experiment()``.

    ``resume`` goes on with the run of that ``name``, if there is one; without an ``experiment`` it
    keeps the settings that it began with.

    >>> small = api.Experiment.model_validate({
    ...     "segmentor": {"network": "segan", "base_width": 4, "depth": 2},
    ...     "critic": {"kind": "none"},
    ...     "training": {"epochs": 2, "steps_per_epoch": 3, "batch_size": 4, "crop": 32},
    ... })
    >>> api.train("store", small, name="small", progress=False).epochs
    2

    Raises:
        SweepError: if the name is taken, the run began with other settings, the cluster cannot
            hold it, or it failed.
        StoreError: if the store cannot be trained on.
        TrackingError: if its run cannot be recorded.
        Interrupted: if a signal asked for its end.
    """
    where, named = home_at(home), new_name(name, "train", resume=resume)
    experiment = experiment or _known_experiment(where, named, resume=resume)
    card = store_card(store, (experiment.data.fold,))
    again = (resume_with or partial(_in_python, "train", store))(named)
    _prepare_engines()
    with resumable(named, again):
        from segan_ray.orchestration.tune.one_trial import train_one
        from segan_ray.terminal.live import live_run

        shown = partial(live_run, named, "val/dice_mean", experiment.training.epochs)
        with _watched(shown, drawn=progress) as on_state:
            return train_one(
                named, experiment, store, card, where, on_state, on_note,
                resume=resume, resume_with=again,
            )  # fmt: skip


def tune(
    store: str | Path,
    space: SearchSpace | str | Path,
    *,
    name: str | None = None,
    trials: int | None = None,
    hours: float | None = None,
    gpu_hours: float | None = None,
    price_per_gpu_hour: float | None = None,
    resume: bool = False,
    repeat_top: int = 0,
    seeds: int = 3,
    home: str | Path | None = None,
    resume_with: ResumeWith | None = None,
    progress: bool = True,
    on_note: Note = log_note,
) -> SweepRecord:
    """Search a space with a sweep of trials, and return the sweep with its trials, best first.

    ``space`` is one built in code, a space file, or the name of a shipped one. ``trials``,
    ``hours`` and ``gpu_hours`` replace those of its budget. The settings of the ``repeat_top`` best
    trials are trained again with ``seeds`` fresh seeds.

    >>> sweep = api.tune("store", "smoke", name="first", trials=2, progress=False)
    >>> sweep.status, len(sweep.trials), sweep.best.score > 0
    ('finished', 2, True)

    Raises:
        ConfigError: if the space cannot be searched, with every problem.
        SweepError: if the name is taken, or no trial fits into the cluster.
        StoreError: if the store cannot be trained on.
        TrackingError: if its runs cannot be recorded.
        Interrupted: if a signal asked for its end; the sweep can be resumed.
    """
    checked, text = _checked(space)
    where, named = home_at(home), new_name(name, checked.name, resume=resume)
    card, checked = card_for(store, checked)
    again = (resume_with or partial(_in_python, "tune", store))(named)
    _prepare_engines()
    with resumable(named, again):
        from segan_ray.orchestration.tune.sweep import run_sweep
        from segan_ray.orchestration.tune.sweep_plan import Sweep
        from segan_ray.search.study.study_budget import Limits
        from segan_ray.terminal.live import live_view
        from segan_ray.tracking.reading.sweeps import read_sweep as read

        limits = Limits(trials, hours, gpu_hours)
        sweep = Sweep(
            named, checked, text, store, card, where, again, limits, resume, repeat_top, seeds,
            price_per_gpu_hour,
        )  # fmt: skip
        total = (trials or checked.budget.trials) + repeat_top * seeds
        objective = checked.objective
        shown = partial(live_view, named, objective.metric, objective.mode, total)
        with _watched(partial(shown, price=price_per_gpu_hour), drawn=progress) as on_state:
            run_sweep(sweep, on_state, on_note)
        return read(where, named, on_note)


def compare(
    store: str | Path,
    arms: Mapping[str, Any] | str | Path,
    *,
    name: str | None = None,
    equal: Literal["epochs", "seconds"] = "epochs",
    seeds: int = 5,
    resume: bool = False,
    home: str | Path | None = None,
    resume_with: ResumeWith | None = None,
    progress: bool = True,
    on_note: Note = log_note,
) -> dict[str, Any]:
    """Compare methods: each tuned, trained with several seeds, scored on the test patients.

    ``arms`` is an arms file, the name of a shipped one, or what such a file holds. Returns the
    ``compare`` document.

    >>> arms = {
    ...     "name": "depths",
    ...     "base": {
    ...         "segmentor": {"network": "segan", "base_width": 4, "depth": 2},
    ...         "critic": {"base_width": 4, "depth": 1},
    ...         "training": {"epochs": 2, "steps_per_epoch": 3, "batch_size": 4, "crop": 32},
    ...     },
    ...     "arms": {"one": {}, "two": {"base": {"critic": {"depth": 2}}}},
    ... }
    >>> document = api.compare("store", arms, seeds=1, progress=False)
    >>> [arm["arm"] for arm in document["arms"]], len(document["differences"])
    (['one', 'two'], 1)

    Raises:
        ConfigError: if the arms cannot be compared, with every problem.
        SweepError, StoreError, TrackingError, Interrupted: as ``tune``.
    """
    from segan_ray.search.space.arms_file import TIMING, build_arms, load_arms
    from segan_ray.search.space.space_file import resolve_space

    if isinstance(arms, Mapping):
        checked = build_arms(arms)
    else:
        checked = load_arms(resolve_space(str(arms)))
    where, named = home_at(home), new_name(name, checked.name, resume=resume)
    for arm in checked.spaces:
        check_name(f"{named}-{arm}{TIMING}")  # the longest name of a sweep of it
    asked = (fold for space in checked.spaces.values() for fold in space.single_folds())
    card = store_card(store, [*dict.fromkeys(asked)])
    again = (resume_with or partial(_in_python, "compare", store))(named)
    _prepare_engines()
    with resumable(named, again):
        from segan_ray.workflows.compare import ComparisonPlan, compare_arms

        plan = ComparisonPlan(named, checked, str(store), card, where, equal, seeds, again, resume)
        return compare_arms(
            plan, partial(_watched_arm, progress), partial(_scoring, progress), on_note
        )


def read_sweep(sweep: str, *, home: str | Path | None = None) -> pd.DataFrame:
    """Return the trials of a sweep, best first, with a column for each setting that was drawn.

    Columns: trial, status, epochs, score (the first objective at the best epoch), infeasible,
    repeat_of, reason, mlflow_run; then the objectives if there are several, and the settings by
    their dotted paths.

    >>> table = api.read_sweep("first")
    >>> len(table), bool(table["score"].is_monotonic_decreasing), "critic.depth" in table
    (2, True, True)

    Raises:
        SweepError: if no sweep has that name.
        TrackingError: if the store of runs cannot be reached.
    """
    prepare_mlflow()
    import pandas as pd

    from segan_ray.tracking.reading.sweeps import read_sweep as read

    record = read(home_at(home), sweep, log_note)
    first = ("trial", "status", "epochs", "score", "infeasible", "repeat_of", "reason",
             "mlflow_run")  # fmt: skip
    rows = [
        {name: getattr(trial, name) for name in first} | dict(trial.objectives) | dict(trial.params)
        for trial in record.trials
    ]
    return pd.DataFrame(rows, columns=None if rows else [*first])


def new_name(name: str | None, kind: str, *, resume: bool) -> str:
    """Return ``name``, or one of that kind with the time; ``resume`` requires a name.

    Raises:
        SweepError: if it is missing, or cannot name a sweep.
    """
    if resume and name is None:
        raise SweepError("--resume needs the --name of what to go on with: segan-ray sweeps")
    return check_name(name or f"{kind}-{datetime.now():%Y%m%d-%H%M%S}")


def store_card(store: str | Path, folds: Sequence[int | None]) -> StoreCard:
    """Return the card of the store, after a check that every fold can be trained on."""
    from segan_ray.data.store.opened_store import check_tunable
    from segan_ray.data.store.remote_manifest import manifest_at
    from segan_ray.filesystem.locations import absolute
    from segan_ray.tracking.description.card import StoreCard

    manifest = manifest_at(str(store))
    for fold in folds:
        check_tunable(manifest, str(store), fold)
    patients: dict[str, int] = {split: len(members) for split, members in manifest.splits.items()}
    return StoreCard(absolute(store), manifest.fingerprint, patients, len(manifest.folds))


def card_for(store: str | Path, space: SearchSpace) -> tuple[StoreCard, SearchSpace]:
    """Return the card of the store, and the space with as many folds as the store has.

    Raises:
        StoreError: if the space asks for folds that the store does not have.
    """
    card = store_card(store, ())
    if space.folds is not None:
        asked = max(2, card.folds) if space.folds == "all" else space.folds
        if asked > card.folds:
            raise StoreError(
                f"The store {store} has {many(card.folds, 'fold')}, and the space asks for "
                f"folds: {space.folds}. Prepare a store with --folds {max(5, asked)}, or leave "
                "folds out."
            )
        space = space.on_folds(card.folds)
    return store_card(store, space.single_folds()), space


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


def _checked(space: SearchSpace | str | Path) -> tuple[SearchSpace, str]:
    """Return a space that can be searched, and its text as a file."""
    from segan_ray.config import read_settings
    from segan_ray.search.space.space_file import check_space, load_space, resolve_space, written

    if isinstance(space, str | Path):
        file = resolve_space(str(space))
        return load_space(file), read_settings(file)
    return check_space(space), written(space)


def _known_experiment(home: Home, name: str, *, resume: bool) -> Experiment:
    """Return the settings that a resumed run began with, or the defaults."""
    from segan_ray.config import Experiment

    if resume:
        from segan_ray.orchestration.tune.one_trial import recorded_experiment

        before = recorded_experiment(home, name)
        if before is not None:
            return before
    return Experiment()


def _prepare_engines() -> None:
    from segan_ray.orchestration.cluster.address import check_reachable

    check_reachable()
    prepare_ray()
    prepare_mlflow()


def _in_python(function: str, store: str | Path, name: str) -> str:
    """Return the call that goes on with a sweep; what else was given is given again."""
    return f"api.{function}({str(store)!r}, …, name={name!r}, resume=True)"


def _watched(
    view: Callable[[], AbstractContextManager[OnState]], *, drawn: bool
) -> AbstractContextManager[OnState]:
    return view() if drawn else nullcontext(_ignore)


def _ignore(event: SweepEvent) -> None:
    """Draw nothing."""


@contextmanager
def _watched_arm(drawn: bool, name: str, space: SearchSpace, trials: int) -> Iterator[OnState]:
    from segan_ray.terminal.live import live_view

    objective = space.objective
    view = partial(live_view, name, objective.metric, objective.mode, trials)
    with _watched(view, drawn=drawn) as on_state:
        yield on_state


def _scoring(drawn: bool, arm: str) -> AbstractContextManager[Callable[[str], None]]:
    return bar(f"Scoring {arm}", None, drawn=drawn)
