"""The doctor asks every node of a cluster, and judges from all answers if it is fit for sweeps.

``vital`` returns the checks that ``tune`` and ``train`` need before anything is recorded: those of
loss and corruption. ``examine`` yields all checks.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from segan_ray.errors import ClusterError, SeganRayError, named, said
from segan_ray.filesystem.disks import network_disk
from segan_ray.home import OPTUNA_STORAGE, Home
from segan_ray.orchestration.cluster import findings, probe, session
from segan_ray.orchestration.cluster.findings import Check
from segan_ray.orchestration.cluster.probe import NodeFacts, ProbeRequest

ANSWER_S: Final = 60.0
"""How long a node may take: a busy node starts a process first."""
SENT_BYTES: Final = 64 * 2**20


@dataclass(frozen=True)
class Member:
    """A node of the cluster; ``name`` tells nodes of one host apart."""

    id: str
    host: str
    name: str
    gpus: float


def refuse_if_unfit(home: Home, store: str) -> None:
    """Make sure that this cluster neither loses nor corrupts anything of a sweep.

    Raises:
        ClusterError: with every failed check and its remedy.
    """
    bad = [check for check in vital(home, store) if not check.ok]
    if bad:
        listed = "\n".join(f"- {check.sentence()}" for check in bad)
        raise ClusterError(
            f"This cluster is not fit for a sweep:\n{listed}\nLook again: segan-ray doctor"
        )


def vital(home: Home, store: str | None, members: Sequence[Member] | None = None) -> list[Check]:
    """Return the checks that a sweep needs; on a single machine they are few."""
    nodes = members_of_cluster() if members is None else members
    checks = _records(home, len({node.host for node in nodes}))
    if len(nodes) > 1:
        checks += _nodes(home, store, nodes, closely=False)
    return checks


def examine(home: Home, store: str | None) -> Iterator[Check]:
    """Yield every check as soon as its result is there."""
    nodes = members_of_cluster()
    hosts = len({node.host for node in nodes})
    yield Check("cluster", True, _of(nodes, hosts))
    yield findings.tokens(os.environ.get("RAY_AUTH_MODE"), hosts)
    yield from _records(home, hosts)
    yield from _reached(home)
    yield from _nodes(home, store, nodes, closely=True)
    for node in nodes:
        yield from _clock(node)
    if len(nodes) > 1:
        for sender, receiver in zip(nodes, [*nodes[1:], nodes[0]], strict=True):
            yield _speed(sender, receiver)


def _of(nodes: Sequence[Member], hosts: int) -> str:
    if not session.joined():
        return "this machine by itself; for a cluster say --address or set RAY_ADDRESS"
    where = f"{hosts} hosts" if hosts > 1 else "one host"
    return f"{len(nodes)} nodes on {where}" if len(nodes) > 1 else "1 node"


def members_of_cluster() -> list[Member]:
    """Return the nodes that are alive, this process's node first."""
    here = ray.get_runtime_context().get_node_id()
    alive = sorted(
        (node for node in ray.nodes() if node["Alive"]), key=lambda node: node["NodeID"] != here
    )
    hosts = [node["NodeManagerAddress"] for node in alive]
    return [
        Member(
            node["NodeID"],
            host,
            host if hosts.count(host) == 1 else f"{host} ({node['NodeID'][:6]})",
            node["Resources"].get("GPU", 0),
        )
        for node, host in zip(alive, hosts, strict=True)
    ]


def _studies(home: Home) -> str:
    return os.environ.get(OPTUNA_STORAGE) or f"sqlite:///{home.studies}"


def _records(home: Home, hosts: int) -> list[Check]:
    """Judge the places of records by their addresses alone."""
    url = _studies(home)
    return [
        findings.tracking(home.tracking_uri, hosts, _network_disk(home.tracking_uri)),
        findings.studies(url, _network_disk(url)),
    ]


def _network_disk(url: str) -> str | None:
    file = findings.sqlite_file(url)
    return None if file is None else network_disk(file)


def _reached(home: Home) -> Iterator[Check]:
    """Connect to MLflow and the studies from this process, the only one that writes there."""
    from segan_ray.search.storage.study_storage import open_storage
    from segan_ray.tracking.client.connection import connect

    for name, use in (("tracking", connect), ("studies", open_storage)):
        began = time.monotonic()
        try:
            use(home)
        except SeganRayError as error:
            yield Check(f"{name} answers", False, str(error).replace("\n", " "))
        else:
            took = time.monotonic() - began
            yield Check(f"{name} answers", True, f"in {took:.2f} s, from here")


def _nodes(home: Home, store: str | None, nodes: Sequence[Member], *, closely: bool) -> list[Check]:
    """Ask every node and judge the answers."""
    urls = {"tracking": home.tracking_uri, "studies": _studies(home)} if closely else {}
    servers = {name: server for name, url in urls.items() if (server := findings.server(url))}
    question = ProbeRequest(store, home.storage, secrets.token_hex(8), closely, servers)
    facts, problem = _ask(question, nodes)
    checks = [
        *findings.silence(facts),
        *findings.versions(facts, probe.versions()),
        *findings.storage(home.storage, facts, problem),
    ]
    if store is not None:
        checks += findings.store(store, facts)
    return [*checks, *findings.servers(facts), *findings.gpus(facts), *findings.disks(facts)]


def _ask(question: ProbeRequest, nodes: Sequence[Member]) -> tuple[list[NodeFacts], str]:
    """Return each node's answer, and the problem with writing the mark file for them, if any."""
    problem = ""
    mark = probe.probe_file(question.storage, question.token)
    try:
        probe.write_mark(mark, question.token)
    except Exception as error:  # every file system has errors of its own
        problem = named(error)
    try:
        answers = [
            _on(node, probe.look, node.name, node.host, node.gpus, question) for node in nodes
        ]
        ray.wait(answers, num_returns=len(answers), timeout=ANSWER_S)
        facts = [_answer(node, answer) for node, answer in zip(nodes, answers, strict=True)]
        return facts, problem
    finally:
        with suppress(Exception):
            probe.remove_mark(mark)


def _on(node: Member, function: Any, *arguments: Any) -> Any:
    """Run a function on a node, even on a busy one."""
    strategy = NodeAffinitySchedulingStrategy(node.id, soft=False)
    remote = ray.remote(function).options(num_cpus=0, max_retries=0, scheduling_strategy=strategy)
    return remote.remote(*arguments)


def _answer(node: Member, answer: Any) -> NodeFacts:
    try:
        facts: NodeFacts = ray.get(answer, timeout=0.1)
    except GetTimeoutError:
        ray.cancel(answer, force=True)
        return NodeFacts(node.name, node.host, silent=f"said nothing within {ANSWER_S:.0f} s.")
    except RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return NodeFacts(node.name, node.host, silent=lines[-1][:200] if lines else "was lost.")
    return facts


def _clock(node: Member) -> Iterator[Check]:
    """Compare a node's clock, with the round trip as error; the first call starts a process."""
    with suppress(RayError):
        ray.get(_on(node, probe.now), timeout=ANSWER_S)
        began = time.time()
        there = ray.get(_on(node, probe.now), timeout=ANSWER_S)
        ended = time.time()
        yield findings.clock(node.name, there - (began + ended) / 2, (ended - began) / 2)


def _speed(sender: Member, receiver: Member) -> Check:
    """Measure how fast Ray sends data from node to node."""
    try:
        sent = _on(sender, _some_bytes)
        ray.wait([sent], timeout=ANSWER_S, fetch_local=False)
        took: float = ray.get(_on(receiver, _fetched_in, [sent]), timeout=ANSWER_S)
    except RayError as error:
        problem = f"nothing came from {sender.name} ({said(error)})"
        return Check("network", False, problem, node=receiver.name)
    return findings.network(sender.name, receiver.name, SENT_BYTES / 1e6 / took)


def _some_bytes() -> bytes:
    return os.urandom(SENT_BYTES)


def _fetched_in(sent: list[Any]) -> float:
    began = time.monotonic()
    ray.get(sent[0])
    return max(time.monotonic() - began, 1e-6)
