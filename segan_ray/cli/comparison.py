"""``compare``: methods tuned under one budget and scored on the same patients."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segan_ray.cli.options import HomeFolder, Json, Store
from segan_ray.cli.terminal import show
from segan_ray.cli.training import Resume, named, now, resumable, store_card
from segan_ray.engine_settings import prepare_ray
from segan_ray.sizes import MOST_SEEDS

if TYPE_CHECKING:
    from segan_ray.search.results.trial_state import OnState
    from segan_ray.search.space.search_space import SearchSpace


class Equal(StrEnum):
    """What the trials of all arms have the same of."""

    EPOCHS = "epochs"
    SECONDS = "seconds"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(epilog="Example: segan-ray compare store --arms segan_vs_unet --page arms.html")(
        compare
    )


def compare(
    store: Store,
    arms: Annotated[
        str, typer.Option(help="An arms file, or the name of a shipped one: segan_vs_unet.")
    ],
    name: Annotated[str | None, typer.Option(help="The comparison's name.")] = None,
    equal: Annotated[
        Equal, typer.Option(help="What every arm's trials have the same of: epochs or seconds.")
    ] = Equal.EPOCHS,
    seeds: Annotated[
        int,
        typer.Option(min=1, max=MOST_SEEDS, help="How often each arm's best settings are trained."),
    ] = 5,
    page: Annotated[
        Path | None, typer.Option(help="Also write the page to this .html file.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Also write the JSON document to this file.")
    ] = None,
    resume: Resume = False,
    home: HomeFolder = None,
    as_json: Json = False,
) -> None:
    """Compare methods: each tuned, trained with several seeds, scored on test patients.

    Every arm gets as many trials of the same length, drawn by the same sampler. Differences are
    paired over patients; intervals are over patients and seeds.
    """
    from segan_ray.filesystem.atomic_files import check_folder, write_text
    from segan_ray.home import Home, check_name, resume_command
    from segan_ray.orchestration.cluster.address import check_reachable
    from segan_ray.search.space.arms_file import TIMING, load_arms
    from segan_ray.search.space.space_file import resolve_space

    for out in filter(None, (page, output)):
        check_folder(out)
    checked = load_arms(resolve_space(arms))
    compared = check_name(named(name, resume) or f"{checked.name}-{now()}")
    for arm in checked.spaces:
        check_name(f"{compared}-{arm}{TIMING}")  # the longest name of a sweep of it
    folds = dict.fromkeys(
        fold for space in checked.spaces.values() for fold in space.single_folds()
    )
    card = store_card(store, [*folds])
    where = Home.at(home)
    files = {"--page": page, "--output": output}
    options = (
        *("--arms", arms, "--name", compared, "--equal", equal.value, "--seeds", str(seeds)),
        *(word for option, file in files.items() if file for word in (option, str(file))),
    )
    again = resume_command(where, "compare", store, *options)
    check_reachable()
    prepare_ray()
    with resumable(compared, again):
        from segan_ray.cli.terminal.score_tables import show_arms
        from segan_ray.evaluation.comparison_page import render_comparison
        from segan_ray.workflows.compare import ComparisonPlan, compare_arms

        plan = ComparisonPlan(
            compared, checked, store, card, where, equal.value, seeds, again, resume
        )
        document = compare_arms(plan, _watch, _scoring, show.note)
    if page is not None:
        write_text(page, render_comparison(document))
    if output is not None:
        write_text(output, json.dumps(document, indent=1))
    if as_json:
        show.document(document)
    else:
        show_arms(document)


def _scoring(arm: str) -> AbstractContextManager[Callable[[str], None]]:
    return show.progress(f"Scoring {arm}", None)


@contextmanager
def _watch(name: str, space: SearchSpace, trials: int) -> Iterator[OnState]:
    from segan_ray.cli.terminal.live import live_view

    objective = space.objective
    with live_view(name, objective.metric, objective.mode, trials) as on_state:
        yield on_state
