"""``phantom``, ``inspect``, ``view`` and ``prepare``: from a BRATS folder to a store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segan_ray.cli.options import Json, Layout, NewStore
from segan_ray.errors import SplitError, many
from segan_ray.sizes import MOST_CASES, MOST_FOLDS, MOST_SEED, MOST_WORKERS
from segan_ray.terminal import show

if TYPE_CHECKING:
    from segan_ray.api.data import PreparedStore
    from segan_ray.data.inspection.folder_report import FolderReport

Data = Annotated[Path, typer.Argument(help="A folder of BRATS cases.", metavar="DATA")]
Workers = Annotated[int, typer.Option(min=1, max=MOST_WORKERS, help="Processes to work with.")]
Pictures = Annotated[
    Path | None,
    typer.Option(
        help="Also draw every case small into this PNG (60 cases a page, then OUT-2.png and on).",
        metavar="OUT.png",
    ),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave bad cases out and list them.")]
ValShare = Annotated[float, typer.Option(help="Share of patients that steers the search.")]
GateShare = Annotated[float, typer.Option(help="Share that only promotion reads; 0 goes without.")]
TestShare = Annotated[float, typer.Option(help="Share that only evaluation reads.")]
SplitSeed = Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Seed of the split.")]
Folds = Annotated[
    int,
    typer.Option(
        min=0, max=MOST_FOLDS, help="Also divide train and val into folds (see data.fold)."
    ),
]
SplitFile = Annotated[
    Path | None,
    typer.Option(help="Your own split: YAML or JSON lists of patients, in place of shares."),
]
N4 = Annotated[bool, typer.Option("--n4", help="Correct bias fields first; it takes long.")]
CORES = os.cpu_count() or 1


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command(epilog="Example: segan-ray phantom data --cases 20 --spacing 2")(phantom)
    app.command(epilog="Example: segan-ray inspect data")(inspect)
    app.command(
        epilog="Example: segan-ray view data/BraTS2021_00000 labels/BraTS2021_00000.nii.gz "
        "--out case.html"
    )(view)
    app.command(epilog="Example: segan-ray prepare data store --skip-bad")(prepare)


def phantom(
    out: Annotated[Path, typer.Argument(help="The folder to write to.", metavar="OUT")],
    cases: Annotated[int, typer.Option(min=1, max=MOST_CASES, help="How many cases.")] = 40,
    layout: Annotated[str, typer.Option(help="The BRATS layout to write.")] = "brats2021",
    spacing: Annotated[float, typer.Option(help="Voxel size in mm; BRATS itself has 1.")] = 1.0,
    seed: Annotated[
        int, typer.Option(min=0, max=MOST_SEED, help="Other seeds make other patients.")
    ] = 0,
    workers: Workers = CORES,
    as_json: Json = False,
) -> None:
    """Write anatomical BRATS-like cases: synthetic gliomas in the ICBM-152 brain."""
    from segan_ray.api.data import phantom as write_phantoms

    names = write_phantoms(
        out, cases=cases, layout=layout, spacing_mm=spacing, seed=seed, workers=workers
    )
    if as_json:
        show.document({"out": str(out), "layout": layout, "cases": len(names)})
    else:
        show.say(f"{many(len(names), f'{layout} case')} in {out}")


def inspect(
    data: Data,
    layout: Layout = None,
    pictures: Pictures = None,
    workers: Workers = CORES,
    as_json: Json = False,
) -> None:
    """Show what is in a BRATS folder, and everything that is wrong with it."""
    from segan_ray.data.inspection.inspect_folder import inspect_cases
    from segan_ray.data.layouts.cases import discover
    from segan_ray.evaluation.figures.thumbnails import SIDE, check_sheet, write_sheets

    side = None
    if pictures is not None:
        check_sheet(pictures)
        side = SIDE
    discovery = discover(data, layout)
    with show.progress("Reading cases", len(discovery.cases)) as done:
        report = inspect_cases(discovery, workers=workers, sketch_side=side, on_case=done)
    written = write_sheets(report, pictures) if pictures is not None else ()
    if as_json:
        more = {"pictures": [str(path) for path in written]} if pictures is not None else {}
        show.document({**report.document(), **more})
    else:
        _show_report(f"{data}: {discovery.layout.name}, regions in ml", report)
        for path in written:
            show.say(f"Pictures in {path}")
    if report.bad:
        raise typer.Exit(1)


def _show_report(title: str, report: FolderReport) -> None:
    from segan_ray.data.inspection.folder_report import COLUMNS

    show.table(title, COLUMNS, (case.row() for case in report.cases))
    for case, problem in report.problems():
        show.say(show.plain(f"{case}: {problem}"))
    show.notes([*report.warnings(), *report.notes], show.say)
    show.say(report.verdict())


def view(
    source: Annotated[
        Path, typer.Argument(help="A BRATS case: its folder or one of its files.", metavar="CASE")
    ],
    out: Annotated[Path, typer.Option(help="The .html file to write.", metavar="PAGE.html")],
    prediction: Annotated[
        Path | None,
        typer.Argument(
            help="A label map of the case, such as predict writes.", metavar="PREDICTION"
        ),
    ] = None,
    layout: Layout = None,
    as_json: Json = False,
) -> None:
    """Write a case as one self-contained page: its scans in slices and 3-D, with outlines.

    Outlines are of the truth, where the case has one, and of PREDICTION. The page needs no
    network. It holds the patient's images: treat it like the scans.
    """
    from segan_ray.data.layouts.cases import discover_input
    from segan_ray.evaluation.viewer.write_view import write_view

    discovery = discover_input(source, layout)
    show.notes(discovery.notes)
    written = write_view(discovery, prediction, out)
    if as_json:
        show.document(written.document())
        return
    for warning in written.warnings:
        show.note(show.plain(f"Note: {written.case}: {warning}"))
    outlined = f" with {' and '.join(written.maps)}" if written.maps else ""
    show.say(
        f"{written.case}{outlined} in {out}, {written.bytes / 1e6:.1f} MB. It holds the patient's "
        "images: treat it like the scans."
    )


def prepare(
    context: typer.Context,
    data: Data,
    store: NewStore,
    skip_bad: SkipBad = False,
    layout: Layout = None,
    val: ValShare = 0.15,
    gate: GateShare = 0.15,
    test: TestShare = 0.15,
    seed: SplitSeed = 0,
    folds: Folds = 0,
    split_file: SplitFile = None,
    n4: N4 = False,
    workers: Workers = CORES,
    as_json: Json = False,
) -> None:
    """Turn a BRATS folder into a store for training: cropped, normalised, split by patient.

    With RAY_ADDRESS set, cases are prepared as tasks of that cluster, whose nodes must see DATA
    and STORE at the same paths.
    """
    from segan_ray.api.data import prepare as make_store

    if split_file is not None:
        _refuse_shares(context)
    made = make_store(
        data,
        store,
        layout=layout,
        val=val,
        gate=gate,
        test=test,
        seed=seed,
        folds=folds,
        split_file=split_file,
        n4=n4,
        skip_bad=skip_bad,
        workers=workers,
        on_notes=show.notes,
    )
    _show_store(made, as_json=as_json)


def _refuse_shares(context: typer.Context) -> None:
    for name in ("val", "gate", "test"):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise SplitError(f"--{name} and --split-file: the file says who is where. Give one.")


def _show_store(made: PreparedStore, *, as_json: bool) -> None:
    if as_json:
        show.document(
            {
                "store": str(made.path),
                "fingerprint": made.fingerprint,
                "cases": made.cases,
                "skipped": list(made.skipped),
                "splits": made.splits,
                "folds": made.folds,
                "notes": list(made.notes),
            }
        )
        return
    sides = ", ".join(f"{len(patients)} {name}" for name, patients in made.splits.items())
    folds = f", {made.folds} folds" if made.folds else ""
    what = f"patients: {sides}{folds}; {made.fingerprint}"
    show.say(f"{many(made.cases, 'case')} in {made.path} ({what})")
    for case, problem in made.skipped.items():
        show.say(show.plain(f"Skipped {case}: {problem}"))
