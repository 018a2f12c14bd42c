"""The findings on a cluster from the answers of its nodes."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from segan_ray.errors import ClusterError
from segan_ray.home import Home
from segan_ray.orchestration.cluster import findings
from segan_ray.orchestration.cluster.findings import Check
from segan_ray.orchestration.cluster.probe import (
    NodeFacts,
    ProbeRequest,
    look,
    probe_file,
    versions,
)
from segan_ray.orchestration.jobs.doctor_job import document_in, examine_by_job

HERE = {"python": "3.11.7", "ray": "2.60.0", "torch": "2.13.0+cpu"}
GOOD = NodeFacts("10.0.0.1", "10.0.0.1", HERE, 1, 1, "abc", "", True, "", {"stores (/x)": 10**12})
OTHER = replace(GOOD, node="10.0.0.2", host="10.0.0.2")


def bad(checks: list[Check]) -> list[str]:
    return [check.sentence() for check in checks if not check.ok]


def test_a_cluster_in_order() -> None:
    nodes = [GOOD, OTHER]
    checks = [
        *findings.silence(nodes),
        *findings.versions(nodes, HERE),
        *findings.storage("s3://b/s", nodes),
        *findings.store("s3://b/store", nodes),
        *findings.gpus(nodes),
        *findings.disks(nodes),
        findings.clock("10.0.0.2", 0.3, 0.1),
        findings.network("10.0.0.1", "10.0.0.2", 900),
        findings.tracking("http://mlflow:5000", 2, None),
        findings.studies("postgresql://u@db/optuna", None),
    ]
    assert len(checks) == 13
    assert bad(checks) == []


def test_versions_that_differ() -> None:
    odd = replace(OTHER, versions={**HERE, "ray": "2.59.0", "python": "3.11.9"})
    (said,) = bad(findings.versions([GOOD, odd], HERE))
    assert said == (
        "version of ray: 2.60.0 here; 2.59.0 on 10.0.0.2 Install ray 2.60.0 there, or use one "
        "image for all nodes."
    )
    older = replace(OTHER, versions={**HERE, "python": "3.12.1"})
    assert "3.12.1 on 10.0.0.2" in bad(findings.versions([GOOD, older], HERE))[0]
    # A silent node is not judged twice.
    assert bad(findings.versions([replace(OTHER, versions={}, silent="lost")], HERE)) == []


def test_a_node_that_says_nothing() -> None:
    (said,) = bad(findings.silence([GOOD, replace(OTHER, silent="No module named 'segan_ray'")]))
    assert said.startswith(
        "answers on 10.0.0.2: No module named 'segan_ray' Is segan-ray installed"
    )


@pytest.mark.parametrize(
    ("uri", "hosts", "disk", "reason"),
    [
        ("sqlite:////home/me/mlflow.db", 2, None, "a file of one machine"),
        ("sqlite:////home/me/mlflow.db", 1, None, None),
        ("sqlite:////nfs/mlflow.db", 1, "nfs4", "SQLite on a network disk (nfs4)"),
        ("file:///home/me/mlruns", 2, None, "a file of one machine"),
        ("/home/me/mlruns", 2, None, "a file of one machine"),
        ("mlruns", 2, None, "a file of one machine"),
        ("http://localhost:5000", 2, None, "another server on every host"),
        ("http://127.0.0.1:5000", 2, None, "another server on every host"),
        ("http://[::1]:5000", 3, None, "another server on every host"),
        ("http://127.0.0.1:5000", 1, None, None),
        ("http://mlflow:5000", 9, None, None),
        ("postgresql+psycopg://u:p@db/mlflow", 9, None, None),
        ("databricks://profile", 9, None, None),
    ],
)
def test_where_runs_are_recorded(uri, hosts: int, disk, reason: str | None) -> None:
    check = findings.tracking(uri, hosts, disk)
    assert check.ok is (reason is None)
    assert reason is None or reason in check.detail
    assert bool(check.mend) is not check.ok
    assert ":p@" not in check.sentence()


def test_studies_on_a_network_disk() -> None:
    assert not findings.studies("sqlite:////nfs/optuna.db", "nfs").ok
    check = findings.studies("postgresql://user:secret@db/optuna", None)
    assert check.ok
    assert "secret" not in str(check.document())


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("sqlite:////a/b.db", "/a/b.db"), ("sqlite:///b.db?timeout=3", "b.db"),
        ("sqlite+pysqlite:////a.db", "/a.db"), ("sqlite:///:memory:", None), ("sqlite://", None),
        ("postgresql:///optuna", None), ("http://x:5000", None),
    ],
)  # fmt: skip
def test_the_file_of_an_sqlite_url(url: str, file: str | None) -> None:
    assert findings.sqlite_file(url) == (None if file is None else Path(file))


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("http://mlflow:5000/x", ("mlflow", 5000)), ("https://u:p@mlflow", ("mlflow", 443)),
        ("postgresql+psycopg2://u:p@db/optuna", ("db", 5432)), ("http://[::1]:5", ("::1", 5)),
        ("sqlite:////a/b.db", None), ("/home/me/mlruns", None), ("databricks://profile", None),
        ("http://mlflow:port", None), ("postgresql:///optuna", None),
    ],
)  # fmt: skip
def test_the_server_of_a_url(url: str, server: tuple[str, int] | None) -> None:
    assert findings.server(url) == server


def test_nodes_that_reach_the_servers_of_records_and_nodes_that_need_not() -> None:
    both = replace(GOOD, reached={"tracking": True, "studies": True})
    kept = replace(OTHER, reached={"tracking": False, "studies": True})
    tracking, studies = findings.servers([both, kept])
    assert tracking.sentence() == (
        "tracking from the nodes: 10.0.0.2 cannot connect to it: start no sweep there, it may train"
    )
    assert studies.detail == "all 2 nodes can connect to it"
    assert tracking.ok
    assert studies.ok
    # Files are not connected to.
    assert findings.servers([GOOD, OTHER]) == []


def test_a_node_tries_to_connect(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        servers = {"tracking": listening.getsockname(), "studies": deaf.getsockname()}
        facts = look("n", "h", 0, ProbeRequest(None, str(tmp_path), "token", True, servers))
    assert facts.reached == {"tracking": True, "studies": False}


def test_storage_that_is_not_shared() -> None:
    (said,) = bad(findings.storage("/home/me/sweeps", [GOOD, replace(OTHER, reads_storage=False)]))
    assert "is a folder of its own on 10.0.0.2" in said
    assert "SEGAN_RAY_STORAGE" in said
    broken = replace(OTHER, reads_storage=True, storage_problem="PermissionError: denied")
    (said,) = bad(findings.storage("s3://b/s", [GOOD, broken]))
    assert said.startswith("storage on 10.0.0.2: s3://b/s: PermissionError: denied.")
    assert len(bad(findings.storage("s3://b/s", [GOOD], "NoSuchBucket"))) == 1
    assert (
        bad(findings.storage("s3://b/s", [replace(GOOD, silent="lost", reads_storage=False)])) == []
    )


def test_a_store_that_differs_or_is_not_there() -> None:
    (said,) = bad(findings.store("/data", [GOOD, replace(OTHER, store=None, store_problem="none")]))
    assert said.startswith("store on 10.0.0.2: none")
    third = replace(GOOD, node="10.0.0.3")
    (said,) = bad(findings.store("/data", [GOOD, third, replace(OTHER, store="def")]))
    assert "fingerprint abc; def on 10.0.0.2" in said


def test_gpus_disks_clocks_and_network() -> None:
    assert "Ray has 2, torch sees 1" in bad(findings.gpus([replace(GOOD, ray_gpus=2)]))[0]
    assert findings.gpus([replace(GOOD, torch_gpus=None)]) == []
    _, slower = findings.gpus([replace(GOOD, compile_obstacle="Triton is not installed")])
    assert slower.ok
    assert slower.detail.endswith("not compiled: Triton is not installed")
    full = replace(GOOD, free_bytes={"stores (/x)": 10**9})
    assert "1.0 GB for stores (/x)" in bad(findings.disks([full]))[0]
    assert not findings.clock("n", -9.0, 0.5).ok
    # A clock read over a slow line may still be right.
    assert findings.clock("n", 6.0, 2.0).ok
    assert not findings.network("a", "b", 1.0).ok


def test_tokens_matter_where_others_may_reach_the_ports() -> None:
    assert findings.tokens("token", 3).mend == ""
    assert findings.tokens(None, 1).mend == ""
    assert "RAY_AUTH_MODE=token" in findings.tokens(None, 2).mend


def test_what_a_node_says_of_itself() -> None:
    found = versions()
    assert found["ray"].startswith("2.")
    assert found["segan-ray"] != "none"
    assert probe_file("s3://b/s", "t") == "s3://b/s/.probe-t"
    assert probe_file("/s", "t", "n") == "/s/.probe-t-n"


def test_no_secret_is_sent_to_a_cluster_in_the_doctors_command(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="holds a password or token") as refused:
        examine_by_job("http://127.0.0.1:1", Home.at(tmp_path), "https://h/store?token=planted")
    assert "planted" not in str(refused.value)


def test_the_document_in_a_jobs_log() -> None:
    log = 'a warning\n{\n not json\n{\n  "ok": true,\n  "checks": []\n}\nError: 1 failed\n'
    assert document_in(log) == {"ok": True, "checks": []}
    assert document_in("nothing\n{\n}\n") is None
