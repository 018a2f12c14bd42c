"""Characters that a terminal cannot show: plain ones in their place, never an error."""

from __future__ import annotations

import codecs
import io
import sys
from typing import Final

_HANDLER: Final = "segan-ray-plain"
_PLAIN: Final = {
    "–": "-", "—": "-", "−": "-", "…": "...", "×": "x", "·": "*", "•": "*", "±": "+/-", "µ": "u",
    "≤": "<=", "≥": ">=", "≈": "~", "→": "->", "←": "<-", "∩": "&", "│": "|", "─": "-", "━": "-",
    "’": "'", "‘": "'", "“": '"', "”": '"', "\u00a0": " ", "✓": "ok", "✗": "no",
}  # fmt: skip


def show_anything() -> None:
    """Let stdout and stderr take every character in any encoding.

    A file's name may hold bytes that are not text, and tables hold dashes that latin-1 lacks.
    """
    codecs.register_error(_HANDLER, _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return the replacement of a character that a codec lacks, and where it goes on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    plain = _PLAIN.get(character) or character.encode("ascii", "backslashreplace").decode()
    return plain, error.start + 1
