"""What a single run writes down of itself, so that it can be gone on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from segan_ray.config import Experiment, build
from segan_ray.home import Home

NAME: Final = "run.json"


def run_file(home: Home, name: str) -> Path:
    """Return where a run writes down its settings, its store, and where its files are."""
    return home.sweeps / name / NAME


def recorded_experiment(home: Home, name: str) -> Experiment | None:
    """Return the settings of an earlier run of that name, or None."""
    file = run_file(home, name)
    return build(_content(file)["experiment"], str(file)) if file.exists() else None


def recorded_place(home: Home, name: str) -> str | None:
    """Return where an earlier run of that name is recorded, or None where it does not say."""
    file = run_file(home, name)
    return _content(file).get("records") if file.exists() else None


def _content(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content
