"""constraints.txt pins all packages that pyproject.toml leads to, and no others.

The tools of the documentation are installed by ``make docs`` alone. Where they are not, what they
lead to cannot be asked: then a pin that is not installed counts as theirs.
"""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = "segan-ray"
DOCS = "docs"
"""The extra that is not always installed."""


def pins() -> dict[str, str]:
    text = (ROOT / "constraints.txt").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    pairs = [re.fullmatch(r"(\S+)==(\S+)", line) for line in lines]
    assert all(pairs), [line for line, pair in zip(lines, pairs, strict=True) if pair is None]
    return {canonicalize_name(pair[1]): pair[2] for pair in pairs if pair}


def asked_of(name: str, extra: str) -> list[str]:
    # As the file says now, whenever it was installed.
    file = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = file["project"]
    # A build of torch for CUDA asks for more, which is pinned nowhere.
    every_build = {each["name"]: each for each in file["tool"]["uv"]["dependency-metadata"]}
    lines: list[str]
    if name == PROJECT:
        lines = project["optional-dependencies"][extra] if extra else project["dependencies"]
    elif name in every_build:
        lines = every_build[name]["requires-dist"]
    else:
        lines = distribution(name).requires or []
    return lines


def needed(name: str, extra: str) -> list[tuple[str, str]]:
    """The requirements of a package, with one extra or none: names and their extras."""
    environment = {**default_environment(), "extra": extra}
    asked = [Requirement(line) for line in asked_of(name, extra)]
    return [
        (canonicalize_name(each.name), option)
        for each in asked
        if each.marker is None or each.marker.evaluate(environment)
        for option in ("", *each.extras)
    ]


def is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def has_docs() -> bool:
    return all(is_installed(name) for name, _ in needed(PROJECT, DOCS))


def closure() -> set[str]:
    """Every package that the project leads to, with all its extras that are installed."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    waiting = [(PROJECT, extra) for extra in ("", *extras) if extra != DOCS or has_docs()]
    seen: set[tuple[str, str]] = set()
    while waiting:
        package = waiting.pop()
        if package not in seen:
            seen.add(package)
            waiting += needed(*package)
    return {name for name, _ in seen} - {PROJECT}


def test_every_package_of_the_closure_is_pinned_and_no_other() -> None:
    assert {name for name, _ in needed(PROJECT, DOCS)} <= pins().keys()
    asked = {name for name in pins() if has_docs() or is_installed(name)}
    assert sorted(asked) == sorted(closure())


def test_installed_versions_are_the_pinned_versions() -> None:
    # Which build of torch it is, after the "+", is the index's.
    asked = {name: pin for name, pin in pins().items() if has_docs() or is_installed(name)}
    installed = {name: distribution(name).version.partition("+")[0] for name in asked}
    assert installed == asked
