"""The beginning of a Ray Job: it checks that the node fits the job, then runs the command.

The job's command line runs this as a program; its output goes to the job's log.
"""

from __future__ import annotations

import argparse
import os
import sys

from segan_ray import __version__
from segan_ray.cli.main import main
from segan_ray.home import HOME


def begin() -> None:
    """Check the node, then run segan-ray in this process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--version", required=True)
    parser.add_argument("--home", required=True)
    parser.add_argument("--needs", action="append", default=[])
    parser.add_argument("words", nargs="+")
    arguments = parser.parse_args()
    problem = missing(arguments.version, arguments.needs)
    if problem:
        sys.exit(f"Error: {problem}")
    # The node's own setting of its home goes before the submitter's.
    os.environ.setdefault(HOME, arguments.home)
    sys.argv[1:] = arguments.words
    main()


def missing(version: str, needs: list[str]) -> str | None:
    """Return why this node cannot run a job that ``version`` submitted, or None."""
    if version != __version__:
        return (
            f"segan-ray {__version__} is on the head node, {version} submitted this job. Install "
            f"{version} on every node, or send it along: segan-ray submit --package."
        )
    absent = [name for name in needs if not os.environ.get(name)]
    if absent:
        return (
            f"{', '.join(absent)}: set where the job was submitted, not on the head node, and not "
            "sent because of the password in it. Set it in the environment that Ray's nodes are "
            "started with."
        )
    return None


if __name__ == "__main__":
    begin()
