"""Where what a user should know goes, if the caller of a function does not say."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

log = logging.getLogger("segan_ray.api")

Note = Callable[[str], None]
Notes = Callable[[Sequence[str]], None]


def log_note(note: str) -> None:
    """Log a note as information."""
    log.info("%s", note)


def log_notes(notes: Sequence[str]) -> None:
    """Log several notes as information."""
    for note in notes:
        log_note(note)
