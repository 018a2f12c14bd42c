"""The notebooks of ``examples/``: their scripts as notebooks, run in a kernel of Jupyter."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jupytext
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT: Final = Path(__file__).parents[2]
EXAMPLES: Final = ROOT / "examples"
ORDER: Final = (
    "first_sweep", "own_brats_folder", "read_a_sweep", "compare_arms", "raw_arrays",
)  # fmt: skip
"""The notebooks as they are run: all but the second go on from what the first made."""
SETTINGS: Final = "parameters"
"""The tag of the cell whose constants may be given other values."""
CELL_S: Final = 900
"""How long a cell may take."""
OURS: Final = re.compile(r"(RAY|MLFLOW|OPTUNA|SEGAN_RAY|JUPYTER|PYTEST)_")
"""Variables that would lead a kernel to other records or a cluster, or say that it is tested."""


def read(script: Path, settings: Mapping[str, object] | None = None) -> NotebookNode:
    """Return a script as a notebook; ``settings`` replace constants of its cell of settings.

    Raises:
        KeyError: if it has no such constant.
    """
    notebook: NotebookNode = jupytext.read(script, fmt="py:percent")
    left = dict(settings or {})
    for cell in notebook.cells:
        if SETTINGS in cell.metadata.get("tags", ()):
            cell.source = _replaced(cell.source, left)
    if left:
        raise KeyError(f"{script.name} has no settings {', '.join(left)}")
    return notebook


def _replaced(source: str, settings: dict[str, object]) -> str:
    """Return a cell with other values of its constants, which are taken out of ``settings``."""
    lines = source.split("\n")
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name in settings:
                last = node.end_lineno or node.lineno
                lines[node.lineno - 1 : last] = [f"{name} = {settings.pop(name)!r}"] + [""] * (
                    last - node.lineno
                )
    return "\n".join(lines)


def client(notebook: NotebookNode, folder: Path, **options: Any) -> NotebookClient:
    """Return what runs a notebook in ``folder``, in a new kernel."""
    return NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=CELL_S,
        resources={"metadata": {"path": str(folder)}},
        **options,
    )


def environment(columns: int) -> dict[str, str]:
    """Return the variables of a kernel whose views are ``columns`` wide.

    None leads it to other records or to a cluster. Figures come as data, not as scripts.
    """
    own = {name: value for name, value in os.environ.items() if not OURS.match(name)}
    return own | {
        "JUPYTER_COLUMNS": str(columns),
        "PLOTLY_RENDERER": "plotly_mimetype",
        # What is run is this checkout, wherever another is installed.
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [own.get("PYTHONPATH")])]),
    }


def run(notebook: NotebookNode, folder: Path, *, columns: int = 100) -> None:
    """Run every cell of a notebook in ``folder``; the notebook holds the outputs then.

    Raises:
        CellExecutionError: for the first cell that fails, with its traceback.
    """
    client(notebook, folder).execute(env=environment(columns))
