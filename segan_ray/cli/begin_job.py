"""The beginning of a Ray Job: is this node as the one who submitted it needs it? Then the command.

Run as a program by the job's command line; what is said goes to the job's log.
"""

from __future__ import annotations

import argparse
import os
import sys

from segan_ray import __version__
from segan_ray.cli.main import main
from segan_ray.home import HOME


def begin() -> None:
    """Check what was asked for, then run segan-ray in this process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--version", required=True)
    parser.add_argument("--home", required=True)
    parser.add_argument("--needs", action="append", default=[])
    parser.add_argument("words", nargs="+")
    asked = parser.parse_args()
    problem = missing(asked.version, asked.needs)
    if problem:
        sys.exit(f"Error: {problem}")
    # What the node says of its home counts more than where the submitter would have had it.
    os.environ.setdefault(HOME, asked.home)
    sys.argv[1:] = asked.words
    main()


def missing(version: str, needs: list[str]) -> str | None:
    """Return why this node cannot run what was submitted with ``version``, if it cannot."""
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
