"""A cloud for Ray's autoscaler: its own fake one, whose machines have the memory they say."""

from __future__ import annotations

from typing import Any

from ray._private import parameter
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider

_CHECK = parameter.RayParams.__init__


class Cloud(FakeMultiNodeProvider):
    """Ray's fake cloud takes no memory for a machine, and trials want some."""

    def _create_node_with_resources_and_labels(
        self, node_config: Any, tags: Any, count: int, resources: dict, labels: Any
    ) -> None:
        rest = {name: amount for name, amount in resources.items() if name != "memory"}
        memory = resources.get("memory")

        def with_memory(params: Any, *arguments: Any, **more: Any) -> None:
            _CHECK(params, *arguments, **{"memory": memory, **more})

        parameter.RayParams.__init__ = with_memory
        try:
            super()._create_node_with_resources_and_labels(node_config, tags, count, rest, labels)
        finally:
            parameter.RayParams.__init__ = _CHECK
