"""Reading an arms file: methods to compare, each a search space, under one budget.

What stands at the top of the file is every arm's: objective, constraints, sampler, scheduler,
budget, and the settings and parameters that all share. An arm adds a ``preset``, ``base`` and
``parameters``, and may begin with those of a space file (``space``). Without parameters it is a
single experiment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import yaml

from segan_ray.config import merge, parse_settings, read_settings
from segan_ray.errors import ConfigError, cut, nearest, said
from segan_ray.home import NAME, NAMES
from segan_ray.search.space.checks import Problem
from segan_ray.search.space.parameters import FixedParameter
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.search.space.space_file import (
    load_space,
    read_tree,
    refusal,
    repetitions,
    resolve_space,
)
from segan_ray.search.space.yaml_lines import YamlLines

Tree = dict[str, Any]
Where = tuple[str | int, ...]
ARM_KEYS: Final = ("space", "preset", "base", "parameters", "enqueue")
EARLY_ENDS: Final = ("hours", "gpu_hours", "no_gain_for")
"""The parts of a budget that may end a sweep before all of its trials."""
TIMING: Final = "-timing"
"""How the names of the runs end that time an arm."""
IN_CODE: Final = Path("arms")
"""Where problems of arms are that no file holds; files that they name are beside it."""
LENGTHS: Final = ("training.epochs", "training.steps_per_epoch", "training.batch_size")
"""The settings that say how long an arm trains; all arms have the same."""


@dataclass(frozen=True)
class Arms:
    """The arms of a comparison by name, in the order of their file, whose text is kept."""

    name: str
    spaces: Mapping[str, SearchSpace]
    text: str

    @property
    def epochs(self) -> int:
        """How many epochs each trial of each arm runs."""
        return next(iter(self.spaces.values())).most_epochs()

    def lengthened(self, epochs: Mapping[str, int]) -> Arms:
        """Return the arms with ``epochs`` of their own, and rungs at the same shares of them."""
        return replace(
            self,
            spaces={name: _lengthened(space, epochs[name]) for name, space in self.spaces.items()},
        )


def load_arms(file: Path) -> Arms:
    """Read an arms file and check everything that can be known before training.

    Raises:
        ConfigError: with every problem, each with its line.
    """
    return _checked(read_settings(file), file)


def build_arms(tree: Mapping[str, Any]) -> Arms:
    """Check arms that were built in code, as the content of an arms file.

    Raises:
        ConfigError: with every problem.
    """
    try:
        text = yaml.safe_dump(dict(tree), sort_keys=False)
    except yaml.YAMLError as error:
        raise ConfigError(str(IN_CODE), [f"A value cannot be in a file: {said(error)}."]) from None
    try:
        return _checked(text, IN_CODE)
    except ConfigError as error:
        raise ConfigError(str(IN_CODE), error.problems) from None  # nobody sees its lines


def _checked(text: str, file: Path) -> Arms:
    tree = parse_settings(text, file)
    lines = YamlLines.of(text)
    listed = [*repetitions(lines)]
    spaces: dict[str, SearchSpace] = {}
    problems = list(_shape_problems(tree))
    if not problems:
        for name, arm in tree["arms"].items():
            space, found = _arm_space(file, tree, name, arm or {})
            problems += [Problem(_at(tree, name, each.where), each.text) for each in found]
            if space is not None:
                spaces[name] = space
        problems = problems or list(_unequal(spaces))
    listed += [(lines.line(problem.where), problem.text) for problem in problems]
    if listed:
        raise refusal(file, listed, 0)
    return Arms(str(tree["name"]), spaces, text)


def _shape_problems(tree: Tree) -> Iterator[Problem]:
    name, arms = tree.get("name"), tree.get("arms")
    if not NAME.fullmatch(str(name or "")):
        yield Problem(("name",), f"name is {cut(repr(name))}. {NAMES}")
    if not isinstance(arms, dict) or len(arms) < 2:
        yield Problem(("arms",), "expected at least two arms to compare, as arms: {name: {…}}.")
        return
    yield from _no_settings(tree, ())
    yield from _early_ends(tree.get("budget"))
    if tree.get("folds") is not None:
        text = "arms are compared on the single split, each with several seeds. Leave folds out."
        yield Problem(("folds",), text)
    if "enqueue" in tree:
        yield Problem(("enqueue",), "enqueue: say of each arm what it tries first, below arms.")
    for arm, settings in arms.items():
        if not isinstance(arm, str) or not NAME.fullmatch(arm) or arm.endswith(TIMING):
            text = f"'{cut(arm)}' cannot name an arm. {NAMES} It may not end in {TIMING}."
            yield Problem(("arms", arm), text)
        if not isinstance(settings or {}, dict):
            yield Problem(("arms", arm), f"{arm}: expected settings as key: value.")
            continue
        yield from _no_settings(settings or {}, ("arms", arm))
        for key in settings or {}:
            if key not in ARM_KEYS:
                text = (
                    f"{arm}: unknown key '{cut(key)}'.{nearest(str(key), ARM_KEYS)} Budget, "
                    "sampler, scheduler and objective are those of all arms, at the top."
                )
                yield Problem(("arms", arm, key), text)


def _early_ends(budget: object) -> Iterator[Problem]:
    for key in EARLY_ENDS:
        if isinstance(budget, dict) and key in budget:
            text = f"budget.{key} would end some arms before others. Leave it out."
            yield Problem(("budget", key), text)


def _no_settings(tree: Tree, where: Where) -> Iterator[Problem]:
    """Yield the parts of a tree that should be settings and are something else."""
    for key in ("base", "parameters"):
        if not isinstance(tree.get(key) or {}, dict):
            name = ".".join([*map(str, where[1:]), key])
            yield Problem((*where, key), f"{name}: expected settings as key: value.")


def _arm_space(
    file: Path, top: Tree, name: str, arm: Tree
) -> tuple[SearchSpace | None, list[Problem]]:
    """Return the space of one arm, and the problems of its tree."""
    tree = _arm_tree(file, top, name, arm)
    draws = bool(tree["parameters"])
    if not draws:
        # A parameter that stands for none, as a space must have one.
        single = {"seed": {"type": "int", "low": 0, "high": 1}}
        alone = {"sampler": {"type": "random"}, "scheduler": {"type": "none"}, "enqueue": []}
        tree = {**tree, **alone, "parameters": single}
    space, problems, _ = read_tree(tree)
    found = [replace(each, text=f"{name}: {each.text}") for each in problems]
    if space is None or found or draws:
        return space, found
    budget = space.budget.model_copy(update={"trials": 1})
    seed = FixedParameter(type="fixed", value=space.base_experiment().seed)
    return space.model_copy(update={"parameters": {"seed": seed}, "budget": budget}), []


def _arm_tree(file: Path, top: Tree, name: str, arm: Tree) -> Tree:
    tree = {key: value for key, value in top.items() if key not in ("arms", "name")}
    begun = _begun(file, arm)
    base, parameters = _mapping(tree.get("base")), _mapping(tree.get("parameters"))
    preset = tree.get("preset")
    if begun is not None:
        base = merge(base, begun.base)
        parameters |= begun.model_dump(mode="json")["parameters"]
        preset = begun.preset or preset
    return {
        **tree,
        "name": name,
        "preset": arm.get("preset") or preset,
        "base": merge(base, _mapping(arm.get("base"))),
        "parameters": {**parameters, **_mapping(arm.get("parameters"))},
        "enqueue": arm.get("enqueue", []),
    }


def _begun(file: Path, arm: Tree) -> SearchSpace | None:
    """Return the space that an arm begins with: a file beside its own, or a shipped one."""
    named = arm.get("space")
    if named is None:
        return None
    beside = file.parent / str(named)
    return load_space(beside if beside.is_file() else resolve_space(str(named)))


def _mapping(value: Any) -> Tree:
    """Return a copy of what should be settings; what is not is refused elsewhere."""
    return dict(value) if isinstance(value, Mapping) else {}


def _at(tree: Tree, name: str, where: Where) -> Where:
    """Return the keys that lead to a problem of an arm's tree in the file."""
    for above in (("arms", name), ()):
        node: Any = tree
        for key in (*above, *where[:2]):
            node = node.get(key) if isinstance(node, dict) else None
        if node is not None:
            return (*above, *where)
    return ("arms", name)


def _unequal(spaces: Mapping[str, SearchSpace]) -> Iterator[Problem]:
    """Yield the arms that would train longer or shorter than the first."""
    first, *others = spaces
    in_steps = spaces[first].settings()["training.steps_per_epoch"] is not None
    for path in LENGTHS if in_steps else LENGTHS[:2]:
        drawn = [name for name, space in spaces.items() if path in space.parameters]
        for name in drawn:
            text = f"{name}: {path} is a parameter. All arms need the same: set it in base."
            yield Problem(("arms", name), text)
        expected = spaces[first].settings()[path]
        for name in () if drawn else others:
            if (value := spaces[name].settings()[path]) != expected:
                text = (
                    f"{name}: {path} is {value}, and {expected} in {first}. All arms need the same."
                )
                yield Problem(("arms", name), text)


def _lengthened(space: SearchSpace, epochs: int) -> SearchSpace:
    before, scheduler = space.most_epochs(), space.scheduler
    grace = getattr(scheduler, "grace_period", None)
    if grace is not None:
        scaled = min(epochs, max(1, round(grace * epochs / before)))
        scheduler = scheduler.model_copy(update={"grace_period": scaled})
    base = merge(space.base, {"training": {"epochs": epochs}})
    return space.model_copy(update={"base": base, "scheduler": scheduler})
