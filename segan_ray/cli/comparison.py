"""``compare``: methods tuned under one budget and scored on the same patients."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from segan_ray.cli.options import HomeFolder, Json, Store
from segan_ray.cli.training import Resume
from segan_ray.sizes import MOST_SEEDS
from segan_ray.terminal import show


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
    from segan_ray.api.sweeps import compare as compare_arms
    from segan_ray.evaluation.comparison_page import render_comparison
    from segan_ray.filesystem.atomic_files import check_folder, write_text
    from segan_ray.home import Home, resume_command
    from segan_ray.terminal.score_tables import show_arms

    for out in filter(None, (page, output)):
        check_folder(out)
    files = {"--page": page, "--output": output}

    def again(comparison: str) -> str:
        options = (
            *("--arms", arms, "--name", comparison, "--equal", equal.value, "--seeds", str(seeds)),
            *(word for option, file in files.items() if file for word in (option, str(file))),
        )
        return resume_command(Home.at(home), "compare", store, *options)

    document = compare_arms(
        store,
        arms,
        name=name,
        equal=equal.value,
        seeds=seeds,
        resume=resume,
        home=home,
        resume_with=again,
        on_note=show.note,
    )
    if page is not None:
        write_text(page, render_comparison(document))
    if output is not None:
        write_text(output, json.dumps(document, indent=1))
    if as_json:
        show.document(document)
    else:
        show_arms(document)
