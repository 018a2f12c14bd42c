"""The reference of commands, from the Typer app: usage, arguments, options and an example."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, get_args

import typer
import typer.main

from segan_ray.cli.main import app

PLACEHOLDERS: Final = {int: "NUMBER", float: "NUMBER", str: "TEXT", Path: "PATH"}


def commands() -> Mapping[str, Any]:
    """Return every command by its name, in the order of ``segan-ray --help``."""
    group: Any = typer.main.get_command(app)
    return group.commands


def commands_text() -> str:
    """Return the Markdown of every command."""
    return "\n".join(_section(name, command) for name, command in commands().items())


def _section(name: str, command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option"]
    usage = " ".join(["segan-ray", name, "[OPTIONS]", *map(_usage, arguments)])
    example = (command.epilog or "").removeprefix("Example: ")
    parts = [f"## `{name}`", inspect.cleandoc(command.help or ""), f"```\n{usage}\n```"]
    parts += ["\n".join(_lines([*arguments, *options]))]
    parts += [f"Example:\n\n```\n{example}\n```"] if example else []
    return "\n\n".join(parts) + "\n"


def _usage(argument: Any) -> str:
    name: str = argument.metavar or argument.name.upper()
    repeated = "..." if argument.nargs == -1 and "..." not in name else ""
    optional = not argument.required and not name.startswith("[")
    return f"[{name}]{repeated}" if optional else f"{name}{repeated}"


def _lines(parameters: list[Any]) -> Iterator[str]:
    for each in parameters:
        yield f"- {_named(each)}: {each.help or ''}{''.join(_notes(each))}"


def _named(each: Any) -> str:
    if each.param_type_name == "argument":
        return f"`{_usage(each)}`"
    name = ", ".join(each.opts)
    return f"`{name}`" if each.is_flag else f"`{name} {_placeholder(each)}`"


def _placeholder(each: Any) -> str:
    kinds = _kinds(each.type_descriptor.annotation)
    if each.metavar:
        return str(each.metavar)
    if issubclass(kinds[0], StrEnum):
        return "|".join(kinds[0])
    return PLACEHOLDERS[kinds[0]]


def _kinds(annotation: Any) -> list[type]:
    """Return the types in an annotation such as ``list[str] | None``, without None."""
    inner = get_args(annotation) or (annotation,)
    return [
        kind for each in inner for kind in (_kinds(each) if get_args(each) else [each])
        if kind is not type(None)
    ]  # fmt: skip


def _notes(each: Any) -> Iterator[str]:
    if each.required and each.param_type_name == "option":
        yield " Required."
    bounds = [f"from {each.min:,}"] if each.min is not None else []
    bounds += [f"to {_number(each.max)}"] if each.max is not None else []
    if bounds:
        yield f" A number {' '.join(bounds)}."
    if each.name == "workers" and each.default:
        yield " Default: as many as the machine has cores."
    elif each.default not in (None, False, [], ()) and not callable(each.default):
        yield f" Default: `{getattr(each.default, 'value', each.default)}`."
    if each.multiple and "repeated" not in (each.help or ""):
        yield " May be repeated."
    variables = [each.envvar] if isinstance(each.envvar, str) else each.envvar
    if variables:
        yield f" Environment: {', '.join(f'`{name}`' for name in variables)}."


def _number(most: float) -> str:
    return f"{most:,}" if most < 10**12 else f"{most}"
