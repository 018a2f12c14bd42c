"""How a segmentor is used on volumes: derived once from an experiment, then passed on whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from segan_ray.brats import REGIONS, Region
from segan_ray.config import Experiment
from segan_ray.models.build import downsampling_levels
from segan_ray.models.numerics import choose_precision

BATCH: Final = {"cpu": 8}
"""Slices at once: on CPUs few, so that feature maps stay in the cache (measured: 8 is best)."""
BATCH_ELSEWHERE: Final = 32


class Postprocessing(BaseModel):
    """How probability maps become regions, for each region on its own.

    A voxel belongs to a region above its threshold; connected pieces (26 neighbours) of less
    than ``smallest_mm3`` are dropped. ``flips`` averages over mirrored slices.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    thresholds: dict[Region, float] = Field(default_factory=lambda: dict.fromkeys(REGIONS, 0.5))
    """The probability above which a voxel belongs to a region."""
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

    @property
    def drops_pieces(self) -> bool:
        """Whether any region loses its small pieces."""
        return any(self.smallest_mm3.values())


@dataclass(frozen=True)
class InferenceSettings:
    """All that a segmentor's maps of a volume depend on, besides its weights.

    ``precision`` is the one that training has on ``device``, so that a model is used as it was
    chosen. Slices are padded to multiples of ``2**downsampling_levels``. ``context_slices`` are
    added on each side of a slice, and ``brain_mask`` confines the maps, both as in training.
    """

    device: torch.device
    precision: torch.dtype
    batch_size: int
    downsampling_levels: int
    context_slices: int
    brain_mask: bool
    postprocessing: Postprocessing = field(default_factory=Postprocessing)

    @classmethod
    def of(
        cls,
        experiments: Sequence[Experiment],
        device: torch.device,
        *,
        postprocessing: Postprocessing | None = None,
        batch_size: int | None = None,
    ) -> Self:
        """Return the settings that segmentors of ``experiments``, used as one, need on ``device``.

        Of several precisions single precision is taken. Without ``postprocessing`` every threshold
        is 0.5 and no piece is dropped. Without ``batch_size`` as many slices are predicted at once
        as suits the device.
        """
        precisions = {choose_precision(each.training, device) for each in experiments}
        return cls(
            device=device,
            precision=precisions.pop() if len(precisions) == 1 else torch.float32,
            batch_size=batch_size or BATCH.get(device.type, BATCH_ELSEWHERE),
            downsampling_levels=max(map(downsampling_levels, experiments)),
            context_slices=max(each.data.neighbours for each in experiments),
            brain_mask=experiments[0].training.brain_mask,
            postprocessing=postprocessing or Postprocessing(),
        )
