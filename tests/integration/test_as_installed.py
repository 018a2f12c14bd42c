"""The wheel in a clean environment outside the clone, with its smallest set of packages."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from segan_ray import __version__
from tests.integration.environments import make_environment, run

pytestmark = [pytest.mark.full, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
POSTGRES = "postgresql://me:planted@127.0.0.1:1/studies"


@pytest.fixture(scope="module")
def built() -> Iterator[Path]:
    """The folder with the wheel and the source archive."""
    with tempfile.TemporaryDirectory(prefix="segan-ray-dist-") as folder:
        run(["make", "dist", f"DIST={folder}"], ROOT, own_environment(os.environ["PATH"]))
        yield Path(folder)


@pytest.fixture(scope="module")
def outside(built: Path) -> Iterator[Path]:
    """A folder outside the clone with an environment, ``venv``, that has the wheel installed."""
    with tempfile.TemporaryDirectory(prefix="segan-ray-wheel-") as name:
        folder = Path(name)
        make_environment(folder / "venv", "segan-ray[phantom]")
        (wheel,) = built.glob("*.whl")
        # Without an index: what is there has to be enough.
        pip = [str(folder / "venv/bin/pip"), "install", "--no-index", f"{wheel}[phantom]"]
        run(pip, folder, own_environment())
        yield folder


def own_environment(path: str = os.defpath) -> dict[str, str]:
    """What is set where no test runs."""
    kept = {name: value for name, value in os.environ.items() if name in {"HOME", "LANG", "TMPDIR"}}
    return {**kept, "PATH": path}


def segan_ray(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(folder / "venv/bin/segan-ray"), *words], cwd=folder, check=False, timeout=900,
        env={**own_environment(), **environment}, capture_output=True, text=True,
    )  # fmt: skip


def test_archives_hold_the_package_and_its_files(built: Path) -> None:
    (wheel,), (source,) = built.glob("*.whl"), built.glob("*.tar.gz")
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {"segan_ray/py.typed", "segan_ray/search_spaces/demo.yaml",
            "segan_ray/evaluation/viewer/niivue.js",
            f"segan_ray-{__version__}.dist-info/licenses/LICENSE"} <= held  # fmt: skip
    assert {name.split("/")[0] for name in held} == {
        "segan_ray", f"segan_ray-{__version__}.dist-info"
    }  # fmt: skip
    with tarfile.open(source) as archive:
        below = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "CITATION.cff", "constraints.txt", "tests/conftest.py"} <= below
    # An index shows the README beside no files, so its links lead to the repository.
    with zipfile.ZipFile(wheel) as archive:
        said = archive.read(f"segan_ray-{__version__}.dist-info/METADATA").decode()
    assert "](docs/" not in said
    assert f"/blob/v{__version__}/docs/search.md" in said
    assert f"/raw/v{__version__}/docs/images/overlay.png" in said


def test_the_demo_runs(outside: Path) -> None:
    done = segan_ray(outside, "demo", "--small")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    left = outside / "segan-ray-home" / "demo"
    assert (left / "report.html").stat().st_size > 10_000
    scored = json.loads((left / "evaluation.json").read_text())
    assert scored["model"] == "champion"
    assert {"threshold", "unet"} <= scored["references"].keys()


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        (["phantom", "old", "--layout", "brats2013", "--spacing", "8", "--cases", "1"], {},
         r"\.mha\) needs SimpleITK, which is not installed\. .*'segan-ray\[itk\]'"),
        (["prepare", "segan-ray-home/demo/small-data", "corrected", "--n4"], {},
         r"N4\) needs SimpleITK, which is not installed\. .*'segan-ray\[itk\]'"),
        (["sweeps"], {"MLFLOW_TRACKING_URI": POSTGRES},
         r"PostgreSQL database needs psycopg2?, which is not .*'segan-ray\[postgres\]'"),
        (["tune", "segan-ray-home/demo/small-store", "--space", "smoke"],
         {"OPTUNA_STORAGE": POSTGRES}, r"'segan-ray\[postgres\]'"),
        (["export", "champion", "exported"], {},
         r"onnx and onnxscript, which are not installed\. .*'segan-ray\[export\]'"),
        (["train", "s3://bucket/store"], {},
         r"nothing is installed that reads s3://\. .*'segan-ray\[s3\]'"),
        (["tune", "segan-ray-home/demo/small-store", "--space", "smoke", "--name", "there"],
         {"SEGAN_RAY_STORAGE": "s3://bucket/sweeps"},
         r"nothing is installed that reads s3://\. .*'segan-ray\[s3\]'"),
    ],
    ids=["mha", "n4", "records", "studies", "onnx", "store", "checkpoints"],
)  # fmt: skip
def test_what_an_extra_brings_is_said(
    outside: Path, words: list[str], environment: dict[str, str], said: str
) -> None:
    done = segan_ray(outside, *words, **environment)
    assert done.returncode == 1
    assert re.search(said, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert "planted" not in done.stderr


def test_without_the_template_brain_phantoms_say_so(outside: Path) -> None:
    run(
        [str(outside / "venv/bin/pip"), "uninstall", "--yes", "nilearn"], outside, own_environment()
    )
    done = segan_ray(outside, "demo", "--small", "--home", "second")
    assert done.returncode == 1
    assert "pip install 'segan-ray[phantom]'" in done.stderr
