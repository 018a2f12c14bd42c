"""As much of Azure's SDK as Ray's cluster launcher calls.

The packages themselves would be 150 MB for the few functions here, so modules of their names stand
in for them. Deployments are held against their templates, as Azure itself does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

GROUP = "segan-ray"
RAYS = ("config", "node_provider")
TYPES = {
    "string": str,
    "securestring": str,
    "int": int,
    "bool": bool,
    "object": dict,
    "array": list,
}


class AzureError(Exception):
    """Any of azure.core.exceptions."""


class NotFoundError(AzureError):
    """Of something that is not there."""


def faults(template: dict[str, Any], given: dict[str, Any]) -> Iterator[str]:
    """What of a deployment's parameters its template does not know, lacks or takes otherwise."""
    for name in given.keys() - template["parameters"].keys():
        yield f"the template has no parameter {name!r}"
    for name, parameter in template["parameters"].items():
        if name not in given:
            if "defaultValue" not in parameter:
                yield f"there is no value for the parameter {name!r}"
        elif type(given[name]["value"]) is not TYPES[parameter["type"]]:
            yield f"the parameter {name!r} is no {parameter['type']}"


class Azure:
    """A subscription of someone who is logged in, with no machine in it."""

    def __init__(self) -> None:
        self.machines: list[dict[str, Any]] = []
        self.groups: dict[str, dict[str, Any]] = {}

    def create_group(self, resource_group_name: str, parameters: dict[str, Any]) -> None:
        self.groups[resource_group_name] = parameters

    def deploy(
        self, resource_group_name: str, deployment_name: str, parameters: dict[str, Any]
    ) -> SimpleNamespace:
        assert resource_group_name in self.groups
        template = parameters["properties"]["template"]
        given = parameters["properties"]["parameters"]
        wrong = sorted(faults(template, given))
        if wrong:
            raise AzureError(f"{deployment_name}: {'; '.join(wrong)}")
        if "vmName" in given:
            self.machines.append({name: value["value"] for name, value in given.items()})
        outputs = {name: {"value": f"/made/{name}"} for name in template["outputs"]}
        made = SimpleNamespace(properties=SimpleNamespace(outputs=outputs))
        return SimpleNamespace(result=lambda: made, wait=lambda timeout: None)

    def list_machines(self, resource_group_name: str) -> list[SimpleNamespace]:
        assert resource_group_name in self.groups
        card = SimpleNamespace(id="/made/card")
        network = SimpleNamespace(network_interfaces=[card])
        return [
            SimpleNamespace(name=one["vmName"] + "0", tags=one["vmTags"], network_profile=network)
            for one in self.machines
        ]

    def resource_client(self, *_: Any) -> SimpleNamespace:
        return SimpleNamespace(
            resource_groups=SimpleNamespace(create_or_update=self.create_group),
            resources=SimpleNamespace(
                list_by_resource_group=lambda *_: [],
                get_by_id=missing,
                delete_by_id=missing,
            ),
            deployments=SimpleNamespace(begin_create_or_update=self.deploy),
        )

    def compute_client(self, *_: Any) -> SimpleNamespace:
        running = {"statuses": [{"code": "PowerState/running"}]}
        return SimpleNamespace(
            virtual_machines=SimpleNamespace(
                list=self.list_machines,
                instance_view=lambda **_: SimpleNamespace(as_dict=lambda: running),
            ),
            resource_skus=SimpleNamespace(list=list),
        )

    def network_client(self, *_: Any) -> SimpleNamespace:
        address = SimpleNamespace(private_ip_address="10.0.0.4", public_ip_address=None)
        card = SimpleNamespace(ip_configurations=[address])
        return SimpleNamespace(network_interfaces=SimpleNamespace(get=lambda **_: card))

    def modules(self) -> dict[str, dict[str, Any]]:
        """What Ray imports, by module."""
        profile = SimpleNamespace(get_subscription_id=lambda: "subscription")
        return {
            "common.credentials": {"get_cli_profile": lambda: profile},
            "core.exceptions": {
                "HttpResponseError": AzureError,
                "ResourceNotFoundError": NotFoundError,
            },
            "identity": {
                "AzureCliCredential": SimpleNamespace,
                "DefaultAzureCredential": SimpleNamespace,
            },
            "mgmt.compute": {"ComputeManagementClient": self.compute_client},
            "mgmt.network": {"NetworkManagementClient": self.network_client},
            "mgmt.resource": {"ResourceManagementClient": self.resource_client},
            "mgmt.resource.resources.models": {
                "DeploymentMode": SimpleNamespace(incremental="Incremental")
            },
        }


def missing(*_: Any, **__: Any) -> None:
    raise NotFoundError


@contextmanager
def subscription() -> Iterator[Azure]:
    """Let Ray find a subscription where Azure's SDK would be, and forget it afterwards."""
    azure = Azure()
    rays = [f"ray.autoscaler._private._azure.{name}" for name in RAYS]
    with pytest.MonkeyPatch.context() as patch:
        for name, contents in azure.modules().items():
            module = ModuleType(f"azure.{name}")
            vars(module).update(contents)
            patch.setitem(sys.modules, module.__name__, module)
        patch.setattr(
            "ray._common.usage.usage_lib.get_cloud_from_metadata_requests", lambda: "unknown"
        )
        for name in rays:
            sys.modules.pop(name, None)
        try:
            yield azure
        finally:
            for name in rays:
                sys.modules.pop(name, None)
