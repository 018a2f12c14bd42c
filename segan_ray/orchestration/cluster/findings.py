"""Judging the answers of a cluster's nodes: is a sweep safe here, and if not, what is the remedy.

These are pure functions over facts that ``doctor`` gathers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from segan_ray.filesystem.locations import is_url
from segan_ray.home import OPTUNA_STORAGE, STORAGE, TRACKING_URI
from segan_ray.orchestration.cluster.probe import NodeFacts
from segan_ray.redaction import mask

MOST_SKEW_S: Final = 5.0
"""S3's signatures and the times of metrics need clocks that agree."""
LEAST_FREE_BYTES: Final = 2 * 10**9
LEAST_SPEED_MB_S: Final = 5.0
PORTS: Final = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306}
LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Check:
    """The result of a check; ``mend`` says what to do if it is not ok."""

    name: str
    ok: bool
    detail: str
    mend: str = ""
    node: str = ""

    def document(self) -> dict[str, Any]:
        """Return the check as JSON, without secrets."""
        return {
            "name": self.name,
            "ok": self.ok,
            "detail": mask(self.detail),
            "mend": mask(self.mend),
            "node": self.node,
        }

    def sentence(self) -> str:
        """Return the result and the remedy in one line."""
        where = f" on {self.node}" if self.node else ""
        return mask(f"{self.name}{where}: {self.detail}{' ' if self.mend else ''}{self.mend}")


def silence(facts: Iterable[NodeFacts]) -> list[Check]:
    """Judge which nodes did not answer."""
    return [
        Check(
            "answers", False, each.silent,
            "Is segan-ray installed there, and the node healthy? Mend it or take it out.",
            each.node,
        )
        for each in facts
        if each.silent
    ]  # fmt: skip


def versions(facts: Sequence[NodeFacts], here: Mapping[str, str]) -> list[Check]:
    """Judge whether all nodes have our versions of packages; Python's patch version may differ."""
    checks = []
    for package, mine in here.items():
        other = {
            each.node: each.versions[package]
            for each in facts
            if each.versions and _counts(package, each.versions[package]) != _counts(package, mine)
        }
        said = f"{mine} everywhere" if not other else f"{mine} here; {_listed(other)}"
        mend = f"Install {package} {mine} there, or use one image for all nodes." if other else ""
        checks.append(Check(f"version of {package}", not other, said, mend))
    return checks


def tracking(uri: str, hosts: int, disk: str | None) -> Check:
    """Judge an MLflow URI for a cluster of so many ``hosts``; ``disk`` is its network disk."""
    shown, name = mask(uri), "tracking"
    parts = urlsplit(uri)
    if disk is not None:
        return Check(
            name, False, f"{shown} is SQLite on a network disk ({disk}), where it gets corrupted.",
            f"Set {TRACKING_URI} to a server, or --home to a local disk.",
        )  # fmt: skip
    if hosts > 1 and (parts.scheme.partition("+")[0] in ("sqlite", "file", "") or not parts.scheme):
        return Check(
            name, False,
            f"{shown} is a file of one machine, and the cluster has {hosts} hosts: a driver on "
            "another host, or anybody's promote, would not find the runs.",
            f"Set {TRACKING_URI} to a server that every host reaches.",
        )  # fmt: skip
    if hosts > 1 and parts.hostname in LOOPBACK:
        return Check(
            name, False,
            f"{shown} is another server on every host, and the cluster has {hosts}.",
            f"Set {TRACKING_URI} to the server's name in the network.",
        )  # fmt: skip
    return Check(name, True, shown)


def studies(url: str, disk: str | None) -> Check:
    """Judge the storage of Optuna's studies; ``disk`` is its network disk, if any."""
    if disk is None:
        return Check("studies", True, mask(url))
    return Check(
        "studies", False,
        f"{mask(url)} is SQLite on a network disk ({disk}), where it gets corrupted.",
        f"Set {OPTUNA_STORAGE} to a PostgreSQL database, or --home to a local disk.",
    )  # fmt: skip


def server(url: str) -> tuple[str, int] | None:
    """Return host and port of the server that a URL names, or None."""
    parts = urlsplit(url)
    scheme = parts.scheme.partition("+")[0]
    try:
        port = parts.port or PORTS.get(scheme)
    except ValueError:
        return None
    return (parts.hostname, port) if parts.hostname and port else None


def sqlite_file(url: str) -> Path | None:
    """Return the file of an SQLite URL, or None for another URL."""
    scheme, slashes, rest = url.partition(":///")
    if not slashes or scheme.partition("+")[0] != "sqlite":
        return None
    path = rest.partition("?")[0]
    return Path(path) if path and path != ":memory:" else None


def storage(location: str, facts: Sequence[NodeFacts], problem: str = "") -> list[Check]:
    """Judge whether every node reads and writes the storage of checkpoints.

    ``problem`` says why this process could not write there.
    """
    name, shown = "storage", mask(location)
    if problem:
        return [Check(name, False, f"{shown}: {problem}.", f"Mend it or set {STORAGE}.")]
    answered = [each for each in facts if not each.silent]
    broken = [
        Check(
            name, False, f"{shown}: {each.storage_problem}.",
            "Give that node what it needs to read and write there.", each.node,
        )
        for each in answered
        if each.storage_problem
    ]  # fmt: skip
    blind = [each.node for each in answered if not each.reads_storage and not each.storage_problem]
    if blind:
        kind = "is not the same place" if is_url(location) else "is a folder of its own"
        broken.append(
            Check(
                name, False,
                f"{shown} {kind} on {', '.join(blind)}: what a trial saves is lost with its node.",
                f"Set {STORAGE} to a URL (s3://…) or a folder that every node sees.",
            )
        )  # fmt: skip
    return broken or [Check(name, True, f"{shown} is read and written by {_nodes(len(answered))}")]


def store(location: str, facts: Sequence[NodeFacts]) -> list[Check]:
    """Judge whether every node reads the same prepared store."""
    name, answered = "store", [each for each in facts if not each.silent]
    broken = [
        Check(
            name, False, each.store_problem,
            "Copy the store to a URL that every node reads, and give that.", each.node,
        )
        for each in answered
        if each.store_problem
    ]  # fmt: skip
    prints = Counter(each.store for each in answered if each.store)
    if len(prints) > 1:
        usual = prints.most_common(1)[0][0]
        odd = {each.node: str(each.store) for each in answered if each.store not in (usual, None)}
        broken.append(
            Check(
                name, False, f"{mask(location)} has fingerprint {usual}; {_listed(odd)}.",
                "Copy one store to all of them.",
            )
        )  # fmt: skip
    return broken or [Check(name, True, f"{mask(location)} is read by {_nodes(len(answered))}")]


def servers(facts: Sequence[NodeFacts]) -> list[Check]:
    """Tell which nodes reach the servers of records.

    Only the process that runs a sweep writes there, and a network may forbid it to other nodes:
    so a node that cannot reach a server is no failure.
    """
    checks = []
    for name in dict.fromkeys(name for each in facts for name in each.reached):
        answered = [each for each in facts if name in each.reached]
        cut_off = [each.node for each in answered if not each.reached[name]]
        said = (
            f"{', '.join(cut_off)} cannot connect to it: start no sweep there, it may train"
            if cut_off
            else f"{_nodes(len(answered))} can connect to it"
        )
        checks.append(Check(f"{name} from the nodes", True, said))
    return checks


def gpus(facts: Iterable[NodeFacts]) -> list[Check]:
    """Judge whether torch sees the GPUs that Ray hands out, and tell where it cannot compile.

    Steps that are not compiled are slower and right, so that is no failure.
    """
    checks = []
    for each in facts:
        if each.torch_gpus is None:
            continue
        ok = each.torch_gpus >= each.ray_gpus
        said = f"Ray has {each.ray_gpus:g}, torch sees {each.torch_gpus}"
        mend = "" if ok else "Install the driver, and a torch built for its CUDA."
        checks.append(Check("GPUs", ok, said, mend, each.node))
        if each.compile_obstacle is not None:
            slower = f"steps run slower than they could, not compiled: {each.compile_obstacle}"
            checks.append(Check("compiling", True, slower, node=each.node))
    return checks


def clock(node: str, skew_s: float, error_s: float) -> Check:
    """Judge a node's clock, which was read with an error of at most ``error_s``."""
    ok = abs(skew_s) - error_s <= MOST_SKEW_S
    said = f"{skew_s:+.2f} s against this machine (± {error_s:.2f} s)"
    return Check("clock", ok, said, "" if ok else "Let NTP set it.", node)


def disks(facts: Iterable[NodeFacts]) -> list[Check]:
    """Judge the free disk space of each node."""
    return [
        Check(
            "free disk", free >= LEAST_FREE_BYTES, f"{free / 1e9:.1f} GB for {what}",
            "" if free >= LEAST_FREE_BYTES else "Make room, or use another disk.", each.node,
        )
        for each in facts
        for what, free in each.free_bytes.items()
    ]  # fmt: skip


def network(sender: str, receiver: str, megabytes_per_s: float) -> Check:
    """Judge how fast Ray moves data from one node to another."""
    ok = megabytes_per_s >= LEAST_SPEED_MB_S
    mend = "" if ok else "Look at the network between them; two-node trials will crawl."
    said = f"{megabytes_per_s:.0f} MB/s from {sender}"
    return Check("network", ok, said, mend, receiver)


def tokens(mode: str | None, hosts: int) -> Check:
    """Tell whether the cluster asks for a token, and if not, why it should."""
    if mode == "token":
        return Check("authentication", True, "Ray asks for a token")
    mend = "Whoever reaches its ports runs code on it: set RAY_AUTH_MODE=token." * (hosts > 1)
    return Check("authentication", True, "Ray asks for no token.", mend)


def _counts(package: str, version: str) -> str:
    return ".".join(version.split(".")[:2]) if package == "python" else version


def _listed(values: Mapping[str, str]) -> str:
    return ", ".join(f"{value} on {node}" for node, value in values.items())


def _nodes(count: int) -> str:
    return "the one node" if count == 1 else f"all {count} nodes"
