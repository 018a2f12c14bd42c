"""The page of the functions for Python: whole, as the code says it, and its examples hold."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "docs" / "site"))

from docstrings import of_fields
from generated_api import FUNCTIONS, OURS, SHARED, api_text, meaning_of, signature
from generated_errors import AREAS, classes, errors_text, messages, messages_text
from generated_results import RESULTS, fields, members, results_text

from segan_ray import api
from segan_ray.evaluation.metrics.region_metrics import METRICS
from segan_ray.evaluation.metrics.scores import LESION_METRICS
from segan_ray.search.results.ranking import TrialRecord
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.search.space.space_file import check_space
from segan_ray.workflows.evaluate import Evaluation

PAGE = Path(__file__).parents[3] / "docs" / "api.md"


def test_every_name_has_a_heading() -> None:
    text = f"{PAGE.read_text()}\n{api_text()}\n{results_text()}"
    headings = re.findall(r"^##+ `?(\w+)`?$", text, re.MULTILINE)
    assert [name for name in api.__all__ if name not in headings] == []
    assert len(headings) == len(set(headings))
    introduced = re.findall(r"^- `(\w+)`:", PAGE.read_text(), re.MULTILINE)
    assert sorted(introduced) == sorted(name for name in api.__all__ if name[0].islower())


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda each: each.__name__)
def test_a_signature_is_shown_as_it_is(function: Any) -> None:
    (shown,) = ast.parse(f"def {signature(function)}: ...").body
    assert isinstance(shown, ast.FunctionDef)
    declared = inspect.signature(function)
    arguments = [*shown.args.args, *shown.args.kwonlyargs]
    assert [each.arg for each in arguments] == list(declared.parameters)
    keyword_only = [
        each.name for each in declared.parameters.values() if each.kind is each.KEYWORD_ONLY
    ]
    assert [each.arg for each in shown.args.kwonlyargs] == keyword_only
    for each in arguments:
        assert each.annotation is not None
        written = ast.parse(str(declared.parameters[each.arg].annotation), mode="eval").body
        assert ast.unparse(each.annotation) == ast.unparse(written)
    given = [*shown.args.defaults, *shown.args.kw_defaults]
    defaults = [
        each.default for each in declared.parameters.values() if each.default is not each.empty
    ]
    for node, default in zip([each for each in given if each], defaults, strict=True):
        if isinstance(node, ast.Name):  # a name for what differs by machine, or for a function
            assert node.id in ("CORES", getattr(default, "__name__", None))
        else:
            assert ast.literal_eval(node) == default


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda each: each.__name__)
def test_every_parameter_and_error_is_explained(function: Any) -> None:
    said = inspect.getdoc(function) or ""
    assert [
        name
        for name in inspect.signature(function).parameters
        if not meaning_of(function, name)
        and name not in SHARED
        and f"``{name}``" not in said
        and not (function.__name__ == "predict_arrays" and name in ("model", "output"))
    ] == []
    raised = re.findall(r"\w+", said.partition("Raises:")[2])
    assert {name for name in raised if name.endswith(("Error", "Interrupted"))} <= classes().keys()


def test_what_functions_share_is_explained_on_the_page() -> None:
    shared = PAGE.read_text().partition("## What functions share")[2].partition("\n## ")[0]
    assert [name for name in SHARED if f"`{name}`" not in shared] == []
    every = {name for each in FUNCTIONS for name in inspect.signature(each).parameters}
    assert {*SHARED, *OURS} <= every


def test_every_result_of_a_function_has_a_section_that_says_all_of_it() -> None:
    returned = {
        name
        for function in FUNCTIONS
        for name in re.findall(r"[A-Z]\w+", str(inspect.signature(function).return_annotation))
    }
    known = {kind.__name__ for kind in RESULTS} | {"Any", "DataFrame"}
    assert returned - known == set()
    without = [
        f"{kind.__name__}.{name}"
        for kind in RESULTS
        for name in fields(kind)
        if name not in of_fields(kind) and f"``{name}``" not in (inspect.getdoc(kind) or "")
    ]
    assert without == ["Promotion.verdict"], "write a docstring below these fields"
    assert [
        f"{kind.__name__}.{name}"
        for kind in RESULTS
        for name, (read, _) in members(kind).items()
        if not inspect.getdoc(read)
    ] == []


def test_columns_of_tables_are_named() -> None:
    columns = (inspect.getdoc(api.read_sweep) or "").partition("Columns: ")[2]
    fields_of_a_trial = {*fields(TrialRecord)} - {"params", "objectives"}
    assert [name for name in fields_of_a_trial if not re.search(rf"\b{name}\b", columns)] == []
    (table,) = re.findall(r"Columns: (.*)", of_fields(Evaluation)["cases"])
    assert [name for name in (*METRICS, *LESION_METRICS) if name not in table] == []


@pytest.mark.parametrize("heading", ["Experiment", "SearchSpace"])
def test_the_examples_of_the_page_hold(heading: str) -> None:
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert blocks
    names: dict[str, Any] = {}
    compared = 0
    for block in blocks:
        for code, result in re.findall(r"(.*?)^# ([^\n]*)$", block, re.MULTILINE | re.DOTALL):
            *statements, last = ast.parse(code).body
            exec(compile(ast.Module(statements, []), heading, "exec"), names)
            assert isinstance(last, ast.Expr)
            assert repr(eval(compile(ast.Expression(last.value), heading, "eval"), names)) == result
            compared += 1
    assert compared >= 2
    if isinstance(space := names.get("space"), SearchSpace):
        assert check_space(space) is space


def test_every_class_of_errors_is_listed_and_in_an_area_of_messages() -> None:
    listed = re.findall(r"^### `(\w+)`$", errors_text(), re.MULTILINE)
    assert listed == list(classes())
    areas = re.findall(r"^## .*: `(\w+)`$", messages_text(), re.MULTILINE)
    assert areas == list(AREAS)
    above = {base.__name__ for name in AREAS for base in classes()[name].__mro__}
    homeless = [
        name
        for name, kind in classes().items()
        if name not in above and not {base.__name__ for base in kind.__mro__} & AREAS.keys()
    ]
    assert homeless == []


@pytest.mark.parametrize(
    ("area", "words"),
    [
        ("ConfigError", "the segmentor has no loss"),
        ("ConfigError", "nothing is drawn: every parameter is fixed."),
        ("DataError", "holds labels that are no whole numbers"),
        ("DataError", "They must share one grid"),
        ("StoreError", "does not exist. Make it with: segan-ray prepare"),
        ("SweepError", "was interrupted; nothing of it is lost. Go on:"),
        ("SweepError", "was taken over by"),
        ("SweepError", "No Ray cluster answers at RAY_ADDRESS="),
        ("RegistryError", "No version of the model has the alias"),
    ],
)
def test_messages_are_listed_by_what_they_are_about(area: str, words: str) -> None:
    assert [text for text in messages()[area] if words in text] != []


def test_messages_stand_in_the_order_of_their_first_words() -> None:
    assert sum(map(len, messages().values())) > 300
    stores = messages()["StoreError"]
    assert stores[0].startswith("…: a store is made in a folder.")
    assert [text for texts in messages().values() for text in texts if "`" in text] == []
