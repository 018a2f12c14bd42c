"""The reference of what the functions of ``segan_ray.api`` return: fields, properties, methods."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Final, Literal, get_args, get_origin

from docstrings import linked_documents, marked, of_fields

from segan_ray.api.data import PreparedStore
from segan_ray.data.store.origin import Origin
from segan_ray.evaluation.inference.inference_settings import Postprocessing
from segan_ray.evaluation.inference.packaged_model import Model, TrainedSegmentor
from segan_ray.evaluation.inference.prediction import Prediction
from segan_ray.evaluation.metrics.scores import PairedDifference
from segan_ray.evaluation.scoring.gate import Verdict
from segan_ray.orchestration.tune.one_trial import TrainResult
from segan_ray.search.results.ranking import Repeats, SweepRecord, TrialRecord
from segan_ray.workflows.evaluate import Evaluation
from segan_ray.workflows.promote import Promotion

RESULTS: Final[tuple[type, ...]] = (
    PreparedStore, TrainResult, SweepRecord, TrialRecord, Repeats, Promotion, Verdict,
    PairedDifference, Evaluation, Prediction, Model, TrainedSegmentor, Origin, Postprocessing,
)  # fmt: skip
_NAMES: Final = {kind.__name__: kind.__name__.lower() for kind in RESULTS} | {
    "Experiment": "experiment"
}


def results_text() -> str:
    """Return the Markdown of every type that a function returns, or that is part of one."""
    return linked_documents("\n\n".join(map(_section, RESULTS))) + "\n"


def _section(kind: type) -> str:
    lines = [*_fields(kind), *_members(kind)]
    return f"### `{kind.__name__}`\n\n{marked(inspect.getdoc(kind) or '')}\n\n" + "\n".join(lines)


def _fields(kind: type) -> Iterator[str]:
    meanings = of_fields(kind)
    for name, annotation in fields(kind).items():
        yield _line(f"{name}: {expanded(annotation, kind)}", meanings.get(name, ""))


def fields(kind: type) -> dict[str, str]:
    """Return the public fields of a class with their types as they are written."""
    written = inspect.get_annotations(kind).items()
    return {
        name: str(annotation)
        for name, annotation in written
        if not name.startswith("_") and not str(annotation).startswith("ClassVar")
    }


def _members(kind: type) -> Iterator[str]:
    """Yield a line for each public property, and each method that is called without arguments."""
    for name, (read, mark) in members(kind).items():
        returned = expanded(inspect.signature(read).return_annotation, kind)
        said = (inspect.getdoc(read) or "").partition("\n\n")[0]
        yield _line(f"{name}{mark} {returned}", marked(said))


def members(kind: type) -> dict[str, tuple[Any, str]]:
    """Return the properties and methods of a class: the function, and how it is written."""
    found: dict[str, tuple[Any, str]] = {}
    for name, member in vars(kind).items():
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            found[name] = member.fget, ":"
        elif isinstance(member, cached_property):
            found[name] = member.func, ":"
        elif inspect.isfunction(member) and len(inspect.signature(member).parameters) == 1:
            found[name] = member, "() ->"
    return found


def _line(code: str, meaning: str) -> str:
    said = re.sub(r" \(see `\w+`\)", "", " ".join(meaning.split()))
    return f"- {linked(code)}{': ' if said else ''}{said}"


def linked(code: str) -> str:
    """Return a type in code font, as a link to its section if one of ours is in it."""
    for name, anchor in _NAMES.items():
        if re.search(rf"\b{name}\b", code):
            return f"[`{code}`](#{anchor})"
    return f"`{code}`"


def expanded(annotation: str, kind: type) -> str:
    """Return an annotation with the values of each ``Literal`` in it, named or written."""
    there = vars(sys.modules[kind.__module__])

    def values(match: re.Match[str]) -> str:
        named = there.get(match[0])
        if get_origin(named) is not Literal:
            return match[0]
        return " | ".join(map(repr, get_args(named)))

    written = re.sub(r"Literal\[([^]]*)\]", lambda match: match[1].replace(", ", " | "), annotation)
    return re.sub(r"\b[A-Z]\w+\b", values, written)
