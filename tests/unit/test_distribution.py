"""What is released besides the code agrees with it: recipe, images, citation, addresses."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rattler_build import Stage0Recipe, VariantConfig

from segan_ray import __version__
from segan_ray.errors import NotInstalledError
from segan_ray.extras import check_installed

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "conda" / "recipe.yaml"
DOCKERFILE = ROOT / "cluster" / "Dockerfile"
DEFINITION = ROOT / "cluster" / "slurm" / "segan-ray.def"
CONDA_NAMES = {"torch": "pytorch", "psycopg2-binary": "psycopg2"}
"""What conda-forge calls the packages that pip knows under another name."""
OF_USERS = ("phantom", "itk", "export", "s3", "postgres")
"""The extras with packages of their own that are no tools of developers."""


def project() -> dict[str, Any]:
    content: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return content


def recipe() -> dict[str, Any]:
    (variant,) = Stage0Recipe.from_file(str(RECIPE)).render(VariantConfig())
    content: dict[str, Any] = variant.recipe.to_dict()
    return content


def as_conda(lines: list[str]) -> set[str]:
    """Requirements as pip reads them, as conda does."""
    said = set()
    for requirement in map(Requirement, lines):
        name = canonicalize_name(requirement.name)
        versions = ",".join(sorted(map(str, requirement.specifier), reverse=True))
        names = [CONDA_NAMES.get(name, name)]
        if name == "ray":
            names = [f"ray-{extra}" for extra in requirement.extras]
        said |= {f"{each} {versions}" for each in names if name != "segan-ray"}
    return said


def test_the_conda_package_needs_what_the_wheel_needs() -> None:
    needs = recipe()["requirements"]
    python = project()["requires-python"]
    assert set(needs["run"]) == as_conda(project()["dependencies"]) | {f"python {python}"}
    extras = project()["optional-dependencies"]
    users = [
        line for name in ("phantom", "itk", "export", "s3", "postgres") for line in extras[name]
    ]
    assert set(needs["run_constraints"]) == as_conda(users)


def test_every_users_extra_is_in_all() -> None:
    extras = project()["optional-dependencies"]
    reached, waiting = set(), ["all"]
    while waiting:
        extra = waiting.pop()
        reached.add(extra)
        for each in map(Requirement, extras[extra]):
            waiting += each.extras if each.name == "segan-ray" else ()
    assert reached == extras.keys() - {"dev", "docs", "test"}


def test_versions_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert recipe()["package"]["version"] == __version__
    assert f"-t segan-ray:{__version__} ." in DOCKERFILE.read_text()


def test_addresses_agree() -> None:
    home = project()["urls"]["Repository"]
    assert all(url.startswith(home) for url in project()["urls"].values())
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["repository-code"] == home
    assert recipe()["about"]["repository"].rstrip("/") == home
    assert project()["urls"]["Security"] in (ROOT / "SECURITY.md").read_text()
    assert f'org.opencontainers.image.source="{home}"' in DOCKERFILE.read_text()


def test_pythons_that_are_named_are_those_that_are_tested() -> None:
    named = {
        line.rpartition(" ")[2]
        for line in project()["classifiers"]
        if re.search(r":: 3\.\d+$", line)
    }
    workflow = yaml.safe_load((ROOT / ".github/workflows/checks.yml").read_text())
    assert named == set(workflow["jobs"]["checks"]["strategy"]["matrix"]["python"])


def sections() -> dict[str, list[str]]:
    """The sections of Apptainer's definition, what is before the first under ''."""
    found: dict[str, list[str]] = {"": []}
    name = ""
    for line in DEFINITION.read_text().splitlines():
        if line.startswith("%"):
            name = line[1:].strip()
            found[name] = []
        elif line.strip() and not line.strip().startswith("#"):
            found[name].append(line.strip())
    return found


def test_apptainers_image_is_made_as_dockers() -> None:
    docker = DOCKERFILE.read_text().replace("\\\n", " ")
    parts = sections()
    base = re.search(r"(?m)^ARG PYTHON=(\S+)$", docker)
    assert base
    assert f"From: python:{base[1]}" in parts[""]
    installs = re.findall(r"(?m)^RUN (pip .*)$", docker)
    assert [line for line in parts["post"] if line.startswith("pip ")] == installs
    copied = {
        word for words in re.findall(r"(?m)^COPY (.*) \S+$", docker) for word in words.split()
    }
    pairs = [line.split() for line in parts["files"]]
    assert {source for source, _ in pairs} == copied
    assert all(target == f"/opt/segan-ray/{source}" for source, target in pairs)
    assert all((ROOT / source).exists() for source in copied)


def test_what_is_missing_is_said() -> None:
    check_installed("Nothing", "all", "json", "yaml")
    with pytest.raises(NotInstalledError) as caught:
        check_installed("This work", "itk", "json", "not_there", "nor_this")
    assert str(caught.value) == (
        "This work needs not_there and nor_this, which are not installed. "
        "Install what it needs: pip install 'segan-ray[itk]'"
    )
