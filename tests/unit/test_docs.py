"""What the documents name exists."""

from __future__ import annotations

import ast
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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_of_ours_exists(document: Path) -> None:
    named = re.findall(r"`((?:segan_ray|tests|benchmarks|scripts)/[\w./-]*)", document.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


def rows_of(document: str, heading: str) -> list[list[str]]:
    """The cells of the tables below a heading, each as the code that it names."""
    text = (ROOT / "docs" / document).read_text()
    _, _, section = text.partition(f"\n## {heading}\n")
    rows = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("|")]
    return [re.findall(r"`([^`]+)`", row) for row in rows if "`" in row]


def names_in(path: str) -> set[str]:
    """The functions, classes and methods (as ``Class.method`` too) of a module."""
    found = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            inner = [each.name for each in node.body if isinstance(each, ast.FunctionDef)]
            found |= {f"{node.name}.{name}" for name in inner}
    return found


def test_the_life_of_a_trial_is_short_and_true() -> None:
    rows = rows_of("architecture.md", "The life of a trial")
    way = {row[0]: row[1:] for row in rows if row[0].startswith("segan_ray/")}
    assert len(way) <= 20
    assert sum(len(names) for names in way.values()) <= 35
    for path, names in way.items():
        assert set(names) <= names_in(path), path
    every = {name for path in way for name in names_in(path)}
    text = (ROOT / "docs" / "architecture.md").read_text()
    steps = text.partition("\n## The life of a trial\n")[2].partition("\n## ")[0]
    named = re.findall(r"`(\w+\.\w+)`", steps.partition("1. **The command.**")[2])
    assert len(named) > 20
    assert [name for name in named if name not in every] == []


def test_every_guarantee_has_a_test() -> None:
    tests = [name for row in rows_of("architecture.md", "The guarantees") for name in row]
    tests = [name for name in tests if "::" in name]
    assert len(tests) > 40
    for name in tests:
        path, _, function = name.partition("::")
        assert function in names_in(path), name
