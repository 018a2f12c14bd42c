"""What a single run writes down of itself, so that it can be gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from segan_ray.config import Experiment, build
from segan_ray.documents import SETTINGS_BYTES, parse_json, read_bytes
from segan_ray.errors import SweepError, said
from segan_ray.home import Home

NAME: Final = "run.json"
ANOTHER: Final = "Begin another run."


def run_file(home: Home, name: str) -> Path:
    """Return where a run writes down its settings, its store, and where its files are."""
    return home.sweeps / name / NAME


def recorded_experiment(home: Home, name: str) -> Experiment | None:
    """Return the settings of an earlier run of that name, or None.

    Raises:
        SweepError, ConfigError: if what is written down of it cannot be read.
    """
    file = run_file(home, name)
    return build(read_run(file)["experiment"], str(file)) if file.exists() else None


def recorded_location(home: Home, name: str) -> str | None:
    """Return where an earlier run of that name is recorded, or None where it does not say."""
    file = run_file(home, name)
    return read_run(file).get("records") if file.exists() else None


def read_run(file: Path) -> dict[str, Any]:
    """Return what an earlier run wrote down of itself.

    Raises:
        SweepError: if it cannot be read.
    """
    try:
        content = parse_json(read_bytes(file, SETTINGS_BYTES))
    except (OSError, ValueError) as error:
        raise SweepError(f"{file}: cannot be read ({said(error)}). {ANOTHER}") from None
    whole = isinstance(content, dict) and all(
        isinstance(content.get(key), kind) for key, kind in (("experiment", dict), ("store", str))
    )
    if not whole or not isinstance(content.get("records"), str | None):
        raise SweepError(f"{file}: does not say with what settings the run began. {ANOTHER}")
    return content  # type: ignore[no-any-return]
