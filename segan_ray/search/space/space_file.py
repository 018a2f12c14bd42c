"""Reading a space file: every problem is reported at once, each with its line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, get_args

import yaml
from pydantic import BaseModel, ValidationError

import segan_ray
from segan_ray.config import parse_settings, paths, read_settings
from segan_ray.errors import LONGEST, MOST_PROBLEMS, ConfigError, and_more, cut, nearest
from segan_ray.search.space.checks import (
    Problem,
    dependency_problems,
    impossible_points,
    mended,
    networks_too_large,
)
from segan_ray.search.space.compatibility import refusals
from segan_ray.search.space.objectives import Constraint, Objective
from segan_ray.search.space.parameters import Parameter, said_as
from segan_ray.search.space.sampler_settings import Sampler
from segan_ray.search.space.scheduler_settings import Scheduler
from segan_ray.search.space.search_space import Budget, NoGain, SearchSpace
from segan_ray.search.space.yaml_lines import YamlLines

Tree = dict[str, Any]
ARMS_ALONE: Final = "it holds arms, not one space. Compare them: segan-ray compare STORE --arms"


def resolve_space(text: str) -> Path:
    """Return the space file that ``text`` means: a path, or the bare name of a shipped one.

    Raises:
        ConfigError: if it is neither.
    """
    path = Path(text)
    if os.path.isfile(path):  # noqa: PTH113 - pathlib raises for a name that is too long
        return path
    shipped = shipped_spaces()
    if text in shipped:
        return shipped[text]
    there = os.path.exists(path)  # noqa: PTH110
    kind = ("a folder" if path.is_dir() else "no file") if there else "no such file"
    raise ConfigError(
        cut(text, LONGEST),
        [
            f"{kind}, and no shipped space of that name.{nearest(path.stem, shipped)} "
            f"Shipped are: {', '.join(shipped) or 'none'}."
        ],
    )


def shipped_spaces() -> dict[str, Path]:
    """Return the files of the spaces that come with the package, by name."""
    package = Path(segan_ray.__file__).parent
    # A wheel holds them inside the package; a checkout has them beside it.
    folder = next(
        (parent for parent in (package, package.parent) if (parent / "search_spaces").is_dir()),
        package,
    )
    return {file.stem: file for file in sorted((folder / "search_spaces").rglob("*.yaml"))}


def load_space(file: Path) -> SearchSpace:
    """Read a space file and check everything that can be known before a sweep starts.

    Raises:
        ConfigError: with every problem, each with its line.
    """
    text = read_settings(file)
    tree = parse_settings(text, file)
    lines = YamlLines.of(text)
    if "arms" in tree:
        raise ConfigError(str(file), [ARMS_ALONE])
    space, problems, unsaid = read_tree(tree)
    listed = [*repetitions(lines)]
    listed += [(lines.line(problem.where), problem.text) for problem in problems]
    if listed or space is None:
        raise refusal(file, listed, unsaid)
    return space


def check_space(space: SearchSpace) -> SearchSpace:
    """Return a space that was built in code, checked as a file is.

    Raises:
        ConfigError: with every problem.
    """
    _, problems, _ = read_tree(space.model_dump(mode="json"))
    if problems:
        raise ConfigError(f"space {space.name}", [each.text for each in problems])
    return space


def written(space: SearchSpace) -> str:
    """Return the file of a space that was built in code."""
    return yaml.safe_dump(space.model_dump(mode="json"), sort_keys=False)


def repetitions(lines: YamlLines) -> Iterator[tuple[int | None, str]]:
    """Yield every key that stands twice, by its line."""
    for repeated in lines.repeated():
        text = f"'{cut(repeated.where[-1])}' stands here and at line {repeated.first}. Keep one."
        yield repeated.line, text


def refusal(file: Path, listed: list[tuple[int | None, str]], unsaid: int) -> ConfigError:
    """Return an error that lists the first problems by line and counts the others."""
    listed.sort(key=lambda each: each[0] or 0)
    shown = listed[:MOST_PROBLEMS]
    more = and_more(len(listed) - len(shown) + unsaid)
    return ConfigError(
        str(file),
        [*(text for _, text in shown), *more],
        [*(line for line, _ in shown), *(None for _ in more)],
    )


def read_tree(tree: Tree) -> tuple[SearchSpace | None, list[Problem], int]:
    """Return the space of a file, its problems, and how many more problems are not put in words.

    The space is checked without its wrong parts, so that one reading names all problems.
    """
    unknown = [path for path in _parameters(tree) if path not in KNOWN]
    problems = [_unknown(path) for path in unknown[:MOST_PROBLEMS]]
    wrong: list[tuple[str | int, ...]] = [("parameters", path) for path in unknown]
    try:
        space = SearchSpace.model_validate(tree)
    except ValidationError as refusal:
        errors = refusal.errors()
        problems += [_explain({**error}, tree) for error in errors[:MOST_PROBLEMS]]
        wrong += [error["loc"] for error in errors]
    unsaid = len(wrong) - len(problems)
    if wrong:
        reduced = _reduced(tree, wrong)
        try:
            space = SearchSpace.model_validate(reduced)
        except ValidationError:
            return None, problems, unsaid
    left_out = {str(where[0]) for where in wrong}
    more = _semantic(space, whole="parameters" not in left_out)
    # A section that was left out has its default here, whose problems are not the file's.
    problems += [each for each in more if each.where[0] not in left_out - {"parameters", "base"}]
    return space, problems, unsaid


def _unknown(path: Any) -> Problem:
    text = f"unknown parameter '{cut(path)}'.{nearest(str(path), KNOWN)}"
    return Problem(("parameters", path), text)


def _semantic(space: SearchSpace, *, whole: bool) -> list[Problem]:
    space, problems = mended(space)
    whole = whole and not problems
    dependencies = list(dependency_problems(space))
    if dependencies:
        return [*problems, *dependencies]
    problems += [*impossible_points(space, whole=whole), *refusals(space)]
    return problems or list(networks_too_large(space))


def _parameters(tree: Tree) -> Mapping[Any, Any]:
    parameters = tree.get("parameters")
    return parameters if isinstance(parameters, dict) else {}


def _reduced(tree: Tree, wrong: list[tuple[str | int, ...]]) -> Tree:
    """Return ``tree`` without its wrong parts and the parameters that depend on them."""
    bad = {where[1] for where in wrong if where[0] == "parameters" and len(where) > 1}
    kept = dict(_parameters(tree))
    while bad:
        kept = {path: each for path, each in kept.items() if path not in bad}
        bad = {
            path
            for path, each in kept.items()
            if _asks_for(each, set(_parameters(tree)) - set(kept))
        }
    sections = {where[0] for where in wrong} - {"parameters"}
    reduced = {key: value for key, value in tree.items() if key not in sections}
    return {**reduced, "name": reduced.get("name", "unnamed"), "parameters": kept}


def _asks_for(parameter: Any, gone: set[Any]) -> bool:
    when, length = parameter.get("when"), str(parameter.get("length"))
    needed = {*(when if isinstance(when, dict) else ()), length.partition("+")[0].strip()}
    return bool(needed & gone)


def _explain(error: Mapping[str, Any], tree: Tree) -> Problem:
    """Put one of pydantic's errors about ``tree`` in words."""
    loc = error["loc"]
    where = cut(".".join(map(str, _without_tags(loc, tree))))
    message = str(error["msg"]).removeprefix("Value error, ")
    match error["type"]:
        case "extra_forbidden":
            text = f"unknown key '{where}'.{nearest(str(loc[-1]), _keys(loc))}"
        case "missing":
            text = f"'{where}' is missing."
        case "union_tag_invalid":
            context = error["ctx"]
            tags = context["expected_tags"].replace("'", "").split(", ")
            text = (
                f"{where}: type {cut(repr(context['tag']))} is not one of {', '.join(tags)}."
                f"{nearest(str(context['tag']), tags)}"
            )
        case "union_tag_not_found":
            text = f"{where}: 'type' is missing."
        case "tuple_type":
            text = f"{where}: found {_shape(error['input'])}, expected a list."
        case "dict_type" | "model_type" | "model_attributes_type":
            text = f"{where}: found {_shape(error['input'])}, expected settings as key: value."
        case _:
            stop = "" if message.endswith((".", "?")) else "."
            text = f"{where}: {message[:1].lower()}{message[1:]}{stop}"
    return Problem(loc, text)


def _shape(value: Any) -> str:
    if isinstance(value, list):
        return "a list"
    return "settings" if isinstance(value, dict) else cut(said_as(value))


def _without_tags(loc: tuple[str | int, ...], tree: Any) -> Iterator[str | int]:
    """Yield ``loc`` without the types that pydantic puts between keys."""
    for index, part in enumerate(loc):
        inside = isinstance(tree, dict) and part in tree
        item = isinstance(tree, (list, tuple)) and isinstance(part, int) and part < len(tree)
        if inside or item:
            tree = tree[part]
        tag = part == "[key]" or (isinstance(tree, dict) and tree.get("type") == part)
        if inside or item or (index == len(loc) - 1 and not tag):
            yield part


def _keys(loc: tuple[str | int, ...]) -> list[str]:
    """Return the keys that may stand beside the last of ``loc``."""
    model = GROUPS.get(str(loc[-2])) if len(loc) > 1 else SearchSpace
    if len(loc) > 1 and loc[0] in JUDGES:
        model = JUDGES[str(loc[0])]
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _tagged(union: Any) -> dict[str, type[BaseModel]]:
    models = get_args(get_args(union)[0])
    return {get_args(model.model_fields["type"].annotation)[0]: model for model in models}


KNOWN: Final = frozenset(paths())
JUDGES: Final[dict[str, type[BaseModel]]] = {"objective": Objective, "constraints": Constraint}
GROUPS: Final[dict[str, type[BaseModel]]] = {
    "budget": Budget,
    "no_gain_for": NoGain,
    **_tagged(Sampler),
    **_tagged(Scheduler),
    **_tagged(Parameter),
}
