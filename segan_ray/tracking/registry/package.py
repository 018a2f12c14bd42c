"""Packaging a model with everything it needs, so that MLflow alone can load it.

::

    MLmodel, requirements.txt, …     MLflow's: signature, versions, where the rest is
    pyfunc_model.py                  the model as code; see that module
    code/segan_ray/                  this package
    artifacts/model/                 the model's own files; see
                                     ``evaluation/inference/packaged_model.py``
    input_example.json               a small case to try it on

The package is logged as the model of its trial's run, among the experiment's models.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float32
from mlflow import MlflowClient, pyfunc
from mlflow.entities import LoggedModel, LoggedModelOutput, Metric
from mlflow.models import Model as MlflowModel
from mlflow.models import ModelSignature
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

import segan_ray
from segan_ray.brats import MODALITIES
from segan_ray.config import OF_MONAI
from segan_ray.evaluation.inference.checksums import digest
from segan_ray.evaluation.inference.packaged_model import PACKAGED, Model, save_model
from segan_ray.evaluation.inference.raw_cases import SPACING_MM
from segan_ray.filesystem.atomic_files import follow_umask
from segan_ray.tracking import tag_names
from segan_ray.tracking.client.artifacts import delete_below
from segan_ray.tracking.reading.run_tags import NUMBER

LOGGED_AS: Final = "model"
LEFT_OUT: Final = shutil.ignore_patterns("__pycache__", "*.js")
"""What of this package no model needs: the scripts of pages are megabytes."""
REQUIREMENTS: Final = (
    "mlflow", "jaxtyping", "nibabel", "numpy", "pydantic", "PyYAML", "safetensors", "scipy",
    "torch",
)  # fmt: skip
"""The packages that the packaged code imports to load and use a model."""


@dataclass(frozen=True)
class Package:
    """A logged model: its id and address with MLflow, and the digest of its files."""

    model_id: str
    uri: str
    sha256: str


def package_model(client: MlflowClient, run: str, model: Model, card: str | None = None) -> Package:
    """Log ``model`` with everything it needs, and its ``card``, as the model of ``run``.

    An interruption leaves a logged model that is not ready and that nothing refers to.
    """
    record = client.get_run(run)
    logged = client.create_logged_model(
        record.info.experiment_id,
        name=LOGGED_AS,
        source_run_id=run,
        tags={key: value for key, value in record.data.tags.items() if key.startswith("segan.")},
        params=record.data.params,
        model_type=model.variant,
    )
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / LOGGED_AS
            write_package(folder, model, logged, card)
            sha256 = digest(folder)
            client.log_model_artifacts(logged.model_id, str(folder))
    except BaseException:
        client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    client.log_outputs(run, [LoggedModelOutput(logged.model_id, step=0)])
    if len(model.members) == 1:
        _repeat_scores(client, run, logged.model_id)
    client.finalize_logged_model(logged.model_id, "READY")
    return Package(logged.model_id, f"models:/{logged.model_id}", sha256)


def write_package(
    folder: Path, model: Model, logged: LoggedModel | None = None, card: str | None = None
) -> None:
    """Write ``model`` into ``folder`` as a model that ``mlflow.pyfunc.load_model`` loads.

    ``logged`` is MLflow's record of the model, ``card`` its card, if it has one.
    """
    # Keep MLflow from taking the requirements from a lock file in the current folder.
    os.environ.setdefault("MLFLOW_UV_AUTO_DETECT", "false")
    record = None
    if logged is not None:
        record = MlflowModel(
            artifact_path=logged.artifact_location,
            run_id=logged.source_run_id,
            model_id=logged.model_id,
            model_uuid=logged.model_id,
        )
    with tempfile.TemporaryDirectory() as temporary:
        files = Path(temporary) / Path(PACKAGED).name
        save_model(files, model, card)
        code = Path(temporary) / "segan_ray"
        shutil.copytree(Path(segan_ray.__file__).parent, code, ignore=LEFT_OUT)
        pyfunc.save_model(
            folder,
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={files.name: str(files)},
            code_paths=[str(code)],
            pip_requirements=requirements(model),
            signature=signature(),
            input_example=input_example(),
            mlflow_model=record or MlflowModel(),
        )
    follow_umask(folder)


def requirements(model: Model) -> list[str]:
    """Return the packages that a model needs, in the versions running here.

    A build such as ``2.13.0+cpu`` is named by its release alone: the machine that loads the model
    may need another build.
    """
    needed = list(REQUIREMENTS)
    if any(each.segmentor.network in OF_MONAI for each in model.experiments):
        needed.append("monai")
    if model.origin.preparation.n4:
        needed.append("SimpleITK")
    return [f"{name}=={version(name).partition('+')[0]}" for name in needed]


def signature() -> ModelSignature:
    """Return the types of inputs and outputs; see ``predict_arrays``."""
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, len(MODALITIES), -1, -1, -1))]),
        outputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, -1))]),
        params=ParamSchema(
            [
                ParamSpec("output", "string", "labels"),
                ParamSpec("spacing_mm", "double", list(SPACING_MM), shape=(-1,)),
            ]
        ),
    )


def input_example() -> Float32[np.ndarray, "1 modality x y z"]:
    """Return a case small enough for JSON: a ball of noisy brain with a bright spot."""
    shape = (16, 16, 8)
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    distance = np.sqrt(sum(axis**2 for axis in axes))
    noise = np.random.default_rng(0).normal(size=(len(MODALITIES), *shape))
    bright = np.where(distance < 0.4, 200, 0) * np.array([0, 1, 1, 1])[:, None, None, None]
    image = np.where(distance < 0.9, np.rint(300 + 20 * noise + bright), 0)
    return image[None].astype(np.float32)


def delete_packages(client: MlflowClient, run: str) -> None:
    """Delete the models logged with ``run``, and their files if the store can delete."""
    experiment = client.get_run(run).info.experiment_id
    for logged in client.search_logged_models([experiment], f"source_run_id = '{run}'"):
        delete_below(client, logged.artifact_location, logged.model_id)
        client.delete_logged_model(logged.model_id)


def _repeat_scores(client: MlflowClient, run: str, model_id: str) -> None:
    """Log the validation scores of the best epoch of ``run`` for its model too."""
    data = client.get_run(run).data
    epoch = data.tags.get(tag_names.BEST_EPOCH, "")
    if not NUMBER.fullmatch(epoch):  # no epoch was scored, or the tag was changed
        return
    scores = [
        Metric(each.key, each.value, each.timestamp, each.step, model_id=model_id, run_id=run)
        for name in data.metrics
        if name.startswith("val/")
        for each in client.get_metric_history(run, name)
        if each.step == int(epoch)
    ]
    client.log_batch(run, metrics=scores)
