"""A trained model as it is used: its network, and all that a raw case must go through.

::

    segmentor.safetensors   the weights
    state.json              the Experiment, which says what the network is
    origin.json             what it was trained on: preparation, layout, patients
    postprocessing.json     what becomes of its maps; absent from a trial's checkpoint
    checksums.json          of these files; absent from a trial's checkpoint

A trial's checkpoint is such a folder, with the critic and the optimizers besides. In what the
registry holds, MLflow's own files are around it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from segan_ray.brats import REGIONS, Region
from segan_ray.config import Experiment
from segan_ray.data.store.origin import Origin, read_origin, write_origin
from segan_ray.documents import SETTINGS_BYTES, parse_json, read_bytes
from segan_ray.errors import CheckpointError, said
from segan_ray.evaluation.inference.checksums import check_seal, is_sealed, seal
from segan_ray.training.checkpoints.checkpoint import load_segmentor, save_segmentor

POSTPROCESSING: Final = "postprocessing.json"
PACKAGED: Final = "artifacts/model"
"""Where in a model logged with MLflow the folder above lies."""


class Postprocessing(BaseModel):
    """What becomes of probability maps, region by region.

    A voxel belongs to a region above its threshold; connected pieces (26 neighbours) of less
    than ``smallest_mm3`` are dropped. ``flips`` averages over mirrored slices.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    thresholds: dict[Region, float] = Field(default_factory=lambda: dict.fromkeys(REGIONS, 0.5))
    smallest_mm3: dict[Region, float] = Field(default_factory=lambda: dict.fromkeys(REGIONS, 0.0))
    flips: bool = False

    @model_validator(mode="after")
    def _every_region_in_bounds(self) -> Self:
        for name, values in (("thresholds", self.thresholds), ("smallest_mm3", self.smallest_mm3)):
            if set(values) != set(REGIONS):
                raise ValueError(f"{name} must have {', '.join(REGIONS)}")
        if not all(0 < value < 1 for value in self.thresholds.values()):
            raise ValueError("thresholds must lie between 0 and 1")
        if not all(value >= 0 for value in self.smallest_mm3.values()):
            raise ValueError("smallest_mm3 must not be negative")
        return self


@dataclass(frozen=True)
class Model:
    """A segmentor in evaluation mode, and what it was trained as and on."""

    segmentor: nn.Module
    experiment: Experiment
    origin: Origin
    postprocessing: Postprocessing = field(default_factory=Postprocessing)


def load_model(folder: Path) -> Model:
    """Return the model of a checkpoint or of a registered version; nothing is unpickled.

    Raises:
        CheckpointError: if a file is missing, damaged, pickled, changed since the model was
            packaged, or of other networks.
    """
    folder = model_folder(folder)
    if is_sealed(folder):
        check_seal(folder)
    segmentor, experiment = load_segmentor(folder)
    return Model(segmentor, experiment, read_origin(folder), _read_postprocessing(folder))


def save_model(folder: Path, model: Model) -> None:
    """Write the files above into ``folder``, which is made if need be."""
    save_segmentor(folder, model.segmentor, model.experiment)
    write_origin(folder, model.origin)
    text = model.postprocessing.model_dump_json(indent=1)
    (folder / POSTPROCESSING).write_text(text, encoding="utf-8")
    seal(folder)


def model_folder(folder: Path) -> Path:
    """Return where the files above are: in ``folder``, or inside a model logged with MLflow."""
    return folder / PACKAGED if (folder / "MLmodel").is_file() else folder


def _read_postprocessing(folder: Path) -> Postprocessing:
    path = folder / POSTPROCESSING
    if not os.path.lexists(path):
        return Postprocessing()
    try:
        return Postprocessing.model_validate(parse_json(read_bytes(path, SETTINGS_BYTES)))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({said(error)}).") from None
