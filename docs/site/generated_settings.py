"""The reference of settings: path, type, range, default and meaning, from ``segan_ray/config.py``.

The meaning of a setting is the docstring below it.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from docstrings import marked, of_fields
from pydantic import BaseModel

from segan_ray.config import Experiment

NAMES: Final = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}


@dataclass(frozen=True)
class Setting:
    """A setting as the reference shows it."""

    path: str
    kind: str
    default: str
    meaning: str


def settings_text() -> str:
    """Return the Markdown of every setting, group by group."""
    parts = []
    for group, settings in groups().items():
        about = f"{meaning_of_group(group)}\n\n" if group else ""
        parts.append(f"## {group or 'The run'}\n\n{about}{''.join(map(_entry, settings))}")
    return "\n".join(parts)


def _entry(setting: Setting) -> str:
    return (
        f"### `{setting.path}`\n\n{setting.kind}; default `{setting.default}`\n\n"
        f"{setting.meaning}\n\n"
    )


@cache
def groups() -> Mapping[str, list[Setting]]:
    """Return the settings of each group; the first group is the run itself."""
    found: dict[str, list[Setting]] = {"": []}
    for name, field in Experiment.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found[name] = list(_settings(kind, f"{name}."))
    found[""] = list(_settings(Experiment, ""))
    return found


def every_setting() -> Iterator[Setting]:
    """Yield the settings of all groups."""
    for settings in groups().values():
        yield from settings


def meaning_of_group(group: str) -> str:
    """Return what a group of settings is."""
    model = Experiment.model_fields[group].annotation
    assert isinstance(model, type)
    return marked(inspect.getdoc(model) or "")


def _settings(model: type[BaseModel], prefix: str) -> Iterator[Setting]:
    meanings = of_fields(model)
    properties = model.model_json_schema()["properties"]
    for name, schema in properties.items():
        if "$ref" not in schema:
            yield Setting(
                f"{prefix}{name}",
                said_kind(schema),
                json.dumps(schema.get("default")).strip('"'),
                meanings.get(name, ""),
            )


def said_kind(schema: Mapping[str, Any]) -> str:
    """Return the type and range of a JSON schema in words."""
    if "anyOf" in schema:
        kinds = list(dict.fromkeys(said_kind(each) for each in schema["anyOf"]))
        return f"{', '.join(kinds[:-1])}, or {kinds[-1]}"
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`".replace('"', "")
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema["type"]
    if kind == "null":
        return "`null`"
    if kind == "array":
        return _said_list(schema)
    return f"{NAMES[kind]}{_range(schema)}"


def _said_list(schema: Mapping[str, Any]) -> str:
    if "prefixItems" in schema:
        count, item = len(schema["prefixItems"]), schema["prefixItems"][0]
        return f"a list of {count} numbers, each{_range(item)}"
    return f"a list of numbers, each{_range(schema['items'])}"


def _range(schema: Mapping[str, Any]) -> str:
    above, least = schema.get("exclusiveMinimum"), schema.get("minimum")
    below, most = schema.get("exclusiveMaximum"), schema.get("maximum")
    if below is not None and schema["type"] == "integer":
        most = below - 1
    up = "at most" if least is None else "to"
    low = f"from {_number(least)}" if least is not None else f"above {_number(above)}"
    high = f"{up} {_number(most)}" if most is not None else f"below {_number(below)}"
    parts = [low] if least is not None or above is not None else []
    parts += [high] if most is not None or below is not None else []
    between = " " if least is not None and most is not None else " and "
    return f" {between.join(parts)}" if parts else ""


def _number(value: float | None) -> str:
    return f"{value:,}" if isinstance(value, int) and value < 10**12 else f"{value}"
