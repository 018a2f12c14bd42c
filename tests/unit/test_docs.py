"""What the documents name exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from segan_ray.cli.main import app

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path for folder in ("", "docs", "cluster") for path in (ROOT / folder).glob("*.md")
)
FOLDERS = "(?:segan_ray|tests|benchmarks|scripts|search_spaces|docs|cluster)"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_linked_file_is_there(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), f"{document.name} links {target}"


def test_the_space_in_the_readme_is_the_one_shipped() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    shipped = (ROOT / "search_spaces" / "critic.yaml").read_text()
    assert "".join(line for line in shipped.splitlines(True) if line[0] != "#") == block


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_make_has_the_targets_that_documents_name(document: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for command in commands(document, "make"):
        targets = [word for word in command.split()[1:] if re.fullmatch(r"[a-z.][\w.-]*", word)]
        for target in targets:
            assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), command


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_have_the_options_that_documents_show(document: Path) -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    for command in commands(document, "segan-ray"):
        for words in command.removeprefix("segan-ray ").split(" -- "):
            name, *rest = words.split()
            assert name in group.commands, command
            known = {option for each in group.commands[name].params for option in each.opts}
            asked = {word.strip("[]").partition("=")[0] for word in rest}
            assert {word for word in asked if word.startswith("--")} <= known, command


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_benchmarks_have_the_options_that_documents_show(document: Path) -> None:
    shared = (ROOT / "benchmarks" / "_run.py").read_text()
    for command in commands(document, "python benchmarks/"):
        script, *rest = command.split()[1:]
        source = (ROOT / script).read_text() + shared
        for option in re.findall(r"--[\w-]+", " ".join(rest)):
            assert f'"{option}"' in source, command


def test_commands_of_documents_are_recognised() -> None:
    readme = commands(ROOT / "README.md", "segan-ray")
    assert "segan-ray submit --address http://head:8265 -- tune …" in readme
    assert "segan-ray tune store --space critic --name deeper-critics --resume" in readme
    assert sum(len(commands(document, "segan-ray")) for document in DOCUMENTS) > 40


def commands(document: Path, program: str) -> list[str]:
    """The commands that begin with ``program``: in code font, and as lines of code blocks."""
    text = document.read_text().replace("\\\n", " ")
    inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(document))]
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    shown = [re.sub(r"^(?:[A-Z_]+=\S+ )+", "", command) for command in (*inline, *lines)]
    start = program if program.endswith("/") else f"{program} "
    return [command for command in shown if command.startswith(start)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_lines_are_short_and_words_are_those_of_the_glossary(document: Path) -> None:
    text = document.read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("|")]
    assert [line for line in lines if len(line) > 100] == []
    former = (
        r"\b(?:lane|crew|mailbox|janitor|narrator|logbook|spool|donor|halvings|parked)(?:e?s)?\b"
    )
    assert re.findall(former, text) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_of_ours_exists(document: Path) -> None:
    named = re.findall(rf"(?<![\w./-])({FOLDERS}/[\w./-]*[\w/])", prose(document))
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_test_that_is_named_exists(document: Path) -> None:
    named = re.findall(r"(tests/[\w/]+\.py)::(\w+)", document.read_text())
    assert [f"{path}::{name}" for path, name in named if name not in names_in(path)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_names_beside_a_module_are_defined_in_it(document: Path) -> None:
    pairs = [(path, name) for path, names in names_beside_modules(document) for name in names]
    assert [(path, name) for path, name in pairs if name not in names_in(path)] == []


def test_names_beside_a_module_are_recognised() -> None:
    found = dict(names_beside_modules(ROOT / "CONTRIBUTING.md"))
    assert found["segan_ray/sizes.py"] == {"unet_weights"}
    assert found["segan_ray/search/study/sweep_study.py"] == {"SweepStudy.exploit"}
    assert {"build_segmentor", "build_critic"} < found["segan_ray/models/build.py"]
    assert len(found) > 20


def prose(document: Path) -> str:
    """The text outside of code blocks, each run of white space as one space."""
    text = re.sub(r"^ *```.*?^ *```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    return " ".join(text.split())


def names_beside_modules(document: Path) -> list[tuple[str, set[str]]]:
    """Modules of a document with the names in code font that stand beside them.

    Behind a module, in brackets: ```module.py` (`one`, the rest of `other`)``. Before it, joined
    by a word: ```one`, `other` and `third` of `module.py```.
    """
    text = prose(document)
    module = rf"`({FOLDERS}/[\w/-]+\.py)`"
    behind = re.findall(rf"{module}(?:\]\([^)]+\))? \(([^)]*)\)", text)
    code = r"`[^`]+`"
    listed = rf"{code}(?:(?:, | and | or |, and ){code})*"
    before = re.findall(rf"({listed}) (?:of|in|beside) \[?{module}", text)
    beside = re.findall(rf"{module} beside ({listed})", text)
    found: dict[str, set[str]] = {}
    for path, names in (*behind, *beside, *((path, names) for names, path in before)):
        quoted = re.findall(r"`([^`]+)`", names)
        found.setdefault(path, set()).update(name for name in quoted if "/" not in name)
    return list(found.items())


def section_of(document: str, heading: str) -> str:
    """The text below a heading of a document in ``docs``."""
    text = (ROOT / "docs" / document).read_text()
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def rows_of(document: str, heading: str) -> list[list[str]]:
    """The cells of the tables below a heading, each as the code that it names."""
    rows = [line for line in section_of(document, heading).splitlines() if line.startswith("|")]
    return [re.findall(r"`([^`]+)`", row) for row in rows if "`" in row]


@cache
def names_in(path: str) -> frozenset[str]:
    """The functions, classes, constants and members (as ``Class.member`` too) of a module."""
    found = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        found |= defined_by(node)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{name}" for member in node.body for name in defined_by(member)}
    return frozenset(found)


def defined_by(node: ast.stmt) -> set[str]:
    """The names that a statement of a module or class defines."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def test_the_life_of_a_trial_is_short_and_true() -> None:
    rows = rows_of("architecture.md", "The life of a trial")
    way = {row[0]: row[1:] for row in rows if row[0].startswith("segan_ray/")}
    named = sum(len(names) for names in way.values())
    assert len(way) <= 20
    assert named <= 35
    steps = section_of("architecture.md", "The life of a trial")
    assert f"These are {len(way)} modules and {named} functions and classes." in steps
    for path, names in way.items():
        assert set(names) <= names_in(path), path
    every = {name for path in way for name in names_in(path)}
    called = re.findall(r"`(\w+\.\w+)`", steps.partition("1. **The command.**")[2])
    assert len(called) > 20
    assert [name for name in called if name not in every] == []


def test_every_decision_is_context_choice_and_consequence() -> None:
    paragraphs = section_of("architecture.md", "The decisions").split("\n\n")
    decisions = [text for text in paragraphs if text.startswith("**")]
    assert len(decisions) > 50
    parts = ["Context", "Choice", "Consequence"]
    whole = [re.findall(r"\*(\w+):\*", text) == parts for text in decisions]
    assert [text for text, is_whole in zip(decisions, whole, strict=True) if not is_whole] == []
    assert [text for text in decisions if len(text.split()) > 150] == []


def test_every_guarantee_has_a_test() -> None:
    tests = [name for row in rows_of("architecture.md", "The guarantees") for name in row]
    tests = [name for name in tests if "::" in name]
    assert len(tests) > 40
    for name in tests:
        path, _, function = name.partition("::")
        assert function in names_in(path), name


def test_every_term_of_the_glossary_is_used_where_it_is_said_to_live() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text()
    rows = [row.strip("| ").split(" | ") for row in text.splitlines() if "`segan_ray/" in row]
    assert len(rows) > 50
    assert len({term for term, _, _ in rows}) == len(rows)
    homeless = [
        (term, path)
        for term, _, path in rows
        if re.search(rf"\b{term}", words_of(path.strip("`"))) is None
    ]
    assert homeless == []


def words_of(path: str) -> str:
    """The name and content of a module as words: ``WarmStart`` and ``warm_start`` are two."""
    text = f"{path} {(ROOT / path).read_text()}"
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[_\s]+", " ", text).lower()
