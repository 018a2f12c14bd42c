"""From a sweep to a model in use: promotion, evaluation, prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segan_ray.api.notes import Note, Notes, log_note, log_notes
from segan_ray.engine_settings import prepare_mlflow
from segan_ray.home import Home
from segan_ray.terminal.show import progress as bar

if TYPE_CHECKING:
    from segan_ray.evaluation.inference.packaged_model import Model
    from segan_ray.evaluation.inference.prediction import Prediction
    from segan_ray.workflows.evaluate import Evaluation
    from segan_ray.workflows.promote import Promotion


def promote(
    sweep: str,
    *,
    alias: str = "champion",
    ensemble: int = 1,
    non_inferior: float | None = None,
    flips: bool = False,
    dry_run: bool = False,
    force: bool = False,
    home: str | Path | None = None,
    progress: bool = True,
    on_note: Note = log_note,
) -> Promotion:
    """Put the best checkpoint of a sweep through the gate and into the model registry.

    With ``ensemble`` above 1 the mean of so many trials is judged. ``non_inferior`` is a margin in
    Dice by which it may be worse; ``flips`` averages over mirrored slices. Each try on the same
    gate patients has to be surer than the one before, a ``dry_run`` too.

    >>> promoted = api.promote("first", progress=False)
    >>> promoted.verdict.verdict, promoted.version
    ('promoted', '1')

    Raises:
        SweepError: if the sweep is unknown or has too few scored trials.
        StoreError: if its store is gone or is another now, or has no patient to judge on.
        RegistryError: if the alias or the margin is not allowed.
        TrackingError: if the registry does not answer.
    """
    prepare_mlflow()
    from segan_ray.workflows.promote import promote as run_gate

    with bar("Judging cases", None, drawn=progress) as done:
        return run_gate(
            home_at(home),
            sweep,
            alias=alias,
            ensemble=ensemble,
            non_inferior=non_inferior,
            flips=flips,
            dry_run=dry_run,
            force=force,
            on_case=done,
            on_note=on_note,
        )


def evaluate(
    model: str,
    store: str | Path,
    *,
    against: Sequence[str] = (),
    references: Mapping[str, str] | None = None,
    split_file: str | Path | None = None,
    lesion_wise: bool = False,
    home: str | Path | None = None,
    progress: bool = True,
    on_note: Note = log_note,
) -> Evaluation:
    """Score a model on the test patients, over whole volumes in the original grid.

    ``model`` is an alias, a run of ``train``, a models:/ or runs:/ URI, or a checkpoint folder; so
    are the models ``against`` it and the values of ``references``, by the names of their rows
    (``{"threshold": "threshold"}`` is a tuned FLAIR threshold). The result has the ``evaluate``
    document, and the scores of every case as a table.

    >>> scored = api.evaluate("champion", "store", progress=False)
    >>> list(scored.cases.columns[:4]), len(scored.cases)
    (['model', 'case', 'patient', 'region'], 6)

    Raises:
        StoreError, RegistryError, CheckpointError: for what cannot be found or read.
        SplitError: for a split file that cannot be right, or patients that a model has seen.
    """
    prepare_mlflow()
    from segan_ray.workflows.evaluate import evaluate as score_models

    with bar("Scoring cases", None, drawn=progress) as done:
        return score_models(
            home_at(home),
            model,
            store,
            against=against,
            references=references,
            split_file=None if split_file is None else Path(split_file),
            lesion_wise=lesion_wise,
            on_case=done,
            on_note=on_note,
        )


def predict(
    model: str,
    source: str | Path,
    out: str | Path,
    *,
    layout: str | None = None,
    probabilities: bool = False,
    overwrite: bool = False,
    home: str | Path | None = None,
    progress: bool = True,
    on_notes: Notes = log_notes,
) -> tuple[Prediction, ...]:
    """Write the label map of each BRATS case in ``source`` below ``out``.

    They lie where their scans do, in the label code of their layout. A case that cannot be read is
    in the result with its problems and does not stop the rest.

    >>> case = api.predict("champion", "data/BraTS2021_00000", "labels", progress=False)[0]
    >>> case.ok, case.label.name
    (True, 'BraTS2021_00000.nii.gz')

    Raises:
        DataError: if ``source`` holds no case, or a file exists and ``overwrite`` is not set.
        RegistryError, CheckpointError: for a model that cannot be found or read.
    """
    prepare_mlflow()
    from segan_ray.data.layouts.cases import discover_input
    from segan_ray.workflows.predict import predict as segment

    discovery = discover_input(Path(source), layout)
    on_notes(discovery.notes)
    with bar("Segmenting cases", len(discovery.cases), drawn=progress) as done:
        return segment(
            home_at(home),
            model,
            discovery,
            Path(out),
            probabilities=probabilities,
            overwrite=overwrite,
            on_case=done,
        )


def load_model(model: str, *, home: str | Path | None = None) -> Model:
    """Return a model in memory: its networks, experiments, store and postprocessing.

    ``segan_ray.evaluation.inference.raw_cases.predict_arrays`` applies it to raw arrays.

    >>> champion = api.load_model("champion")
    >>> champion.experiments[0].training.epochs, champion.origin.layout
    (3, 'brats2021')

    Raises:
        RegistryError: if nothing of that name can be fetched.
        CheckpointError: if its files are damaged or were changed.
    """
    prepare_mlflow()
    from segan_ray.evaluation.inference.packaged_model import load_model as load
    from segan_ray.tracking.registry.model_versions import fetched

    with fetched(home_at(home), model) as found:
        return load(found.folder)


def home_at(home: str | Path | None) -> Home:
    """Return the home at a folder, at SEGAN_RAY_HOME, or in the current folder."""
    return Home.at(Path(home)) if home else Home.usual()
