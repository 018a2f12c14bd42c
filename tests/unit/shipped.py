"""The space files that come with the package; those of arms are no spaces."""

from __future__ import annotations

from pathlib import Path

import yaml

FILES = sorted((Path(__file__).parents[2] / "search_spaces").rglob("*.yaml"))
SPACES = [file for file in FILES if "arms" not in yaml.safe_load(file.read_text())]
