"""Docstrings as Markdown: of classes and functions, and those below the fields of classes."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from typing import Final

ANCHORS: Final = {"trials": "tune-trials"}
"""Headings of docs/json.md that are not the name of their document."""


def marked(docstring: str) -> str:
    """Return a docstring as Markdown, on one line a paragraph."""
    lines = docstring.replace("``", "`")
    return re.sub(r"(?<!\n)\n(?!\n)", " ", lines).strip()


@cache
def of_fields(model: type) -> Mapping[str, str]:
    """Return the docstrings below the fields of a class, by field: Python itself keeps none."""
    (declared,) = ast.parse(inspect.getsource(model)).body
    assert isinstance(declared, ast.ClassDef)
    found = {}
    for field, below in pairwise(declared.body):
        is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
            found[field.target.id] = marked(inspect.cleandoc(below.value.value))
    return found


def linked_documents(text: str) -> str:
    """Return Markdown with the JSON documents that it names as links to what they hold."""

    def link(match: re.Match[str]) -> str:
        return f"[`{match[1]}` document](json.md#{ANCHORS.get(match[1], match[1])})"

    return re.sub(r"`(\w+)` document\b", link, text)
