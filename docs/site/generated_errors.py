"""The reference of errors: every class, and every message in the order of its first words.

Messages are read from the source: what an error is raised with, and the sentences of modules whose
functions return problems in words. ``…`` stands for what is filled in.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

from docstrings import marked

import segan_ray
from segan_ray import errors

SOURCES: Final = Path(segan_ray.__file__).parent
AREAS: Final = {
    "DataError": (
        "BRATS folders, cases, files",
        "The file is named. `segan-ray inspect` shows what else is wrong with its folder.",
    ),
    "StoreError": ("Stores", "A store can always be prepared again from the scans."),
    "SplitError": ("Splits of patients", "Options of `prepare`, or a file of your own."),
    "ConfigError": (
        "Settings and spaces",
        "All problems of a file are said at once. See [settings](settings.md) and "
        "[search-space files](search.md).",
    ),
    "SweepError": (
        "Runs and sweeps",
        "`segan-ray sweeps` and `segan-ray trials` show what there is, and why trials ended.",
    ),
    "TrialError": ("Trials", "The reason of one trial; its sweep goes on."),
    "ClusterError": (
        "Clusters and jobs",
        "`segan-ray doctor` looks from every node. See [work on a cluster](cluster-jobs.md).",
    ),
    "TrackingError": ("Records in MLflow", "See [records](records.md)."),
    "RegistryError": ("Registered models", "See [promote and roll back](promote.md)."),
    "CheckpointError": (
        "Checkpoints and packaged models",
        "A file that differs from how it was written is not used.",
    ),
    "ExportError": ("Exports", "See the command [`export`](commands.md#export)."),
    "NotInstalledError": (
        "Missing packages",
        "[Extras](requirements.md#systems-and-versions) bring what only some work needs.",
    ),
}
"""What each kind of error is about, and where to look."""
SENTENCES: Final = {
    "errors.py": "SweepError",
    "config.py": "ConfigError",
    "search/space/*.py": "ConfigError",
    "data/io/*.py": "DataError",
}
"""Modules in which every sentence is a message, though no error is raised with it there."""
SECOND: Final = ("CaseError", "ConfigError", "RunError")
"""Errors whose message is the second argument."""
FEWEST_WORDS: Final = 3
"""Of fewer words of its own nobody could find a message."""


def classes() -> Mapping[str, type[errors.SeganRayError]]:
    """Return every class of errors by its name, the root first."""
    return {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.SeganRayError)
    }


def errors_text() -> str:
    """Return the Markdown of the classes."""
    parts = []
    for name, kind in classes().items():
        (parent,) = (each.__name__ for each in kind.__bases__)
        below = f" A [`{parent}`](#{parent.lower()})." if parent in AREAS else ""
        parts.append(f"### `{name}`\n\n{marked(inspect.getdoc(kind) or '')}{below}")
    return "\n\n".join(parts) + "\n"


def messages_text() -> str:
    """Return the Markdown of every message, by what it is about."""
    parts = []
    for area, (title, advice) in AREAS.items():
        lines = "\n".join(f"- `{message}`" for message in messages()[area])
        parts.append(f"## {title}: `{area}`\n\n{advice}\n\n{lines}")
    return "\n\n".join(parts) + "\n"


@cache
def messages() -> Mapping[str, list[str]]:
    """Return the messages of each area, sorted by their first words."""
    found: dict[str, set[str]] = {area: set() for area in AREAS}
    for file in sorted(SOURCES.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for name, node in _raised(tree):
            found[_area(name)].add(written(node))
        for pattern, area in SENTENCES.items():
            if file.relative_to(SOURCES).match(pattern):
                found[area] |= {text for text in map(written, _strings(tree)) if _is_sentence(text)}
    return {area: sorted(filter(_has_words, texts), key=_key) for area, texts in found.items()}


def _raised(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Yield what errors are made with: the name of the class, and the message."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            name = node.func.id
            arguments = node.args[1:] if name in SECOND else node.args
            if name in classes() and arguments:
                several = isinstance(arguments[0], (ast.List, ast.Tuple))
                for each in arguments[0].elts if several else arguments[:1]:
                    yield name, each


def _strings(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield the strings that are no docstrings and no parts of others."""
    apart = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            apart.add(node.value)
        elif isinstance(node, ast.JoinedStr):
            apart.update(node.values)
    strings = (ast.JoinedStr, ast.Constant)
    yield from (node for node in ast.walk(tree) if isinstance(node, strings) and node not in apart)


def written(node: ast.expr) -> str:
    """Return a message on one line, with ``…`` for what is filled in."""
    return re.sub("…+", "…", " ".join(_parts(node).split()))


def _parts(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else "…"
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_parts, node.values))
    if isinstance(node, ast.BinOp):
        return _parts(node.left) + _parts(node.right)
    return "…"


def _area(name: str) -> str:
    """Return the area of a class: itself, or the nearest class above it that is one."""
    return next(kind.__name__ for kind in classes()[name].__mro__ if kind.__name__ in AREAS)


def _is_sentence(text: str) -> bool:
    return re.search(r"\.( |…|$)", text) is not None


def _has_words(text: str) -> bool:
    return len(re.findall(r"[A-Za-z]{2,}", text)) >= FEWEST_WORDS


def _key(text: str) -> str:
    """Return a message without the names, quotes and signs that it begins with."""
    return re.sub(r"^[\W_]+", "", text).lower()
