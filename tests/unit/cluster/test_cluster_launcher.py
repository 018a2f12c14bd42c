"""``ray up`` on the files of ``cluster/autoscaler``, with clouds that are not there.

Ray's own code runs up to where it would reach the head over SSH, then its autoscaler's up to a
worker of each kind. The clouds are moto's AWS and stand-ins for Google's API and Azure's SDK; they
refuse what the real ones refuse of a node's settings.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import ray.autoscaler
from botocore.exceptions import ParamValidationError
from click import ClickException
from googleapiclient.errors import HttpError
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.tags import TAG_RAY_USER_NODE_TYPE

from tests.unit.cluster.fake_aws import Made, account
from tests.unit.cluster.fake_azure import GROUP, Azure, AzureError, subscription
from tests.unit.cluster.fake_google import PROJECT, ZONE, Google, project
from tests.unit.cluster.launcher import CLUSTER, FILES, Config, Up, node_configs, ray_up, read

pytestmark = pytest.mark.full

NAMES = [file.stem for file in FILES]
PLACES = [(), ("auth",), ("docker",), ("available_node_types", "spot")]
IMAGE = "registry.example.com/segan-ray"
CLOUDS = ("AWS_", "AZURE_", "BOTO_", "CLOUDSDK_", "GCE_", "GOOGLE_", "MOTO_", "RAY_")
SPOT = {"head": False, "spot": True, "gpu": True}


@pytest.fixture(scope="module", autouse=True)
def _nobodys_cloud() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for variable in [name for name in os.environ if name.startswith(CLOUDS)]:
            patch.delenv(variable)
        yield


# Ray's schema


def test_every_file_is_known() -> None:
    assert NAMES == ["aws", "azure", "gcp", "on-premise"]


@pytest.mark.parametrize("name", NAMES)
def test_ray_takes_the_file(name: str) -> None:
    validate_config(prepare_config(read(name)))


@pytest.mark.parametrize(
    ("name", "place"),
    [(name, place) for name in NAMES for place in PLACES if name != "on-premise" or len(place) < 2],
)
def test_ray_refuses_what_it_does_not_know(name: str, place: tuple[str, ...]) -> None:
    config = read(name)
    section = config
    for key in place:
        section = section[key]
    section["max_worker"] = 8
    with pytest.raises(ValidationError, match="max_worker"):
        validate_config(prepare_config(config))


@pytest.mark.parametrize("name", NAMES)
def test_ray_knows_all_that_is_said_of_the_provider(name: str) -> None:
    # Ray's schema lets anything else in here, and nothing reads it.
    schema = Path(ray.autoscaler.__file__).with_name("ray-schema.json")
    known = json.loads(schema.read_text())["properties"]["provider"]["properties"]
    assert read(name)["provider"].keys() <= known.keys()


# What Ray does before it reaches the head over SSH


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> tuple[Up, Made]:
    with account() as cloud:
        return ray_up("aws", tmp_path_factory.mktemp("aws"), cloud.fill_in), cloud.made()


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> tuple[Up, Azure]:
    with subscription() as cloud:
        return ray_up("azure", tmp_path_factory.mktemp("azure")), cloud


@pytest.fixture(scope="module")
def gcp(tmp_path_factory: pytest.TempPathFactory) -> tuple[Up, Google]:
    with project() as cloud:
        return ray_up("gcp", tmp_path_factory.mktemp("gcp")), cloud


@pytest.fixture(scope="module")
def on_premise(tmp_path_factory: pytest.TempPathFactory) -> tuple[Up, None]:
    return ray_up("on-premise", tmp_path_factory.mktemp("on-premise")), None


@pytest.fixture(params=["aws", "azure", "gcp", "on_premise"])
def up(request: pytest.FixtureRequest) -> Up:
    return request.getfixturevalue(request.param)[0]


def test_the_head_is_set_up_as_the_file_says(up: Up) -> None:
    assert up.head["docker_config"]["image"].startswith(f"{IMAGE}:")
    assert {"--user=1000:1000", "--env=RAY_AUTH_MODE=token"} <= {
        *up.head["docker_config"]["run_options"]
    }
    (start,) = [line for line in up.head["ray_start_commands"] if "ray start" in line]
    assert {"--head", "--dashboard-host=127.0.0.1"} <= {*start.split()}
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in start.split()
    assert "RAY_enable_autoscaler_v2=1" in start


def test_nothing_trains_on_the_head(up: Up) -> None:
    # What Ray tells the head of its resources counts more than --num-cpus.
    assert up.head.get("node_resources", {}).get("CPU", 0) == 0


def test_what_the_driver_keeps_outlives_its_container(up: Up) -> None:
    assert "--volume=segan-ray-records:/records" in up.head["docker_config"]["head_run_options"]


@pytest.mark.parametrize("name", NAMES)
def test_a_node_starts_with_what_it_needs_or_not_at_all(name: str, tmp_path: Path) -> None:
    for role in ("head", "worker"):
        home = tmp_path / role
        home.mkdir()
        # The cluster's nodes have no storage.env yet.
        assert _start(name, role, home) is None
        (home / "records.env").write_text("OPTUNA_STORAGE=postgresql://u:planted@db/x\n")
        (home / "storage.env").write_text("SEGAN_RAY_STORAGE=s3://segan/sweeps\n")
        started = _start(name, role, home)
        assert started is not None
        assert started["SEGAN_RAY_STORAGE"] == "s3://segan/sweeps"
        assert ("OPTUNA_STORAGE" in started) is (role == "head")
        assert ("planted" in (home / "records.env").read_text()) is (role == "head")


def _start(name: str, role: str, home: Path) -> dict[str, str] | None:
    """Run the commands of a file that start Ray; return the environment of ``ray start``."""
    bin_ = home / "bin"
    bin_.mkdir(exist_ok=True)
    ray_ = bin_ / "ray"
    ray_.write_text('#!/bin/sh\n[ "$1" = stop ] || env >"$HOME/started"\n')
    ray_.chmod(0o755)
    path = {"PATH": f"{bin_}:{os.environ['PATH']}", "HOME": str(home), "RAY_HEAD_IP": "10.0.0.1"}
    for command in read(name)[f"{role}_start_ray_commands"]:
        done = subprocess.run(["bash", "-c", command], env=path, check=False, capture_output=True)
        if done.returncode:
            return None
    lines = (home / "started").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_the_head_reads_no_path_of_another_machine(up: Up) -> None:
    mounts = up.autoscaler.get_config("file_mounts")
    assert mounts == {path: path for path in mounts}
    assert up.autoscaler.get_config("auth")["ssh_private_key"] == "~/ray_bootstrap_key.pem"


def test_workers_are_known_by_what_they_have(up: Up) -> None:
    workers = up.kinds.keys() - {up.autoscaler.get_head_node_type()}
    assert workers in (set(), {"spot", "gpu"})
    for name in workers:
        assert up.kinds[name].resources["CPU"] == 8
        assert 16e9 < up.kinds[name].resources["memory"] < 32e9
        assert up.kinds[name].resources.get("GPU", 0) == (name == "gpu")
        assert up.kinds[name].max_worker_nodes > 0


# AWS


def test_aws_gives_what_the_file_asks_for(aws: tuple[Up, Made]) -> None:
    up, made = aws
    assert {name: "InstanceLifecycle" in one for name, one in made.machines.items()} == SPOT
    for name, machine in made.machines.items():
        assert machine["InstanceType"] == node_configs(read("aws"))[name]["InstanceType"]
        assert machine["MetadataOptions"]["HttpTokens"] == "required"
        assert machine["MetadataOptions"]["HttpPutResponseHopLimit"] == 2
        role = "head" if name == "head" else "worker"
        assert machine["IamInstanceProfile"]["Arn"].endswith(f"/segan-ray-{role}")
    key = Path(up.head["auth_config"]["ssh_private_key"]).stem
    assert {machine["KeyName"] for machine in made.machines.values()} == {key}


def test_aws_encrypts_the_disks(aws: tuple[Up, Made]) -> None:
    assert len(aws[1].disks) == len(SPOT)
    for disk in aws[1].disks:
        assert (disk["Encrypted"], disk["Size"], disk["VolumeType"]) == (True, 200, "gp3")


def test_aws_opens_nothing(aws: tuple[Up, Made]) -> None:
    _, made = aws
    assert not made.open_ports
    for machine in made.machines.values():
        assert [group["GroupId"] for group in machine["SecurityGroups"]] == [made.group]
        assert "PublicIpAddress" not in machine


def test_aws_without_a_group_of_ones_own_is_open_to_the_world(tmp_path: Path) -> None:
    def forget(config: Config) -> None:
        cloud.fill_in(config)
        for node in node_configs(config).values():
            del node["SecurityGroupIds"]

    with account() as cloud:
        ray_up("aws", tmp_path, forget)
        assert cloud.made().open_ports == {22}


@pytest.mark.parametrize(
    ("key", "value"), [("InstanceMarketOption", {}), ("MetadataOptions", {"HttpToken": "required"})]
)
def test_aws_refuses_a_misspelt_setting(tmp_path: Path, key: str, value: Any) -> None:
    def misspell(config: Config) -> None:
        cloud.fill_in(config)
        node_configs(config)["spot"][key] = value

    with account() as cloud, pytest.raises(ParamValidationError, match="Unknown parameter"):
        ray_up("aws", tmp_path, misspell)


def test_aws_refuses_placeholders(tmp_path: Path) -> None:
    with account() as cloud:
        with pytest.raises((AssertionError, ClickException)):
            ray_up("aws", tmp_path)
        assert not cloud.made().machines


def test_aws_is_asked_for_nodes_at_its_own_address(tmp_path: Path) -> None:
    (tmp_path / "records.env").write_text("")
    example = tmp_path / "storage.env"
    said = (CLUSTER / "storage.env.example").read_text()
    example.write_text(said)
    started = _start("aws", "head", tmp_path)
    assert started is not None
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in started.items():
            if variable.startswith("AWS_"):
                patch.setenv(variable, value)
        ec2 = boto3.session.Session().client("ec2", "us-east-1")
        assert ec2.meta.endpoint_url == "https://ec2.us-east-1.amazonaws.com"
    for wrong in ("AWS_ENDPOINT_URL=https://s3.example.com", "AWS_ACCESS_KEY_ID=S3S"):
        (tmp_path / "started").unlink(missing_ok=True)
        example.write_text(f"{said}{wrong}\n")
        assert _start("aws", "head", tmp_path) is None


# Azure


def test_azure_gives_what_the_file_asks_for(azure: tuple[Up, Azure]) -> None:
    machines = {one["vmTags"][TAG_RAY_USER_NODE_TYPE]: one for one in azure[1].machines}
    assert {name: one.get("priority") == "Spot" for name, one in machines.items()} == SPOT
    for name, machine in machines.items():
        asked = node_configs(read("azure"))[name]["azure_arm_parameters"]
        assert machine.items() >= asked.items()
        assert machine["provisionPublicIp"] is False
        assert machine["adminUsername"] == "ubuntu"
    assert azure[1].groups == {GROUP: {"location": "westeurope"}}


@pytest.mark.parametrize("kind", ["head", "spot"])
def test_azure_refuses_a_misspelt_setting(tmp_path: Path, kind: str) -> None:
    def misspell(config: Config) -> None:
        node_configs(config)[kind]["azure_arm_parameters"]["prioritee"] = "Spot"

    with subscription(), pytest.raises(AzureError, match="no parameter 'prioritee'"):
        ray_up("azure", tmp_path, misspell)


# Google


def test_google_gives_what_the_file_asks_for(gcp: tuple[Up, Google]) -> None:
    machines = {one["labels"][TAG_RAY_USER_NODE_TYPE]: one for one in gcp[1].machines}
    assert {
        name: one.get("scheduling", {}).get("provisioningModel") == "SPOT"
        for name, one in machines.items()
    } == SPOT
    for name, machine in machines.items():
        asked = node_configs(read("gcp"))[name]
        assert machine["machineType"] == f"zones/{ZONE}/machineTypes/{asked.pop('machineType')}"
        assert machine.items() >= asked.items()
        (interface,) = machine["networkInterfaces"]
        assert interface.keys() == {"subnetwork"}, "a public address, or another network"
        assert interface["subnetwork"].startswith(f"projects/{PROJECT}/regions/{ZONE[:-2]}/")
        assert ("serviceAccounts" in machine) == (name == "head")


def test_secure_boot_is_on_but_where_drivers_are_put_in(gcp: tuple[Up, Google]) -> None:
    for machine in gcp[1].machines:
        driven = {"key": "install-nvidia-driver", "value": "True"} in machine.get(
            "metadata", {}
        ).get("items", ())
        assert machine["shieldedInstanceConfig"] == {"enableSecureBoot": not driven}


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("head", {"shieldedInstanceConfigs": {}}, "'shieldedInstanceConfigs' at instance"),
        ("spot", {"scheduling": {"preemptable": True}}, "'preemptable' at instance.scheduling"),
        ("gpu", {"disks": [{"type": "PERSISTANT"}]}, "instance.disks.0..type is none of"),
        ("gpu", {"tags": {"items": "gpu"}}, "instance.tags.items is no array"),
    ],
)
def test_google_refuses_a_misspelt_setting(
    tmp_path: Path, kind: str, change: Config, said: str
) -> None:
    def misspell(config: Config) -> None:
        config["auth"]["ssh_private_key"] = "~/.ssh/segan-ray"  # spares making one
        node_configs(config)[kind].update(change)

    with project(), pytest.raises(HttpError, match=said):
        ray_up("gcp", tmp_path, misspell)


# Machines that are there


def test_machines_that_are_there_are_head_and_workers(on_premise: tuple[Up, None]) -> None:
    up, _ = on_premise
    addresses = read("on-premise")["provider"]
    assert up.head["node_id"] == addresses["head_ip"]
    nodes = {address: up.provider.node_tags(address) for address in up.provider.state.get()}
    kinds = {address: tags["ray-node-type"] for address, tags in nodes.items()}
    assert kinds == {addresses["head_ip"]: "head"} | dict.fromkeys(
        addresses["worker_ips"], "worker"
    )
    (kind,) = up.kinds.values()
    assert kind.min_worker_nodes == len(addresses["worker_ips"])


@pytest.mark.parametrize("key", ["head_ip", "worker_ips"])
def test_machines_that_are_there_must_be_named(tmp_path: Path, key: str) -> None:
    with pytest.raises(ClickException, match="Please supply"):
        ray_up("on-premise", tmp_path, lambda config: config["provider"].pop(key))
