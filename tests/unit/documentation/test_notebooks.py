"""The notebooks of ``examples/`` and their pages: rendered from what the scripts are now."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "docs" / "site"))

from nbformat import validate
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from notebooks import EXAMPLES, ORDER, ROOT, SETTINGS, environment, read
from render_notebooks import PAGES, PICTURES, Page, Table, relinked

MOST_BYTES = 1_500_000
"""Of all pictures, as they are part of every checkout."""
MACHINES = r"/(?:tmp|root|home|work|Users|var|private)/\S*|[A-Z]:\\\S*|site-packages"


def page_of(name: str) -> str:
    return (ROOT / PAGES / f"{name}.md").read_text(encoding="utf-8")


def test_every_script_is_a_notebook_with_a_place_in_the_order() -> None:
    assert sorted(ORDER) == sorted(path.stem for path in EXAMPLES.glob("*.py"))
    assert sorted(ORDER) == sorted(path.stem for path in (ROOT / PAGES).glob("*.md"))
    for name in ORDER:
        notebook = read(EXAMPLES / f"{name}.py")
        validate(notebook)
        first, *_ = notebook.cells
        assert first.source.startswith("# "), name
        tagged = [cell for cell in notebook.cells if SETTINGS in cell.metadata.get("tags", ())]
        assert len(tagged) == 1, name
        lines = tagged[0].source.splitlines()
        assert [line for line in lines if not re.match(r"[A-Z_]+ = \S.*  # ", line)] == [], name


@pytest.mark.parametrize("name", ORDER)
def test_a_page_has_the_cells_of_its_script(name: str) -> None:
    page, at = page_of(name), 0
    notebook = read(EXAMPLES / f"{name}.py")
    for cell in notebook.cells:
        is_code = cell.cell_type == "code"
        text = f"```python\n{cell.source}\n```" if is_code else relinked(cell.source)
        found = page.find(text, at)
        assert found >= 0, f"make notebooks: docs/examples/{name}.md lacks\n{cell.source}"
        at = found + len(text)
    codes = re.findall(r"^```python\n(.*?)\n```$", page, re.MULTILINE | re.DOTALL)
    assert codes == [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", ORDER)
def test_a_page_says_nothing_of_the_machine_it_was_rendered_on(name: str) -> None:
    page = page_of(name)
    assert re.findall(MACHINES, page) == []
    assert re.findall(r"Traceback|Warning|WARNING|INFO ", page) == []
    assert re.findall(r"\b\d+:\d\d\b|\b\d+ (?:s|min)\b", page) == []


def test_links_of_pages_lead_on() -> None:
    targets = [
        (name, target)
        for name in ORDER
        for target in re.findall(r"\]\(([^)#]+)", page_of(name))
        if not target.startswith("http")
    ]
    assert len(targets) > 20
    assert [each for each in targets if not (ROOT / PAGES / each[1]).exists()] == []


def test_pictures_are_those_of_the_pages_and_small() -> None:
    shown = {
        picture
        for name in ORDER
        for words, picture in re.findall(r"!\[(.*)\]\(\S+/([\w-]+\.png)\)", page_of(name))
        if words
    }
    files = list((ROOT / PICTURES).iterdir())
    assert shown == {file.name for file in files}
    assert sum(file.stat().st_size for file in files) < MOST_BYTES


def test_every_page_is_in_the_menu_and_on_the_front_page() -> None:
    menu = (ROOT / "docs/site/zensical.toml").read_text()
    front = (ROOT / "docs/README.md").read_text()
    for name in ORDER:
        assert f'"examples/{name}.md"' in menu
        assert f"(examples/{name}.md)" in front


def test_settings_are_replaced_and_unknown_ones_refused(tmp_path: Path) -> None:
    script = tmp_path / "own.py"
    script.write_text(
        '# %% tags=["parameters"]\nCASES = 24  # in earnest: all\nCASE = None\n\n# %%\nCASES = 1\n'
    )
    first, second = read(script, {"CASES": 2, "CASE": "a"}).cells
    assert first.source == "CASES = 2\nCASE = 'a'"
    assert second.source == "CASES = 1"
    with pytest.raises(KeyError, match=r"own\.py has no settings EPOCHS"):
        read(script, {"EPOCHS": 2})


def test_links_are_rewritten_to_where_pages_are() -> None:
    text = "[a](../docs/gate.md#six) [b](first_sweep.py) [c](https://example.org/a.py) [d](#e)"
    assert relinked(text) == (
        "[a](../gate.md#six) [b](first_sweep.md) [c](https://example.org/a.py) [d](#e)"
    )


def test_outputs_become_text_tables_and_pictures(tmp_path: Path) -> None:
    page = Page("own")
    page.add(new_markdown_cell("# Own"))
    gone = new_output("display_data", {"text/plain": "", "text/html": ""})
    text = new_output("stream", name="stdout", text="\x1b[1mbold\x1b[0m\n")
    page.add(new_code_cell("print()", outputs=[gone, text]))
    page.write(tmp_path)
    written = (tmp_path / PAGES / "own.md").read_text()
    assert written.startswith("# Own\n\n*Made by `make notebooks` from ")
    assert written.endswith("\n\n```python\nprint()\n```\n\n```text\nbold\n```\n")
    picture = new_output("display_data", {"image/png": "", "text/plain": "<Image>"})
    with pytest.raises(ValueError, match="says what it shows"):
        page.add(new_code_cell("show()", outputs=[picture]))


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (None, "| case | ml |\n| --- | ---: |\n| a | 1.5 |\n| b·c | 20.0 |"),
        ("ml", "| ml | case |\n| ---: | --- |\n| 1.5 | a |\n| 20.0 | b·c |"),
    ],
)
def test_tables_of_pandas_become_tables(index: str | None, expected: str) -> None:
    import pandas as pd

    table = pd.DataFrame({"case": ["a", "b|c"], "ml": [1.5, 20.0]})
    shown = table if index is None else table.set_index(index)
    assert Table.of(shown.to_html()).markdown() == expected


def test_a_kernel_is_led_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "SEGAN_RAY_HOME", "OPTUNA_STORAGE"):
        monkeypatch.setenv(name, "elsewhere")
    variables = environment(60)
    assert "elsewhere" not in variables.values()
    assert variables["JUPYTER_COLUMNS"] == "60"
    assert variables["PYTHONPATH"].startswith(str(ROOT))
