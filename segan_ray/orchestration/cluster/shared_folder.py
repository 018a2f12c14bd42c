"""Checking that nodes share the folder of checkpoints: the driver makes it, workers look for it.

The doctor asks the nodes that are there when a sweep begins. A node that joins later may have a
folder of its own at the same path, and the checkpoints of its trials would be lost with it.
"""

from __future__ import annotations

from pathlib import Path

from segan_ray.errors import TrialError
from segan_ray.filesystem.locations import is_url
from segan_ray.home import STORAGE


def make_shared(checkpoints: str) -> None:
    """Make the folder of a sweep's checkpoints; a URL needs none."""
    if not is_url(checkpoints):
        Path(checkpoints).mkdir(parents=True, exist_ok=True)


def check_shared(checkpoints: str, node: str) -> None:
    """Make sure, on ``node``, that the folder that the driver made is there.

    Raises:
        TrialError: if it is not there.
    """
    if not is_url(checkpoints) and not Path(checkpoints).is_dir():
        raise TrialError(
            f"{checkpoints} is not there on {node}: what a trial saves would be lost with that "
            f"node. Set {STORAGE} to a URL (s3://…) or a folder that every node sees."
        )
