"""Where in a YAML file a key stands, so that a problem can name its line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode


@dataclass(frozen=True)
class Repeated:
    """A key that stands twice in one mapping; ``line`` and ``first`` count from 1."""

    where: tuple[str, ...]
    line: int
    first: int


@dataclass(frozen=True)
class YamlLines:
    """The lines of one YAML text."""

    root: Node | None

    @classmethod
    def of(cls, text: str) -> YamlLines:
        """Read the marks of ``text``, which must be valid YAML."""
        return cls(yaml.compose(text, Loader=yaml.SafeLoader))

    def line(self, where: Sequence[str | int]) -> int | None:
        """Return the line of the key that ``where`` leads to, or of the nearest around it."""
        node, line = self.root, None
        for part in where:
            key, below = _step(node, part)
            if key is not None:
                node, line = below, key.start_mark.line + 1
        return line

    def repeated(self) -> Iterator[Repeated]:
        """Yield every key that repeats an earlier key of its mapping; YAML keeps only the last."""
        yield from _repeated(self.root, (), set())


def _step(node: Node | None, part: str | int) -> tuple[Node | None, Node | None]:
    """Return the nodes of one key and of what it holds; of an item, the item for both."""
    if isinstance(node, MappingNode):
        for key, value in reversed(node.value):
            if isinstance(key, ScalarNode) and key.value == str(part):
                return key, value
    if isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None, None


def _repeated(node: Node | None, where: tuple[str, ...], seen: set[int]) -> Iterator[Repeated]:
    if node is None or id(node) in seen:  # an alias, perhaps a recursive one
        return
    seen.add(id(node))
    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            yield from _repeated(item, (*where, str(index)), seen)
    if isinstance(node, MappingNode):
        first: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            below = (*where, str(key.value))
            line = key.start_mark.line + 1
            if isinstance(key, ScalarNode) and (key.tag, key.value) in first:
                yield Repeated(below, line, first[key.tag, key.value])
            elif isinstance(key, ScalarNode):
                first[key.tag, key.value] = line
            yield from _repeated(value, below, seen)
