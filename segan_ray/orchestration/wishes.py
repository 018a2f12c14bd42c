"""Asking a cluster that starts nodes on demand for room: placement groups that want to be.

Ray's autoscaler starts nodes for what waits. A wish holds nothing: as soon as Ray grants it, a
node has come, and it is taken back for trials to have its place. It ends with this process.
"""

from __future__ import annotations

# The session's settings must be in the environment before Ray is imported.
from segan_ray.orchestration import session  # noqa: F401

from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table  # isort: skip
from ray.util.placement_group import remove_placement_group  # isort: skip

from segan_ray.config import ResourceSettings


class Wishes:
    """Room for trials of these resources that the cluster does not have yet."""

    def __init__(self, resources: ResourceSettings) -> None:
        gpus = {"GPU": resources.gpus_per_worker} if resources.gpus_per_worker else {}
        worker = {"CPU": resources.cpus_per_worker, **gpus}
        self._bundles = [worker] * resources.workers
        self._waiting: list[PlacementGroup] = []

    def want(self, trials: int) -> None:
        """Ask for room for so many more trials; granted wishes are taken back."""
        for group in list(self._waiting):
            if placement_group_table(group)["state"] == "CREATED":
                self._take_back(group)
        while len(self._waiting) > trials:
            self._take_back(self._waiting[-1])
        while len(self._waiting) < trials:
            self._waiting.append(placement_group(self._bundles))

    def _take_back(self, group: PlacementGroup) -> None:
        self._waiting.remove(group)
        remove_placement_group(group)
