"""The documentation site: what is generated is whole, and every link of the built site leads on."""

from __future__ import annotations

import ast
import re
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[3] / "docs" / "site"))

from build_site import GENERATED, build
from docstrings import of_fields
from generated_commands import commands, commands_text
from generated_settings import every_setting, meaning_of_group, said_kind, settings_text
from generated_sizes import MEASURED, shipped
from stage_pages import ELSEWHERE, MARKER, SiteError, Staging, indented, pages

from segan_ray import engine_settings, home
from segan_ray.config import Experiment, SegmentorSettings, flatten, paths
from segan_ray.search.space.space_file import load_space

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"


def test_every_setting_is_listed_with_its_default() -> None:
    listed = {setting.path: setting for setting in every_setting()}
    assert sorted(listed) == sorted(paths())
    defaults = flatten(Experiment())
    read = {path: yaml.safe_load(setting.default) for path, setting in listed.items()}
    assert read == defaults
    text = settings_text()
    assert [path for path in listed if f"### `{path}`\n" not in text] == []


def test_every_setting_has_a_meaning() -> None:
    without = [setting.path for setting in every_setting() if len(setting.meaning) < 15]
    assert without == [], "write a docstring below these fields of segan_ray/config.py"
    groups = {path.partition(".")[0] for path in paths() if "." in path}
    assert [group for group in groups if not meaning_of_group(group)] == []


def test_a_field_without_docstring_has_no_meaning() -> None:
    assert "network" in of_fields(SegmentorSettings)
    assert "segmentor" not in of_fields(Experiment)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 4096}, "a whole number from 1 to 4,096"),
        ({"type": "integer", "minimum": 0, "exclusiveMaximum": 9}, "a whole number from 0 to 8"),
        ({"type": "number", "exclusiveMinimum": 0}, "a number above 0"),
        (
            {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            "a number above 0 and below 1",
        ),
        ({"anyOf": [{"const": "auto"}, {"type": "boolean"}]}, "`auto`, or true or false"),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, "a number, or `null`"),
        ({"enum": ["add", "concat"]}, "one of `add`, `concat`"),
    ],
)  # fmt: skip
def test_types_and_ranges_are_said_in_words(schema: dict[str, object], words: str) -> None:
    assert said_kind(schema) == words


def test_every_command_is_listed_with_its_options() -> None:
    sections = dict(re.findall(r"^## `([\w-]+)`\n(.*?)(?=^## |\Z)", commands_text(), re.M | re.S))
    assert sections.keys() == commands().keys()
    for name, command in commands().items():
        listed = set(re.findall(r"^- `(?:\w+, )?(--[\w-]+)", sections[name], re.MULTILINE))
        assert listed == {
            option
            for each in command.params
            if each.param_type_name == "option"
            for option in each.opts
        }
        assert "Example:" in sections[name], name


def test_pages_of_commands_and_documents_name_every_command() -> None:
    for page in ("commands.md", "json.md"):
        text = (DOCS / page).read_text()
        headings = " ".join(re.findall(r"^## (.*)$", text, re.MULTILINE))
        named = text if page == "commands.md" else headings
        documents = {
            name
            for name, command in commands().items()
            if page == "commands.md" or any("--json" in each.opts for each in command.params)
        }
        assert [name for name in documents if not re.search(rf"\b{name}\b", named)] == []


def test_sizes_are_of_shipped_spaces() -> None:
    names = {name.partition(",")[0] for name in shipped()}
    assert names == {file.stem for file in (ROOT / "search_spaces").glob("*.yaml")}
    assert names >= MEASURED.keys()


def test_every_page_is_in_the_menu_and_every_marker_has_a_generator() -> None:
    menu = re.findall(r'= "([\w/-]+\.md)"', (DOCS / "site" / "zensical.toml").read_text())
    assert sorted(menu) == sorted(pages(ROOT).values())
    markers = {name for page in pages(ROOT) for name in MARKER.findall((ROOT / page).read_text())}
    assert markers == GENERATED.keys()


def test_the_front_page_links_every_page_of_the_docs() -> None:
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", (DOCS / "README.md").read_text()))
    assert linked == {path.name for path in DOCS.glob("*.md")} - {"README.md"}


def test_links_are_rewritten_to_where_their_targets_are(tmp_path: Path) -> None:
    (tmp_path / "docs" / "site").mkdir(parents=True)
    (tmp_path / "docs" / "site" / "site.css").touch()
    for page in ELSEWHERE:
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / page).write_text("[docs](docs/README.md)" if page == "README.md" else "")
    (tmp_path / "code.py").write_text("x = 1\n")
    front = tmp_path / "docs" / "README.md"
    front.write_text(
        "[a](../code.py) [b](other.md#part) [c](../README.md)\n\n| `a\\|b` |\n\n"
        "```\n[d](nowhere.md)\n```\n\n<!-- generated: numbers, by code.py -->\n"
    )
    (tmp_path / "docs" / "other.md").write_text("# Part\n")

    Staging(tmp_path, tmp_path / "out", {"numbers": lambda: "1, 2, 3"}).stage()

    assert (tmp_path / "out" / "index.md").read_text() == (
        "[a](source/code.py.md) [b](other.md#part) [c](project/readme.md)\n\n| `a|b` |\n\n"
        "```\n[d](nowhere.md)\n```\n\n1, 2, 3\n"
    )
    assert (tmp_path / "out" / "project" / "readme.md").read_text() == "[docs](../index.md)"
    assert "x = 1" in (tmp_path / "out" / "source" / "code.py.md").read_text()

    front.write_text("[a](gone.md) [b](../../outside.md)\n\n<!-- generated: nothing -->\n")
    with pytest.raises(SiteError) as error:
        Staging(tmp_path, tmp_path / "out", {}).stage()
    assert str(error.value).splitlines() == [
        "docs/README.md: links gone.md, which is not there",
        "docs/README.md: links ../../outside.md, which is not there",
        "docs/README.md: nothing generates 'nothing'",
    ]


def test_what_belongs_to_an_item_is_indented_as_the_site_reads_it() -> None:
    text = "1. **One**\n\n   ```\n   code\n   ```\n\ntext\n\n   as it was"
    assert indented(text) == "1. **One**\n\n    ```\n    code\n    ```\n\ntext\n\n   as it was"


def test_messages_in_the_troubleshooting_page_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(rows) > 90
    said = messages()
    assert [row for row in rows if not any(pattern_of(row).search(text) for text in said)] == []


def pattern_of(message: str) -> re.Pattern[str]:
    """The parts of a message, between which anything may stand."""
    parts = [part.strip() for part in message.split("…")]
    return re.compile(".*".join(re.escape(part) for part in parts if len(part) > 2))


def messages() -> list[str]:
    """Every string of the code, each on one line, with ``…`` for what is filled in."""
    trees = (ast.parse(path.read_text()) for path in (ROOT / "segan_ray").rglob("*.py"))
    texts = []
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.JoinedStr):
            texts.append(
                "".join(str(p.value) if isinstance(p, ast.Constant) else "…" for p in node.values)
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.append(node.value)
    return [" ".join(text.split()) for text in texts]


def test_the_page_of_the_environment_names_every_variable_that_is_read() -> None:
    page = (DOCS / "environment.md").read_text()
    source = "\n".join(path.read_text() for path in (ROOT / "segan_ray").rglob("*.py"))
    literal = re.findall(r'environ(?:\.get\(|\[)"(\w+)"', source)
    told = re.findall(r'setdefault\("([A-Z]\w+)"|"((?:RAY|MLFLOW)_\w+)":', source)
    options = re.findall(r'envvar=(?:\[([^\]]*)\]|"(\w+)")', source)
    of_options = re.findall(r"[A-Z][A-Z_]+", str(options))
    of_homes = (
        home.TRACKING_URI, home.STORAGE, home.OPTUNA_STORAGE, home.HOME, home.RESUME_WITH,
    )  # fmt: skip
    engines = (*engine_settings.RAY, *engine_settings.RAY_ALWAYS, *engine_settings.MLFLOW)
    read = {*literal, *of_options, *of_homes, *engines, *(name for pair in told for name in pair)}
    read -= {""}
    assert len(read) > 20
    assert sorted(name for name in read if f"`{name}`" not in page) == []


def test_spaces_in_the_pages_can_be_searched(tmp_path: Path) -> None:
    for page in DOCS.glob("*.md"):
        for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.M | re.S):
            if "\nparameters:" in block and "\narms:" not in block:
                file = tmp_path / f"{page.stem}.yaml"
                file.write_text(block)
                load_space(file)


class Links(HTMLParser):
    """The addresses that a page of HTML leads to, and the anchors that it has."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.anchors |= {value for key in ("id", "name") if (value := named.get(key))}
        target = named.get("href") or named.get("src")
        if target and tag in ("a", "img", "script", "link"):
            self.targets.append(target)


@pytest.mark.full
def test_the_site_is_built_without_a_warning_and_its_links_lead_on(tmp_path: Path) -> None:
    if find_spec("zensical") is None:
        pytest.skip("needs the tools of the documentation: make docs")
    site = tmp_path / "site"

    build(site)

    built = {page: Links(page) for page in site.rglob("*.html") if page.name != "404.html"}
    assert len(built) > 60
    expected = {site / page.replace(".md", ".html") for page in pages(ROOT).values()}
    assert expected - built.keys() == set()
    astray = []
    for page, links in built.items():
        for target in links.targets:
            path, _, anchor = unquote(target).partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            there = (page.parent / path).resolve() if path else page
            known = built[there].anchors if there in built else set()
            if not there.exists() or (anchor and anchor not in known):
                astray.append((page.relative_to(site), target))
    assert astray == []
    for name in ("api", "commands", "messages", "requirements", "settings"):
        assert "<!-- generated" not in (site / f"{name}.html").read_text()
    assert "critic.clamp_norm" in (site / "settings.html").read_text()
