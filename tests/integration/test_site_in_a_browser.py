"""The documentation site in a browser: no page is wider than a phone."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.integration.browsing import chromium

pytestmark = pytest.mark.full

BUILD = Path(__file__).parents[2] / "docs" / "site" / "build_site.py"
PHONE = {"width": 390, "height": 800}
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def test_no_page_is_wider_than_a_phone(tmp_path: Path) -> None:
    if find_spec("zensical") is None:
        pytest.skip("needs the tools of the documentation: make docs")
    site = tmp_path / "site"
    with chromium(["--no-sandbox"]) as browser:
        subprocess.run([sys.executable, BUILD, site], check=True)
        page = browser.new_page(viewport=PHONE)
        wide = {}
        for file in sorted(site.rglob("*.html")):
            page.goto(file.as_uri())
            wide[file.relative_to(site)] = page.evaluate(OVERFLOW)
    assert len(wide) > 60
    assert {file: pixels for file, pixels in wide.items() if pixels > 0} == {}
