"""What the documents name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path for folder in ("", "docs", "cluster") for path in (ROOT / folder).glob("*.md")
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_linked_file_is_there(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), f"{document.name} links {target}"


def test_the_space_in_the_readme_is_the_one_shipped() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    shipped = (ROOT / "search_spaces" / "critic.yaml").read_text()
    assert "".join(line for line in shipped.splitlines(True) if line[0] != "#") == block


@pytest.mark.parametrize(
    "target", ["demo", "test", "test-fast", "test-full", "check", "lint", "bench", "clean", ".venv"]
)
def test_make_has_the_targets_that_documents_name(target: str) -> None:
    assert re.search(rf"^{re.escape(target)}:.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
