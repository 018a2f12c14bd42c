"""``promote``, ``rollback``, ``evaluate``, ``predict`` and ``export``: from a sweep to use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segan_ray.cli.options import HomeFolder, Json, Layout, Store, SweepName
from segan_ray.errors import many
from segan_ray.terminal import show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from segan_ray.evaluation.inference.prediction import Prediction
    from segan_ray.workflows.evaluate import Evaluation
    from segan_ray.workflows.promote import Promotion

ModelName = Annotated[
    str,
    typer.Argument(
        help="An alias, a run of train, a models:/ or runs:/ URI, or a checkpoint folder.",
        metavar="MODEL",
    ),
]
Against = Annotated[
    list[str] | None,
    typer.Option(help="Another model to score and compare with. May be repeated."),
]
Reference = Annotated[
    list[str] | None,
    typer.Option(help="A row to compare with: threshold, or NAME=MODEL. May be repeated."),
]
TestSplit = Annotated[
    Path | None,
    typer.Option(help="YAML or JSON whose list 'test' says who is scored, whatever the split."),
]
LesionWise = Annotated[
    bool, typer.Option("--lesion-wise", help="Also score lesion by lesion, as BraTS 2023 does.")
]
CaseTable = Annotated[
    Path | None,
    typer.Option(help="Also write the scores of each case to this .csv or .parquet file."),
]
DocumentFile = Annotated[
    Path | None, typer.Option(help="Also write the JSON document to this file.")
]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command(epilog="Example: segan-ray promote demo-20260101-120000")(promote)
    app.command(epilog="Example: segan-ray rollback")(rollback)
    app.command(epilog="Example: segan-ray evaluate champion store --reference threshold")(evaluate)
    app.command(epilog="Example: segan-ray predict champion data labels")(predict)
    app.command(epilog="Example: segan-ray export champion exported --format onnx")(export)


def promote(
    sweep: SweepName,
    alias: Annotated[str, typer.Option(help="The registry alias to move.")] = "champion",
    ensemble: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Average the probabilities of the N best trials."),
    ] = 1,
    non_inferior: Annotated[
        float | None,
        typer.Option(
            metavar="MARGIN",
            help="Promote too what is not worse by more than this Dice, such as 0.02.",
        ),
    ] = None,
    flips: Annotated[
        bool,
        typer.Option("--flips", help="Average over mirrored slices, in twice the time."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Judge, but promote nothing; it counts as a try.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Promote whatever the gate says; it is recorded.")
    ] = False,
    home: HomeFolder = None,
    as_json: Json = False,
) -> None:
    """Put the best checkpoint of a sweep through the gate and into the model registry.

    Each try on the same gate patients has to be surer than the one before.
    """
    from segan_ray.api.models import promote as run_gate

    with show.noting() as note:
        result = run_gate(
            sweep,
            alias=alias,
            ensemble=ensemble,
            non_inferior=non_inferior,
            flips=flips,
            dry_run=dry_run,
            force=force,
            home=home,
            on_note=note,
        )
    if as_json:
        show.document(result.document())
    else:
        _show_promotion(result, sweep, alias)


def rollback(
    alias: Annotated[str, typer.Option(help="The registry alias to give back.")] = "champion",
    home: HomeFolder = None,
    as_json: Json = False,
) -> None:
    """Give an alias back to the version that had it before; a second time undoes the first."""
    from segan_ray.home import Home
    from segan_ray.tracking.registry.aliases import rollback as give_back

    result = give_back(Home.at(home), alias)
    if as_json:
        show.document(result.document())
        return
    show.say(f"{alias} is segan version {result.restored} again; it was version {result.left}")


def evaluate(
    model: ModelName,
    store: Store,
    against: Against = None,
    reference: Reference = None,
    split_file: TestSplit = None,
    lesion_wise: LesionWise = False,
    cases: CaseTable = None,
    output: DocumentFile = None,
    home: HomeFolder = None,
    as_json: Json = False,
) -> None:
    """Score a model on the test patients, over whole volumes in the original grid.

    Means are over patients, and shown over cases too where that differs. Patients whose scans a
    model was trained or chosen with are refused, whatever their names.
    With --against, models are compared patient by patient.
    """
    from segan_ray.api.models import evaluate as score_models
    from segan_ray.terminal.score_tables import show_scores

    _check_files(output, cases)
    evaluation = score_models(
        model,
        store,
        against=against or [],
        references=named_rows(reference or []),
        split_file=split_file,
        lesion_wise=lesion_wise,
        home=home,
        on_note=show.note,
    )
    _write_files(evaluation, output, cases)
    if as_json:
        show.document(evaluation.document)
    else:
        show_scores(evaluation.document)


def predict(
    model: ModelName,
    source: Annotated[
        Path, typer.Argument(help="A BRATS case, one of its files, or a folder.", metavar="INPUT")
    ],
    out: Annotated[
        Path, typer.Argument(help="The folder to write to, or of one case its file.", metavar="OUT")
    ],
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write each region's probabilities.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write over files that are there; else refuse.")
    ] = False,
    layout: Layout = None,
    home: HomeFolder = None,
    as_json: Json = False,
) -> None:
    """Segment BRATS cases into label maps that lie exactly where their scans do.

    They are in the label code of their layout and named as its challenge wants them. A bad case
    does not stop the rest; the exit code is then 1.
    """
    from segan_ray.api.models import predict as segment

    predictions = segment(
        model,
        source,
        out,
        layout=layout,
        probabilities=probabilities,
        overwrite=overwrite,
        home=home,
        on_notes=show.notes,
    )
    if as_json:
        show.document({"cases": [prediction.document() for prediction in predictions]})
    else:
        _show_predictions(predictions, out)
    if not all(prediction.ok for prediction in predictions):
        raise typer.Exit(1)


def export(
    model: ModelName,
    out: Annotated[Path, typer.Argument(help="The folder to write to.", metavar="OUT")],
    kind: Annotated[
        str, typer.Option("--format", help="onnx, or torch for a torch.export program.")
    ] = "onnx",
    home: HomeFolder = None,
    as_json: Json = False,
) -> None:
    """Write the network of a model as ONNX or torch.export program, with what surrounds it."""
    from segan_ray.api.models import load_model
    from segan_ray.evaluation.inference.export import check_format, export_model

    check_format(kind)
    with show.progress("Exporting", 1) as done:
        document = export_model(load_model(model, home=home), out, kind)
        done(document["file"])
    if as_json:
        show.document(document)
        return
    show.say(f"{out / document['file']}: probabilities of prepared slices; model.json says how to")
    show.say("prepare them, and what the maps become.")


def named_rows(given: Sequence[str]) -> dict[str, str]:
    """Return ``{name of the row: model}`` of the values of ``--reference``."""
    from segan_ray.errors import RegistryError

    rows: dict[str, str] = {}
    for item in given:
        name, equals, model = item.partition("=")
        if rows.setdefault(name, model if equals else name) != (model if equals else name):
            raise RegistryError(f"--reference names the row '{name}' twice, for two models.")
    return rows


def _check_files(output: Path | None, cases: Path | None) -> None:
    """Make sure that an evaluation's files can be written, before hours of scoring."""
    from segan_ray.evaluation.scoring.case_files import check_table
    from segan_ray.filesystem.atomic_files import check_folder

    if output is not None:
        check_folder(output)
    if cases is not None:
        check_table(cases)


def _write_files(evaluation: Evaluation, output: Path | None, cases: Path | None) -> None:
    from segan_ray.evaluation.scoring.case_files import write_table
    from segan_ray.filesystem.atomic_files import write_text

    if output is not None:
        write_text(output, json.dumps(evaluation.document, indent=1))
    if cases is not None:
        write_table(evaluation.cases, cases)


def _show_promotion(result: Promotion, sweep: str, alias: str) -> None:
    trial, verdict = result.candidate, result.verdict
    optimistic = " (optimistic: judged on the patients that chose it)" if result.optimistic else ""
    would = "would be " if result.dry_run else ""
    others = [each.trial for each in result.trials[1:]]
    averaged = f" averaged with {', '.join(others)}" if others else ""
    show.say(
        f"Trial {trial.trial} of {sweep}{averaged}: {would}{verdict.verdict}. "
        f"{verdict.reason}{optimistic}"
    )
    if result.version is not None:
        show.say(f"Registered as segan version {result.version}, alias {alias}")


def _show_predictions(predictions: Sequence[Prediction], out: Path) -> None:
    for prediction in predictions:
        for problem in prediction.problems:
            show.note(show.plain(f"{prediction.case}: {problem}"))
    warned: dict[str, list[str]] = {}
    for prediction in predictions:
        for warning in prediction.warnings:
            warned.setdefault(warning, []).append(prediction.case)
    for warning, cases in warned.items():
        more = f" and {len(cases) - 1} more" if cases[1:] else ""
        show.note(show.plain(f"Note: {cases[0]}{more}: {warning}"))
    written = sum(prediction.ok for prediction in predictions)
    failed = f"; {len(predictions) - written} failed" if written < len(predictions) else ""
    show.say(f"{many(written, 'label map')} in {out}{failed}")
