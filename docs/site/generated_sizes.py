"""The table of what each shipped space takes, from ``segan_ray/search/space/estimate.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from segan_ray.search.space.arms_file import load_arms
from segan_ray.search.space.estimate import (
    checkpoint_bytes,
    estimate,
    expected_epochs,
    largest,
    memory_bytes,
)
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.search.space.space_file import load_space

CONCURRENT: Final = 4
"""How many trials at once the table counts with."""
MOST_NETWORKS: Final = 20
"""Of a space with more networks of the largest kind, sizes are left to ``tune``: it takes long."""
MEASURED: Final = {"demo": "6 to 9 min"}
"""Hours that docs/performance.md has."""
HEAD: Final = (
    "| space | trials | epochs, at most | with early stopping | checkpoint, MB | disk, GB "
    "| GPU memory, GB | time |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n"
)


def sizes_text() -> str:
    """Return the table of the shipped spaces."""
    return HEAD + "".join(_row(name, space) for name, space in shipped().items())


def shipped() -> dict[str, SearchSpace]:
    """Return the shipped spaces by name; an arms file gives one for each of its arms."""
    spaces: dict[str, SearchSpace] = {}
    for file in sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml")):
        if "\narms:" in file.read_text(encoding="utf-8"):
            arms = load_arms(file).spaces
            spaces |= {f"{file.stem}, {arm}": space for arm, space in arms.items()}
        else:
            spaces[file.stem] = load_space(file)
    return spaces


def _row(name: str, space: SearchSpace) -> str:
    budget = space.budget
    epochs = space.most_epochs() * space.runs
    expected = expected_epochs(space.scheduler, budget.trials, epochs)
    cells = (
        name,
        f"{budget.trials}",
        f"{budget.trials * epochs:,}",
        "" if expected is None else f"{expected:,}",
        *_sizes(space),
        MEASURED.get(name, "not measured"),
    )
    return f"| {' | '.join(cells)} |\n"


def _sizes(space: SearchSpace) -> tuple[str, str, str]:
    """Return the sizes of a checkpoint, on the disk and in a GPU's memory."""
    if sum(1 for _ in largest(space)) > MOST_NETWORKS:
        return "said by `tune`", "said by `tune`", "said by `tune`"
    budget = space.budget
    takes = estimate(space, budget.trials, CONCURRENT, budget.keep_checkpoints)
    return (
        _rounded(checkpoint_bytes(space) / 1e6),
        _rounded(takes.disk_bytes / 1e9),
        _rounded(memory_bytes(space) / 1e9),
    )


def _rounded(value: float) -> str:
    """Return ``value`` to two digits: an estimate is no more precise."""
    return f"{float(f'{value:.1e}'):,.10g}"
