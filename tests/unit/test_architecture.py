"""Who may import whom: engines stay at the edge, and packages know those below them alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import segan_ray

ROOT = Path(segan_ray.__file__).parent
LAYERS = (
    "cli", "api", "terminal", "workflows", "orchestration", "tracking", "evaluation", "search",
    "training", "models", "data",
)  # fmt: skip
"""From the top to the bottom: a package may import those to its right."""
OWNERS = {
    "typer": {"cli"},
    "rich": {"cli", "terminal"},
    "ray": {"orchestration"},
    "mlflow": {"tracking", "workflows"},
    "plotly": {"evaluation"},
    "optuna": {"search"},
    "nibabel": {"data"},
    "SimpleITK": {"data"},
}
"""Who may import an engine, or a library of one purpose."""
MOST_MODULES = 13
"""In a folder, beside its ``__init__``."""


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    return {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imported(module: str) -> frozenset[str]:
    """Everything that a module imports anywhere in it, of ours the module, not what is in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.add(inner if inner in modules() else str(node.module))
    return frozenset(names)


def imports() -> Iterator[tuple[str, str]]:
    return ((module, name) for module in modules() for name in sorted(imported(module)))


def part_of(module: str) -> str:
    """The first name below the package: ``search`` of ``segan_ray.search.space.grid``."""
    return module.partition(".")[2].partition(".")[0]


def is_upward(module: str, name: str) -> bool:
    own, other = part_of(module), part_of(name)
    if other not in LAYERS or not name.startswith("segan_ray."):
        return False
    if own in LAYERS:
        return LAYERS.index(other) < LAYERS.index(own)
    return own != "__main__"


def circle(links: Iterable[tuple[str, str]]) -> list[str]:
    graph: dict[str, set[str]] = {}
    for one, other in links:
        if one != other:
            graph.setdefault(one, set()).add(other)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_engines_stay_where_they_belong() -> None:
    strangers = [
        f"{module} imports {name}"
        for module, name in imports()
        if part_of(module) not in OWNERS.get(name.split(".")[0], {part_of(module)})
    ]
    assert strangers == []


def test_no_module_imports_one_above() -> None:
    assert [
        f"{module} imports {name}" for module, name in imports() if is_upward(module, name)
    ] == []


def test_no_imports_go_in_a_circle() -> None:
    ours = [(module, name) for module, name in imports() if name in modules()]
    assert circle(ours) == []
    # Nor those of packages, in which no two modules need do so. What is in no package is below all.
    package = {name: name.rpartition(".")[0] for name in modules()}
    packages = [(package[module], package[name]) for module, name in ours]
    assert circle(pair for pair in packages if "." in pair[0] and "." in pair[1]) == []


def test_a_folder_can_be_looked_over() -> None:
    folders = Counter(path.parent for path in modules().values() if path.name != "__init__.py")
    assert {str(folder): count for folder, count in folders.items() if count > MOST_MODULES} == {}


def test_a_class_name_means_one_class() -> None:
    trees = (ast.parse(path.read_text()) for path in modules().values())
    names = Counter(
        node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)
    )
    assert [name for name, times in names.items() if times > 1] == []


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
