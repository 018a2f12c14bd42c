"""The reference of ``segan_ray.api``: each function's signature, text, parameters and example.

A parameter means what the option of the same name means on the command line, so its help is shown.
"""

from __future__ import annotations

import doctest
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from docstrings import linked_documents, marked
from generated_commands import commands
from generated_results import linked

from segan_ray import api
from segan_ray.evaluation.inference.raw_cases import predict_arrays

Function = Callable[..., Any]
FUNCTIONS: Final[tuple[Function, ...]] = (
    api.phantom, api.prepare, api.train, api.tune, api.read_sweep, api.compare, api.promote,
    api.evaluate, api.predict, api.load_model, predict_arrays,
)  # fmt: skip
COMMANDS: Final = {"read_sweep": "trials", "load_model": "evaluate"}
"""The command whose options explain a function's parameters, if it has another name."""
OPTIONS: Final = {"spacing_mm": "spacing"}
"""The option of a parameter, if it has another name."""
OURS: Final = {
    "experiment": "The settings; by default those of [`Experiment()`](#experiment).",
    "references": "Rows to compare with: a model each, or `threshold`, by the name of the row.",
}
"""Parameters that no option explains."""
SHARED: Final = ("home", "resume_with", "progress", "on_note", "on_notes")
"""Parameters that the page explains once."""


def api_text() -> str:
    """Return the Markdown of every function, below links to each."""
    names = [function.__name__ for function in FUNCTIONS]
    contents = " · ".join(f"[`{name}`](#{name})" for name in names)
    return linked_documents("\n\n".join([contents, *map(_section, FUNCTIONS)])) + "\n"


def _section(function: Function) -> str:
    text, _, raises = (inspect.getdoc(function) or "").partition("\nRaises:\n")
    summary, *paragraphs = [part for part in text.split("\n\n") if not part.startswith(">>>")]
    returned = linked(str(inspect.signature(function).return_annotation))
    parts = [
        f"### `{function.__name__}`",
        marked(summary),
        f"```python\n{signature(function)}\n```",
        *map(marked, paragraphs),
        "\n".join(_parameters(function)),
        f"Returns {returned}.",
        _example(text),
        "\n".join(_errors(raises)),
    ]
    return "\n\n".join(part for part in parts if part)


def signature(function: Function) -> str:
    """Return a function's signature, a parameter a line."""
    lines, positional = [], True
    declared = inspect.signature(function)
    for each in declared.parameters.values():
        if positional and each.kind is inspect.Parameter.KEYWORD_ONLY:
            lines.append("    *,")
            positional = False
        lines.append(f"    {each.name}: {each.annotation}{_default(each)},")
    body = "\n".join(lines)
    return f"{function.__name__}(\n{body}\n) -> {declared.return_annotation}"


def _default(parameter: inspect.Parameter) -> str:
    default = parameter.default
    if default is inspect.Parameter.empty:
        return ""
    if parameter.name == "workers":
        return " = CORES"  # not those of the machine that builds the page
    return f" = {default.__name__ if callable(default) else repr(default)}"


def _parameters(function: Function) -> Iterator[str]:
    names = inspect.signature(function).parameters
    for name in names:
        if meaning := meaning_of(function, name):
            yield f"- `{name}`: {meaning}"
    shared = [f"`{name}`" for name in names if name in SHARED]
    if shared:
        yield f"- {', '.join(shared)}: [as for every function](#what-functions-share)."


def meaning_of(function: Function, parameter: str) -> str:
    """Return what a parameter means, or nothing where that is said elsewhere on the page."""
    command = commands().get(COMMANDS.get(function.__name__, function.__name__))
    if parameter in SHARED or command is None:
        return ""
    helps = {each.name: each.help or "" for each in command.params}
    said = helps.get(OPTIONS.get(parameter, parameter), "").removesuffix(" May be repeated.")
    named = re.sub(r"--([\w-]+)", lambda option: f"`{option[1].replace('-', '_')}`", said)
    cores = " `CORES` is how many the machine has." if parameter == "workers" else ""
    return OURS.get(parameter, named) + cores


def _example(text: str) -> str:
    """Return the examples of a docstring as code to copy, with what comes of it as comments."""
    lines: list[str] = []
    for example in doctest.DocTestParser().get_examples(text):
        lines += example.source.splitlines()
        lines += [f"# {line}" for line in example.want.splitlines()]
    return "\n".join(["```python", *lines, "```"]) if lines else ""


def _errors(raises: str) -> Iterator[str]:
    """Yield a line for each entry of the errors of a docstring, if there are any."""
    entries = re.split(r"\n(?= {4}\S)", raises) if raises else []
    if entries:
        yield "Errors:\n"
    for entry in entries:
        names, _, when = " ".join(entry.split()).partition(": ")
        links = ", ".join(f"[`{name}`](#{name.lower()})" for name in names.split(", "))
        yield f"- {links}: {marked(when)}"
