"""Who may import whom: the engines stay at the edge, and rooms know only those below them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import segan_ray

PACKAGE = Path(segan_ray.__file__).parent

# From the top of the house to the bottom: a room may import those to its right.
ROOMS = (
    "cli", "orchestration", "tracking", "evaluation", "search", "training", "models", "data",
)  # fmt: skip
OWNERS = {
    "typer": {"cli"},
    "ray": {"orchestration"},
    "mlflow": {"tracking"},
    "plotly": {"evaluation"},
    "optuna": {"search"},
    "nibabel": {"data"},
    "SimpleITK": {"data"},
}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0]
        yield room.removesuffix(".py"), path


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(("room", "path"), list(modules()), ids=lambda value: str(value)[-40:])
def test_engines_stay_in_their_rooms(room: str, path: Path) -> None:
    for name in imported(path):
        owners = OWNERS.get(name.split(".")[0])
        assert owners is None or room in owners, f"{path} imports {name}"


@pytest.mark.parametrize(("room", "path"), list(modules()), ids=lambda value: str(value)[-40:])
def test_no_room_imports_one_above(room: str, path: Path) -> None:
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "segan_ray" or len(parts) < 2 or parts[1] not in ROOMS:
            continue
        if room in ROOMS:
            assert ROOMS.index(parts[1]) >= ROOMS.index(room), f"{path} imports {name}"
        else:
            assert room in {"__init__", "__main__"}, f"{path} (below all rooms) imports {name}"


def test_the_core_runs_without_engines() -> None:
    """Importing what trains loads no Ray, MLflow, Optuna or MONAI."""
    code = (
        "import sys, segan_ray.training.fit, segan_ray.training.checkpoints.checkpoint, "
        "segan_ray.data.store.prepare, segan_ray.models.build; "
        "print([m for m in ('ray', 'mlflow', 'optuna', 'monai', 'typer') if m in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"
