"""Passwords and tokens in addresses: finding them, and writing an address without them.

All printed, logged and recorded text goes through ``mask``. It hides too much rather than too
little: a password may hold any character, blanks and quotes too. Each pattern begins at a fixed
text or the edge of a word, and no stretch is searched twice, so that time grows with the length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

MASK: Final = "***"
_Span = tuple[int, int]

# A name before a colon; an IPv6 host has colons too.
_LOGIN: Final = re.compile(r"://(?!\[[\da-f:.]+\])[^\s:/?#@]*:(?=\S)", re.ASCII | re.IGNORECASE)
_PORT: Final = re.compile(r"\d{1,5}(?=[^\w@%+*!$&=~-]|$)", re.ASCII)
_BEFORE_HOST: Final = re.compile(r"@(?=[\w.-]{1,253}(?::\d{1,5})?/)", re.ASCII)
_WORD: Final = re.compile(r"\S*", re.ASCII)
_TOKEN_AS_USER: Final = re.compile(
    r"(?:(?<=http://)|(?<=https://))[^\s:/?#@]+(?=@)", re.ASCII | re.IGNORECASE
)
_ALWAYS: Final = "password|passwd|pwd|secret|token|api_?key|access_?key"
_IN_A_QUERY: Final = (
    # A word of the name says that its value is secret: password, sslpassword, X-Amz-Signature, sig.
    f"{_ALWAYS}|passphrase|signature|credentials?|auth|authorization|odbc_connect|"
    r"\bsig|\bkey|\bpass"
)
_NAME: Final = re.compile(
    rf"[?&;#][\w.-]*(?:{_IN_A_QUERY})=|(?<![\w.-])[\w.-]*(?:{_ALWAYS})(?:\s?=|[\"']\s?:)\s?"
    r"|\bauthorization[\"']?\s?[:=]\s?[\"']?(?:bearer\s|basic\s|token\s)?",
    re.ASCII | re.IGNORECASE,
)
_QUOTED: Final = re.compile(r"'(?:[^'\\]|\\.)*+'|\"(?:[^\"\\]|\\.)*+\"")
_VALUE: Final = re.compile(r"[^&#\s]*", re.ASCII)
_MASKED: Final = re.compile(r"\*{3}(?=[])}.,:;!?'\"&#\s]|$)", re.ASCII)
_END_OF_PHRASE: Final = re.compile(r"(?<![])}.,:;!?'\"])[])}.,:;!?'\"]++(?=\s|$)", re.ASCII)


def mask(text: str) -> str:
    """Return ``text`` with every password and token of an address in it replaced by ``***``."""
    return "\n".join(map(_masked, text.split("\n")))


def holds_secret(text: str) -> bool:
    """Tell whether ``text`` has an address with a password or token in it."""
    return mask(text) != text


def _masked(line: str) -> str:
    line = _replaced(line, _passwords(line))
    line = _replaced(line, (match.span() for match in _TOKEN_AS_USER.finditer(line)))
    return _replaced(line, _values(line))


def _replaced(line: str, spans: Iterable[_Span]) -> str:
    pieces, done = [], 0
    for start, end in spans:
        pieces += [line[done:start], MASK]
        done = end
    return "".join([*pieces, line[done:]])


def _passwords(line: str) -> Iterator[_Span]:
    """Yield the span of each address's password, which ends at the last ``@`` of the address.

    That is the last ``@`` before the next blank, or else before the next address on the line. If
    the password may be a port, an ``@`` behind a blank counts only before a host and a path.
    """
    done = 0
    for login in _LOGIN.finditer(line):
        start = login.end()
        if start < done:
            continue
        word = _end(_WORD, line, start)
        following = line.find("://", word)
        done = word if following < 0 else line.rfind(" ", word, following) + 1 or word
        last = line.rfind("@", start, word)
        limit = len(line) if following < 0 else following
        if _PORT.match(line, start):
            hosts = [match.start() for match in _BEFORE_HOST.finditer(line, word, limit)]
            last = max([last, *hosts])
        else:
            last = max(last, line.rfind("@", word, limit))
        if last >= 0:
            yield start, last


def _values(line: str) -> Iterator[_Span]:
    """Yield the span of each value whose name says that it is secret."""
    ends = _Delimiters(line)
    done = 0
    for name in _NAME.finditer(line):
        start = name.end()
        if start >= done:
            done = ends.of_value(start, first=name[0][0])
            quotes = (
                1 if line[start:done][:1] in {"'", '"'} and line[start] == line[done - 1] else 0
            )
            if done - start > quotes:
                yield start + quotes, done - quotes


class _Next:
    """The next position of a pattern in a line, for growing starts; the line's length if none."""

    def __init__(self, line: str, pattern: str | re.Pattern[str]) -> None:
        self._line, self._pattern, self._at = line, re.compile(pattern), -1

    def at(self, start: int) -> int:
        if self._at < start:
            match = self._pattern.search(self._line, start)
            self._at = len(self._line) if match is None else match.start()
        return self._at


class _Delimiters:
    """The ends of values: at the delimiter of their context, or at a blank."""

    def __init__(self, line: str) -> None:
        self._line = line
        self._address = _Next(line, "://")
        self._brace = _Next(line, "}")
        self._phrase = _Next(line, _END_OF_PHRASE)
        # Between the settings of a query, and of an ODBC connection.
        self._marks = {"&": _Next(line, "&"), ";": _Next(line, ";")}

    def of_value(self, start: int, first: str) -> int:
        """Return the end of the value at ``start``, whose name began with ``first``."""
        if quoted := _QUOTED.match(self._line, start):
            return quoted.end()
        if self._line.startswith("{", start) and self._brace.at(start) < len(self._line):
            return self._brace.at(start) + 1
        if masked := _MASKED.match(self._line, start):
            return masked.end()
        word = _end(_VALUE, self._line, start)
        if first not in "?&;#":
            return word
        mark = self._marks[";" if first == ";" else "&"].at(start if first == ";" else word)
        # Behind a blank, the delimiter may belong to the sentence or to the next address.
        if mark < len(self._line) and self._address.at(start) > mark:
            return mark
        return word if first == "#" or word == start else self._of_last(start, word)

    def _of_last(self, start: int, word: int) -> int:
        """Return the end of the last value of a query, whose first word ends at ``word``.

        The value may hold blanks. It ends with its phrase or with the line, or before the word in
        which the next address begins.
        """
        phrase, address = self._phrase.at(start), self._address.at(word)
        if phrase < word:  # the mark is its own last character
            return word
        if address < phrase:
            return max(word, self._line.rfind(" ", word, address))
        return phrase


def _end(pattern: re.Pattern[str], line: str, start: int) -> int:
    match = pattern.match(line, start)
    return match.end() if match else start
