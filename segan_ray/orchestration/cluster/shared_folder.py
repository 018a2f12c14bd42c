"""Seeing that nodes share a folder of checkpoints: the sweep's process makes it, workers look.

The doctor asks the nodes that are there when a sweep begins. One that comes later, and has a folder
of its own where the others' is, would keep what its trials save to itself, and lose it.
"""

from __future__ import annotations

from pathlib import Path

from segan_ray.errors import TrialError
from segan_ray.filesystem.locations import is_url
from segan_ray.home import STORAGE


def make_shared(checkpoints: str) -> None:
    """Make the folder of a sweep's checkpoints. At a URL there is nothing to make."""
    if not is_url(checkpoints):
        Path(checkpoints).mkdir(parents=True, exist_ok=True)


def check_shared(checkpoints: str, node: str) -> None:
    """Make sure, on ``node``, that the folder is the one that the sweep's process made.

    Raises:
        TrialError: if it is not there.
    """
    if not is_url(checkpoints) and not Path(checkpoints).is_dir():
        raise TrialError(
            f"{checkpoints} is not there on {node}: what a trial saves would be lost with that "
            f"node. Set {STORAGE} to a URL (s3://…) or a folder that every node sees."
        )
