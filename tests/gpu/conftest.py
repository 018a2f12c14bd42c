"""The device of these checks, and the table that they fill."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
import torch

DEVICE: Final = torch.device("cuda" if torch.cuda.is_available() else "cpu")
OUT: Final = Path(os.environ.get("GPU_CHECK_OUT", "gpu-check.json"))
Row = Callable[[str, str], None]
ROWS: Final = pytest.StashKey[list[tuple[str, str]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(autouse=True)
def nothing_compiled() -> None:
    """Forget the graphs of the test before, as a process of its own would not have them."""
    torch.compiler.reset()


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Row:
    """Add a line to the table: what was looked at, and what was seen."""
    return lambda what, seen: request.config.stash[ROWS].append((what, seen))


@pytest.fixture
def cuda() -> torch.device:
    if DEVICE.type != "cuda":
        pytest.skip("needs a GPU")
    return DEVICE


@pytest.fixture
def device() -> torch.device:
    return DEVICE


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.stats
    counts = {kind: len(reports.get(kind, [])) for kind in ("passed", "failed", "skipped")}
    rows = terminalreporter.config.stash[ROWS]
    machine = {
        "device": torch.cuda.get_device_name() if DEVICE.type == "cuda" else "CPU",
        "torch": torch.__version__, "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()), "python": platform.python_version(),
    }  # fmt: skip
    write = terminalreporter.write_line
    terminalreporter.section("checks on " + machine["device"])
    write(", ".join(f"{name} {value}" for name, value in machine.items() if name != "device"))
    width = max((len(what) for what, _ in rows), default=0)
    for what, seen in rows:
        write(f"{what:<{width}}  {seen}")
    OUT.write_text(json.dumps({**machine, **counts, "seen": dict(rows)}, indent=1) + "\n")
    write(f"All of it: {OUT}")
