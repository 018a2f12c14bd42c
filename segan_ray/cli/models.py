"""``promote``, ``rollback``, ``evaluate``, ``export``: from a leaderboard to a model, and out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segan_ray.cli import show
from segan_ray.cli.options import HomeFolder, Json, Store, SweepName

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command(epilog="Example: segan-ray promote demo-20260101-120000")(promote)
    app.command(epilog="Example: segan-ray rollback")(rollback)
    app.command(epilog="Example: segan-ray evaluate champion store --reference threshold")(evaluate)
    app.command(epilog="Example: segan-ray export champion exported --format onnx")(export)


def promote(
    sweep: SweepName,
    alias: Annotated[str, typer.Option(help="The registry alias to move.")] = "champion",
    non_inferior: Annotated[
        float | None,
        typer.Option(
            metavar="MARGIN",
            help="Promote too what is not worse by more than this Dice, such as 0.02.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Judge, but change nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Promote whatever the gate says; it is recorded.")
    ] = False,
    home: HomeFolder = None,
    as_json: Json = False,
) -> None:
    """Put the best checkpoint of a sweep through the gate and into the model registry."""
    from segan_ray.home import Home
    from segan_ray.tracking.promote import promote as run_gate

    result = run_gate(
        Home.at(home), sweep, alias=alias, non_inferior=non_inferior, dry_run=dry_run, force=force
    )
    if as_json:
        show.document(result.document())
        return
    trial, verdict = result.candidate, result.verdict
    optimistic = " (optimistic: judged on the patients that chose it)" if result.optimistic else ""
    would = "would be " if dry_run else ""
    print(f"Trial {trial.trial} of {sweep}: {would}{verdict.verdict}. {verdict.reason}{optimistic}")
    if result.version is not None:
        print(f"Registered as segan version {result.version}, alias {alias}")


def rollback(
    alias: Annotated[str, typer.Option(help="The registry alias to give back.")] = "champion",
    home: HomeFolder = None,
    as_json: Json = False,
) -> None:
    """Give an alias back to the version that had it before; a second time undoes the first."""
    from segan_ray.home import Home
    from segan_ray.tracking.aliases import rollback as give_back

    result = give_back(Home.at(home), alias)
    if as_json:
        show.document(result.document())
        return
    print(f"{alias} is segan version {result.restored} again; it was version {result.left}")


def evaluate(
    model: Annotated[
        str, typer.Argument(help="An alias, a models:/ or runs:/ URI, or a checkpoint folder.")
    ],
    store: Store,
    reference: Annotated[
        list[str] | None,
        typer.Option(help="A row to compare with: threshold, or NAME=MODEL. May be repeated."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Also write the JSON document to this file.")
    ] = None,
    home: HomeFolder = None,
    as_json: Json = False,
) -> None:
    """Score a model on the test patients, over whole volumes in the original grid."""
    from segan_ray.files import check_folder, write_text
    from segan_ray.home import Home
    from segan_ray.tracking.evaluate import evaluate as score_model

    if output is not None:
        check_folder(output)
    named = dict(_named(item) for item in reference or [])
    with show.progress("Scoring cases", 0) as done:
        document = score_model(Home.at(home), model, store, references=named, on_case=done)
    if output is not None:
        write_text(output, json.dumps(document, indent=1))
    if as_json:
        show.document(document)
        return
    patients = len({case["patient"] for case in document["cases"]})
    rows = {model: document["summary"], **document["references"]}
    regions = tuple(document["summary"])
    show.table(
        f"Test scores, {patients} patients: Dice with 95% interval, and HD95 in mm",
        ("", *regions, *(f"HD95 {region}" for region in regions)),
        ((name, *_cells(summary)) for name, summary in rows.items()),
    )


def export(
    model: Annotated[
        str, typer.Argument(help="An alias, a models:/ or runs:/ URI, or a checkpoint folder.")
    ],
    out: Annotated[Path, typer.Argument(help="The folder to write to.", metavar="OUT")],
    kind: Annotated[
        str, typer.Option("--format", help="onnx, or torch for a torch.export program.")
    ] = "onnx",
    home: HomeFolder = None,
    as_json: Json = False,
) -> None:
    """Write the network of a model as ONNX or torch.export program, with what surrounds it."""
    from segan_ray.evaluation.export import check_format, export_model
    from segan_ray.evaluation.model import load_model
    from segan_ray.home import Home
    from segan_ray.tracking.registry import fetched

    check_format(kind)
    with show.progress("Exporting", 1) as done, fetched(Home.at(home), model) as found:
        document = export_model(load_model(found.folder), out, kind)
        done(document["file"])
    if as_json:
        show.document(document)
        return
    print(f"{out / document['file']}: probabilities of prepared slices; model.json says how to")
    print("prepare them, and what the maps become.")


def _named(reference: str) -> tuple[str, str]:
    name, equals, model = reference.partition("=")
    return (name, model) if equals else (reference, reference)


def _cells(summary: Mapping[str, Any]) -> Iterator[str]:
    for scores in summary.values():
        low, high = scores["dice"]["ci95"]
        yield f"{scores['dice']['mean']:.3f} [{low:.3f}, {high:.3f}]"
    for scores in summary.values():
        yield f"{scores['hd95']['mean']:.1f}"
