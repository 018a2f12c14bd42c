"""Files that users give: YAML, JSON and tables, read within bounds.

A file must be regular and of bounded size before it is read. Its content must be of bounded size
and depth before objects are built of it. A YAML alias counts as the values that it stands for:
nine lines can mean a thousand million values.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from segan_ray.errors import cut, named, said

SETTINGS_BYTES: Final = 2**20
"""The largest file of settings."""
LIST_BYTES: Final = 8 * 2**20
"""The largest file that lists patients, cases or files."""
MOST_SETTINGS: Final = 20_000
"""The most values of a file of settings, each name and each value counted."""
MOST_LISTED: Final = 200_000
"""The most values of a file that lists patients."""
DEEPEST: Final = 64
LONGEST_NUMBER: Final = 40
"""Characters; the widest double has 24, and Python takes quadratic time over longer integers."""
_PIECE_BYTES: Final = 2**20
_TEXT: Final = 100
"""Characters of a text that count as one value more."""

_KINDS: Final = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_NUMBERS: Final = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}
# One string of JSON, or a bracket; possessive, so that a long string is read once.
_BRACKETS: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)


class DocumentError(ValueError):
    """A text is not YAML or JSON; ``line`` counts from 1, or is None if it is unknown."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.line = line

    @property
    def at(self) -> str:
        """`` at line 3``, or nothing."""
        return f" at line {self.line}" if self.line else ""


class BoundsError(DocumentError):
    """A path leads to no regular file, or its content is too large, too deep or too long."""


def read_bytes(path: Path, most: int) -> bytes:
    """Return the content of a regular file of at most ``most`` bytes; never wait for a pipe.

    Raises:
        OSError: if it is missing, a folder, or cannot be read.
        BoundsError: if it is a pipe, device or socket, or larger.
    """
    content = bytearray()
    with open_regular(path) as stream:
        # Piece by piece, since one large read would take its memory before it reads a byte.
        while piece := stream.read(_PIECE_BYTES):
            content += piece
            if len(content) > most:
                raise BoundsError(f"is larger than {most // 2**20} MiB, which no such file is")
    return bytes(content)


@contextmanager
def open_regular(path: Path) -> Iterator[io.BufferedReader]:
    """Open a regular file to read it; never wait for a pipe.

    Raises:
        OSError: if it is missing, a folder, or cannot be read.
        BoundsError: if it is a pipe, device or socket.
    """
    _check_regular(path.stat().st_mode, path)
    # The file may have been replaced since, and opening a pipe would wait without O_NONBLOCK.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    with os.fdopen(handle, "rb") as stream:
        _check_regular(os.fstat(handle).st_mode, path)
        yield stream


def _check_regular(mode: int, path: Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise BoundsError(f"is {kind}; expected a file")


def read_text(path: Path, most: int, encoding: str = "utf-8") -> str:
    """Return the text of a file, read by ``read_bytes``; every line end becomes a line feed.

    Raises:
        OSError, BoundsError: as ``read_bytes``.
        UnicodeDecodeError: if it is no text in ``encoding``.
    """
    return io.TextIOWrapper(io.BytesIO(read_bytes(path, most)), encoding=encoding).read()


def parse_yaml(text: str, most: int = MOST_SETTINGS) -> Any:
    """Return the content of a YAML text of at most ``most`` values.

    Raises:
        BoundsError: if it has more values, is too deep, has too long a number, or holds itself.
        DocumentError: if it is not YAML.
    """
    return _parse_yaml(text, most, yaml.SafeLoader)


def parse_yaml_list(text: str) -> Any:
    """Do as ``parse_yaml`` for up to ``MOST_LISTED`` values, by libyaml if it is installed."""
    return _parse_yaml(text, MOST_LISTED, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _parse_yaml(text: str, most: int, loader: Any) -> Any:
    try:
        _check_yaml(yaml.parse(text, Loader=loader), most)
        return yaml.load(text, Loader=loader)  # noqa: S506 - both loaders are safe ones
    except DocumentError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        problem = error.problem or "it cannot be parsed"
        raise DocumentError(problem, mark.line + 1 if mark else None) from None
    except (yaml.YAMLError, ValueError, OverflowError):
        # A date of the 99th month, a character beyond Unicode.
        raise DocumentError("it cannot be parsed") from None


@dataclass
class _Branch:
    """A mapping or list that is being read: its anchor, size and depth, aliases included."""

    anchor: str | None
    size: int = 1
    depth: int = 1

    def hold(self, size: int, depth: int) -> None:
        self.size += size
        self.depth = max(self.depth, depth + 1)


def _check_yaml(events: Iterable[Any], most: int) -> None:
    """Refuse a text of more than ``most`` values, or with too deep nesting or too long numbers.

    Only the parser's events are read: no node or object is built yet.
    """
    anchors: dict[str, _Branch] = {}
    open_branches = [_Branch(None, size=0)]
    for event in events:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.CollectionStartEvent):
            open_branches.append(_Branch(event.anchor))
            # An alias to a branch that is still open would hold itself.
            anchors.pop(event.anchor or "", None)
        elif isinstance(event, yaml.CollectionEndEvent):
            ended = open_branches.pop()
            open_branches[-1].hold(ended.size, ended.depth)
            if ended.anchor:
                anchors[ended.anchor] = ended
        elif isinstance(event, yaml.ScalarEvent):
            _check_number(event, line)
            # An alias can repeat a long text as well as a long list.
            size = 1 + len(event.value) // _TEXT
            open_branches[-1].hold(size, 1)
            if event.anchor:
                anchors[event.anchor] = _Branch(None, size)
        elif isinstance(event, yaml.AliasEvent):
            _hold_alias(event.anchor, anchors, open_branches, line)
        _check_bounds(open_branches, most, line)


def _hold_alias(
    anchor: str | None, anchors: dict[str, _Branch], open_branches: list[_Branch], line: int
) -> None:
    if anchor is not None and anchor in anchors:
        open_branches[-1].hold(anchors[anchor].size, anchors[anchor].depth)
    elif any(branch.anchor == anchor for branch in open_branches):
        raise BoundsError(f"'*{cut(anchor)}' at line {line} stands inside what it names")
    # The composer refuses an unknown anchor, in its own words.


def _check_bounds(open_branches: list[_Branch], most: int, line: int) -> None:
    deepest = len(open_branches) - 1 + max(0, open_branches[-1].depth - 1)
    if deepest > DEEPEST:
        raise BoundsError(f"is nested more than {DEEPEST} levels deep at line {line}")
    if sum(branch.size for branch in open_branches) > most:
        raise BoundsError(
            f"holds more than {most} values at line {line}, what aliases repeat counted"
        )


def _check_number(event: yaml.ScalarEvent, line: int) -> None:
    if len(event.value) <= LONGEST_NUMBER:
        return
    resolver = yaml.SafeLoader("")
    tag = resolver.resolve(yaml.ScalarNode, event.value, event.implicit)  # type: ignore[no-untyped-call]
    if (event.tag or tag) in _NUMBERS:
        raise BoundsError(f"the number {cut(event.value, 12)} at line {line} is too long")


def parse_json(text: str | bytes) -> Any:
    """Return the content of a JSON text.

    Raises:
        UnicodeDecodeError: if bytes are no UTF.
        DocumentError: if it is not JSON, is too deep, or has too long a number.
    """
    if isinstance(text, bytes):
        # As json does: UTF-8, 16 or 32, with a byte order mark or without.
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    _check_depth(text)
    try:
        return json.loads(text, parse_int=_whole, parse_float=_real)
    except DocumentError:
        raise
    except json.JSONDecodeError as error:
        raise DocumentError(said(error), error.lineno) from None
    except (ValueError, RecursionError) as error:
        raise DocumentError(named(error)) from None


def _check_depth(text: str) -> None:
    depth = 0
    for bracket in _BRACKETS.finditer(text):
        if bracket[0] in "[{":
            depth += 1
        elif bracket[0] in "]}":
            depth -= 1
        if depth > DEEPEST:
            raise DocumentError(f"it is nested more than {DEEPEST} levels deep")


def _whole(digits: str) -> int:
    return int(_short(digits))


def _real(digits: str) -> float:
    return float(_short(digits))


def _short(digits: str) -> str:
    if len(digits) > LONGEST_NUMBER:
        raise DocumentError(f"the number {cut(digits, 12)} is too long")
    return digits
