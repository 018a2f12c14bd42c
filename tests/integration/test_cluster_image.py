"""The Dockerfile's install steps in a clean virtual environment, and what an image is for.

The Dockerfile itself is read, instruction by instruction. Of its ``RUN`` lines only ``pip`` is
replayed, word for word: ``apt-get``, ``groupadd`` and ``useradd`` would change this machine. It
finds the packages that the image wants copied from the environment of the tests, which comes from
the same pins: what it still fetches and what it takes out is up to it. The Python that runs the
tests stands for the one of the base image, and ``USER`` is not changed to.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from segan_ray import __version__
from tests.integration.environments import make_environment, plain, run
from tests.unit.shipped import SPACES

pytestmark = [pytest.mark.full, pytest.mark.timeout(2400)]

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "cluster" / "Dockerfile"
SHIPPED = sorted(file.stem for file in SPACES)

LOAD = """
import json, sys
from segan_ray.search.space.space_file import load_space, resolve_space
files = {name: resolve_space(name) for name in sys.argv[1:]}
spaces = {name: load_space(file) for name, file in files.items()}
print(json.dumps({name: [str(files[name]), len(spaces[name].parameters)] for name in spaces}))
"""


@dataclass
class Image:
    """What the instructions so far have made: ``root`` stands for an image's ``/``."""

    root: Path
    workdir: Path
    environment: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()

    @property
    def programs(self) -> Path:
        return self.root / "venv" / "bin"

    def inside(self, path: str) -> Path:
        """Return where a path of the image is on this machine."""
        return self.workdir / path if path[0] != "/" else self.root / path[1:]

    def copy(self, context: Path, *words: str) -> None:
        """Copy as ``COPY`` does: of a folder, what is in it."""
        *sources, target = words
        for source in sources:
            place = self.inside(target)
            if (context / source).is_dir():
                shutil.copytree(context / source, place, dirs_exist_ok=True)
            else:
                shutil.copy(context / source, place / source if target[-1] == "/" else place)

    def install(self, line: str) -> None:
        """Run a line as ``RUN`` does, with this machine's settings of pip."""
        settings = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "VIRTUAL_ENV", "COV_"))
        }
        moved = {
            "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}",
            "TMPDIR": str(self.root / "tmp"),
        }
        run(["/bin/sh", "-c", line], self.workdir, {**settings, **self.environment, **moved})

    def run(self, *command: str) -> str:
        """Run a program of the image where the image starts, with nothing of this machine's."""
        moved = {
            name: str(self.inside(value)) if value[:1] == "/" else value
            for name, value in self.environment.items()
        }
        path = f"{self.programs}{os.pathsep}{os.defpath}"
        return run(command, self.workdir, {**moved, "PATH": path})


def instructions() -> Iterator[tuple[str, str]]:
    """Every instruction of the Dockerfile and what follows its name, on one line."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            name, _, rest = line.partition(" ")
            yield name, rest.strip()


def variables(text: str) -> dict[str, str]:
    """The ``NAME=value`` of an ``ARG`` or ``ENV``."""
    assert "$" not in text, f"not replayed here: {text}"
    return {name: value for name, _, value in (word.partition("=") for word in shlex.split(text))}


def replay(context: Path, image: Image) -> None:
    """Do to ``image`` what the Dockerfile says."""
    for name, rest in instructions():
        match name:
            case "FROM":
                image.environment = {}  # what was an ARG before is not one after
            case "ARG" | "ENV":
                image.environment |= variables(rest)
            case "WORKDIR":
                image.workdir = image.inside(rest)
                image.workdir.mkdir(parents=True, exist_ok=True)
            case "COPY":
                image.copy(context, *rest.split())
            case "RUN" if rest.startswith("pip "):
                image.install(rest)
            case "RUN":
                known = re.fullmatch(r"(apt-get|groupadd) ((?!\bpip\b).)*", rest)
                assert known, f"not replayed here: {rest}"
            case "CMD":
                image.command = tuple(json.loads(rest))
            case _:
                assert name in {"LABEL", "USER"}, f"not replayed here: {name} {rest}"


def sent() -> Iterator[Path]:
    """The files that .dockerignore lets through to the builder."""
    rules = list(ignore_rules())
    for path in ROOT.iterdir():
        if passes(path, rules):
            files = path.rglob("*") if path.is_dir() else [path]
            yield from (file for file in files if file.is_file() and passes(file, rules))


def ignore_rules() -> Iterator[tuple[re.Pattern[str], bool]]:
    """The names that each line of .dockerignore is about, and whether it lets them through."""
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            names = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(.*/)?")
            # What is said of a folder holds for all that is in it.
            yield re.compile(names.replace(r"\*", "[^/]*") + "(/.*)?"), line.startswith("!")


def passes(path: Path, rules: list[tuple[re.Pattern[str], bool]]) -> bool:
    """Whether a path goes to the builder: the last line that is about it decides."""
    name = path.relative_to(ROOT).as_posix()
    return [lets for names, lets in rules if names.fullmatch(name)][-1]


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    # Gigabytes, which are removed even after a failure.
    with tempfile.TemporaryDirectory(prefix="segan-ray-image-") as folder:
        context, root = Path(folder, "context"), Path(folder, "root")
        for file in sent():
            copy = context / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
        root.mkdir()
        make_environment(root / "venv", "segan-ray[cluster]")
        (root / "tmp").mkdir()
        built = Image(root, root)
        replay(context, built)
        shutil.rmtree(context)
        yield built


def test_the_image_answers_when_it_is_started(image: Image) -> None:
    assert image.command[0] == "segan-ray"
    assert "tune" in image.run(*image.command)
    assert image.run("segan-ray", "--version").strip() == f"segan-ray {__version__}"


def test_versions_are_those_that_are_pinned(image: Image) -> None:
    pins = dict(re.findall(r"(?m)^(\S+)==(\S+)$", (ROOT / "constraints.txt").read_text()))
    pinned = {plain(name): version for name, version in pins.items()}
    listed = json.loads(image.run("pip", "list", "--format=json"))
    # Which build of torch it is, after the "+", is the index's.
    there = {plain(each["name"]): each["version"].partition("+")[0] for each in listed}
    assert {name: there[name] for name in ("ray", "torch", "mlflow", "optuna")} == {
        name: pinned[name] for name in ("ray", "torch", "mlflow", "optuna")
    }
    assert there["segan-ray"] == __version__
    unpinned = {"pip", "wheel", "segan-ray"}  # of the base image, and our own
    assert {name: pinned.get(name) for name in there.keys() - unpinned} == {
        name: there[name] for name in there.keys() - unpinned
    }


def test_no_package_lacks_another_or_refuses_it(image: Image) -> None:
    assert "No broken requirements" in image.run("pip", "check")


@pytest.mark.parametrize("program", ["python", "segan-ray", "ray", "mlflow"])
def test_programs_are_there(image: Image, program: str) -> None:
    assert shutil.which(program, path=str(image.programs))
    image.run(program, "--version")


def test_what_a_cluster_needs_can_be_imported(image: Image) -> None:
    modules = "boto3, s3fs, psycopg, psycopg2, torch, ray, mlflow, optuna"
    image.run("python", "-c", f"import {modules}")


def test_shipped_spaces_are_found_by_name(image: Image) -> None:
    assert SHIPPED
    loaded = json.loads(image.run("python", "-c", LOAD, *SHIPPED))
    assert sorted(loaded) == SHIPPED
    for file, parameters in loaded.values():
        assert Path(file).is_relative_to(image.root / "venv")
        assert parameters > 0


def test_what_is_written_is_where_the_image_says(image: Image) -> None:
    before = files_below(image.root)
    image.run("segan-ray", "sweeps")
    written = {Path(path) for path in files_below(image.root) - before}
    assert image.inside("/records") / "mlflow.db" in written
    writable = [image.inside(path) for path in image.environment.values() if path[:1] == "/"]
    assert all(any(path.is_relative_to(folder) for folder in writable) for path in written)


def files_below(folder: Path) -> set[str]:
    return {f"{place}/{name}" for place, _, names in os.walk(folder) for name in names}
