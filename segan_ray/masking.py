"""Passwords and tokens in addresses: finding them, and writing an address without them.

Whatever is printed, logged or recorded goes through ``mask``. It rather hides too much than too
little: a password may hold any character but a space.
"""

from __future__ import annotations

import re
from typing import Final

MASK: Final = "***"
_WITH_PASSWORD: Final = re.compile(r"(?P<kept>[A-Za-z][\w.+-]*://[^\s:/?#@]*:)[^\s\"]*@", re.ASCII)
_TOKEN_AS_USER: Final = re.compile(r"(?P<kept>\bhttps?://)[^\s:/?#@\"]+@", re.ASCII | re.IGNORECASE)
_QUERY: Final = re.compile(
    # A word of the name says that its value is secret: password, sslpassword, X-Amz-Signature, sig.
    r"(?P<kept>[?&;][\w.-]*(?:password|passwd|pwd|token|secret|signature|credential|api_?key|"
    r"access_?key|\bsig|\bkey|\bpass)=)[^&#\s\"]+",
    re.ASCII | re.IGNORECASE,
)


def mask(text: str) -> str:
    """Return ``text`` with every password and token of an address in it replaced by ``***``."""
    for pattern in (_WITH_PASSWORD, _TOKEN_AS_USER):
        text = pattern.sub(rf"\g<kept>{MASK}@", text)
    return _QUERY.sub(rf"\g<kept>{MASK}", text)


def holds_secret(text: str) -> bool:
    """Tell whether ``text`` has an address with a password or token in it."""
    return mask(text) != text
