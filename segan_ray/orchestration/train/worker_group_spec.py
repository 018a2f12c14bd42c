"""What the workers of a trial get."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WorkerGroupSpec:
    """How many workers a group has, and what each of them gets.

    Trials of one spec use the same group, one after the other.
    """

    workers: int
    cpus_per_worker: float
    gpus_per_worker: float

    @property
    def gpus(self) -> float:
        """How many GPUs the group holds."""
        return self.workers * self.gpus_per_worker
