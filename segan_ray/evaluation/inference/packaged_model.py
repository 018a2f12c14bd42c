"""A trained model as it is used: its network, preparation and postprocessing.

::

    segmentor.safetensors   the weights
    state.json              the Experiment, which says what the network is
    origin.json             the store it was trained on: preparation, layout, patients
    postprocessing.json     thresholds, smallest pieces; absent from a trial's checkpoint
    checksums.json          of these files; absent from a trial's checkpoint

A trial's checkpoint is such a folder, with the critic and the optimizers besides. A registered
model holds such a folder among MLflow's own files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final

import torch
from torch import nn

from segan_ray.config import Experiment
from segan_ray.data.store.origin import Origin, read_origin, write_origin
from segan_ray.documents import SETTINGS_BYTES, parse_json, read_bytes
from segan_ray.errors import CheckpointError, said
from segan_ray.evaluation.inference.checksums import (
    compare_checksums,
    has_checksums,
    write_checksums,
)
from segan_ray.evaluation.inference.inference_settings import InferenceSettings, Postprocessing
from segan_ray.training.checkpoints.checkpoint import load_segmentor, save_segmentor

POSTPROCESSING: Final = "postprocessing.json"
PACKAGED: Final = "artifacts/model"
"""Where the folder above lies in a model logged with MLflow."""


@dataclass(frozen=True)
class Model:
    """A segmentor in evaluation mode, its experiment, and the store that it was trained on."""

    segmentor: nn.Module
    experiment: Experiment
    origin: Origin
    postprocessing: Postprocessing = field(default_factory=Postprocessing)

    def inference_settings(self, device: torch.device | None = None) -> InferenceSettings:
        """Return how the model is used on ``device``, by default the one of its weights."""
        device = device or _device_of(self.segmentor)
        return InferenceSettings.of(self.experiment, device, postprocessing=self.postprocessing)


def load_model(folder: Path) -> Model:
    """Return the model of a checkpoint or of a registered version; nothing is unpickled.

    Raises:
        CheckpointError: if a file is missing, damaged, pickled, changed since the model was
            packaged, or of other networks.
    """
    folder = model_folder(folder)
    if has_checksums(folder):
        compare_checksums(folder)
    segmentor, experiment = load_segmentor(folder)
    return Model(segmentor, experiment, read_origin(folder), _read_postprocessing(folder))


def save_model(folder: Path, model: Model) -> None:
    """Write the files above into ``folder``, which is made if need be."""
    save_segmentor(folder, model.segmentor, model.experiment)
    write_origin(folder, model.origin)
    text = model.postprocessing.model_dump_json(indent=1)
    (folder / POSTPROCESSING).write_text(text, encoding="utf-8")
    write_checksums(folder)


def model_folder(folder: Path) -> Path:
    """Return where the files above are: in ``folder``, or inside a model logged with MLflow."""
    return folder / PACKAGED if (folder / "MLmodel").is_file() else folder


def _device_of(network: nn.Module) -> torch.device:
    tensors = chain(network.parameters(), network.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def _read_postprocessing(folder: Path) -> Postprocessing:
    path = folder / POSTPROCESSING
    if not os.path.lexists(path):
        return Postprocessing()
    try:
        return Postprocessing.model_validate(parse_json(read_bytes(path, SETTINGS_BYTES)))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({said(error)}).") from None
