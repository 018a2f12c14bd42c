"""Debian's Chromium without a window, for tests that look at pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")


@contextmanager
def chromium(arguments: Sequence[str]) -> Iterator[Any]:
    """Give a browser for the time of the block; without Chromium the test skips."""
    if CHROMIUM is None:
        pytest.skip("needs Debian's chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=list(arguments))
        yield launched
        launched.close()
