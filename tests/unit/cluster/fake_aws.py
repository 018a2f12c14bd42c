"""An AWS account in memory, by moto, with the network and the image that a user has there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from ray.autoscaler._private.aws import config, utils
from ray.autoscaler.tags import TAG_RAY_USER_NODE_TYPE

from tests.unit.cluster.launcher import Config, node_configs

REGION = "us-east-1"
POLICIES = ("AmazonEC2FullAccess", "AmazonS3FullAccess")
FAMILIES = ("m6i.", "g5.")


@dataclass(frozen=True)
class Made:
    """What there is of machines by their kind, disks, and ports that the whole internet reaches.

    ``group`` is the security group that the user has.
    """

    machines: dict[str, dict[str, Any]]
    disks: list[dict[str, Any]]
    open_ports: set[int]
    group: str


class Account:
    """A VPC without a way in from outside, but for a group that lets the nodes in to each other."""

    def __init__(self) -> None:
        self.ec2 = boto3.client("ec2", REGION)
        vpc = self.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = self.ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")
        self.subnet = subnet["Subnet"]["SubnetId"]
        self.group = self.ec2.create_security_group(
            GroupName="segan-ray", Description="segan-ray", VpcId=vpc
        )["GroupId"]
        iam = boto3.client("iam", REGION)
        for node in ("head", "worker"):
            iam.create_instance_profile(InstanceProfileName=f"segan-ray-{node}")
        self.image = self.ec2.register_image(Name="ubuntu")["ImageId"]

    def fill_in(self, settings: Config) -> None:
        """Replace what the file leaves to its user."""
        for node in node_configs(settings).values():
            node |= {"ImageId": self.image, "SubnetIds": [self.subnet]}
            node["SecurityGroupIds"] = [self.group]

    def made(self) -> Made:
        instances = [
            machine
            for reservation in self.ec2.describe_instances()["Reservations"]
            for machine in reservation["Instances"]
        ]
        machines = {
            tag["Value"]: machine
            for machine in instances
            for tag in machine["Tags"]
            if tag["Key"] == TAG_RAY_USER_NODE_TYPE
        }
        open_ports = {
            rule["FromPort"]
            for group in self.ec2.describe_security_groups()["SecurityGroups"]
            for rule in group["IpPermissions"]
            if any(addresses["CidrIp"] == "0.0.0.0/0" for addresses in rule["IpRanges"])
        }
        return Made(machines, self.ec2.describe_volumes()["Volumes"], open_ports, self.group)


@contextmanager
def account() -> Iterator[Account]:
    """Let Ray find an account of its own, and no other, where AWS would be."""
    from moto import mock_aws, settings

    caches = (utils.resource_cache, utils.client_cache, config._get_subnets_or_die)
    with pytest.MonkeyPatch.context() as patch:
        _keep_few(patch)
        for check in ("EC2_ENABLE_INSTANCE_TYPE", "ENABLE_KEYPAIR", "ENABLE_AMI"):
            patch.setattr(settings, f"{check}_VALIDATION", True)
        for file in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.setenv(file, os.devnull)
        patch.setattr(boto3, "DEFAULT_SESSION", None)
        # Ray waits for AWS to tell all its parts of a new role.
        patch.setattr(config, "time", SimpleNamespace(sleep=lambda _: None))
        for cache in caches:
            cache.cache_clear()
        with mock_aws(config={"iam": {"load_aws_managed_policies": True}}):
            try:
                yield Account()
            finally:
                for cache in caches:
                    cache.cache_clear()


def _keep_few(patch: pytest.MonkeyPatch) -> None:
    """Of all that AWS has, and that takes moto ten seconds to describe, what Ray asks for here."""
    from moto.ec2.models.instance_types import InstanceTypeBackend
    from moto.iam import models

    machines = [one for one in InstanceTypeBackend.instance_types if one.name.startswith(FAMILIES)]
    patch.setattr(InstanceTypeBackend, "instance_types", machines)
    every = json.loads(models.aws_managed_policies_data)
    policies = json.dumps({name: every[name] for name in POLICIES})
    patch.setattr(models, "aws_managed_policies_data", policies)
    patch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
