"""A trained model as it is used: its networks, preparation and postprocessing.

::

    segmentor.safetensors   the weights
    state.json              the Experiment, which says what the network is
    origin.json             the store it was trained on: preparation, layout, patients
    postprocessing.json     thresholds, smallest pieces; absent from a trial's checkpoint
    model_card.md           what it is for and how good it is; of promoted models alone
    checksums.json          of these files; absent from a trial's checkpoint

An ensemble has the first two files of each member in ``member-0/``, ``member-1/`` and so on. A
trial's checkpoint is such a folder, with the critic and the optimizers besides. A registered model
holds such a folder among MLflow's own files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
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
from segan_ray.models.ensemble import MeanOfSegmentors
from segan_ray.training.checkpoints.checkpoint import load_segmentor, save_segmentor

POSTPROCESSING: Final = "postprocessing.json"
CARD: Final = "model_card.md"
MEMBER: Final = "member-"
PACKAGED: Final = "artifacts/model"
"""Where the folder above lies in a model logged with MLflow."""


@dataclass(frozen=True)
class TrainedSegmentor:
    """A ``segmentor`` in evaluation mode and the ``experiment`` that it was trained by."""

    segmentor: nn.Module
    experiment: Experiment


@dataclass(frozen=True)
class Model:
    """A segmentor, or several whose probabilities are averaged, and the store they learned from.

    Members agree on ``training.brain_mask``. Raises ``CheckpointError`` if they do not.
    """

    members: tuple[TrainedSegmentor, ...]
    """One, or those of an ensemble."""
    origin: Origin
    """The store it learned from."""
    postprocessing: Postprocessing = field(default_factory=Postprocessing)
    """How its probabilities become label maps."""

    def __post_init__(self) -> None:
        if len({experiment.training.brain_mask for experiment in self.experiments}) > 1:
            raise CheckpointError(
                "Some of these models are confined to the brain and some are not "
                "(training.brain_mask), so their mean is neither. Search it in a sweep of its own."
            )

    @cached_property
    def segmentor(self) -> nn.Module:
        """The network that maps slices to probabilities; of an ensemble, their mean."""
        if len(self.members) == 1:
            return self.members[0].segmentor
        context = [experiment.data.neighbours for experiment in self.experiments]
        return MeanOfSegmentors([each.segmentor for each in self.members], context).eval()

    @property
    def experiments(self) -> tuple[Experiment, ...]:
        """The experiment of each member."""
        return tuple(member.experiment for member in self.members)

    @property
    def variant(self) -> str:
        """The variants of its members in words."""
        return " and ".join(dict.fromkeys(each.variant for each in self.experiments))

    def inference_settings(self, device: torch.device | None = None) -> InferenceSettings:
        """Return how the model is used on ``device``, by default the one of its weights."""
        device = device or _device_of(self.segmentor)
        return InferenceSettings.of(self.experiments, device, postprocessing=self.postprocessing)


def load_model(folder: Path) -> Model:
    """Return the model of a checkpoint or of a registered version; nothing is unpickled.

    Raises:
        CheckpointError: if a file is missing, damaged, pickled, changed since the model was
            packaged, or of other networks.
    """
    folder = model_folder(folder)
    if has_checksums(folder):
        compare_checksums(folder)
    members = tuple(TrainedSegmentor(*load_segmentor(each)) for each in member_folders(folder))
    return Model(members, read_origin(folder), _read_postprocessing(folder))


def save_model(folder: Path, model: Model, card: str | None = None) -> None:
    """Write the files above into ``folder``, which is made if need be; ``card`` is the card."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, member in enumerate(model.members):
        inside = folder / f"{MEMBER}{index}" if len(model.members) > 1 else folder
        save_segmentor(inside, member.segmentor, member.experiment)
    write_origin(folder, model.origin)
    text = model.postprocessing.model_dump_json(indent=1)
    (folder / POSTPROCESSING).write_text(text, encoding="utf-8")
    if card is not None:
        (folder / CARD).write_text(card, encoding="utf-8")
    write_checksums(folder)


def member_folders(folder: Path) -> list[Path]:
    """Return the folders of an ensemble's members in their order, or ``folder`` of one model."""
    count = sum(1 for each in folder.glob(f"{MEMBER}*") if each.is_dir())
    return [folder / f"{MEMBER}{index}" for index in range(count)] or [folder]


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
