"""The plan of a sweep."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from segan_ray.home import Home
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.search.study.study_budget import Limits
from segan_ray.tracking.description.card import StoreCard


@dataclass(frozen=True)
class Sweep:
    """The plan of a sweep. What is not ``given`` of its budget is as before or as in its space.

    The settings of the ``repeat_top`` best trials are trained again with ``seeds`` fresh seeds;
    ``resume_with`` is the command that resumes the sweep, ``price`` that of a GPU hour.
    """

    name: str
    space: SearchSpace
    space_text: str
    store: str | Path
    card: StoreCard
    home: Home
    resume_with: str
    given: Limits = field(default_factory=Limits)
    resume: bool = False
    repeat_top: int = 0
    seeds: int = 3
    price: float | None = None

    @property
    def folder(self) -> Path:
        """The folder of the sweep's outbox and, unless stored elsewhere, of its checkpoints."""
        return self.home.sweeps / self.name
