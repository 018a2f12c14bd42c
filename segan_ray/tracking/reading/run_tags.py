"""Reading and checking the tags of a run, for anybody can make or change a run in MLflow's UI.

Every tag is read here and nowhere else. A tag that is not as the recorder writes it raises a
``RunError``; a listing leaves that run out with a note.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast, get_args

from segan_ray.documents import DocumentError, parse_json
from segan_ray.errors import RunError, cut
from segan_ray.home import NAME
from segan_ray.search.results.ranking import (
    EndedBy,
    SweepRecord,
    SweepStatus,
    TrialRecord,
    TrialStatus,
)
from segan_ray.tracking import tag_names
from segan_ray.training.epoch_record import Mode

if TYPE_CHECKING:  # MLflow takes seconds to be imported
    from mlflow.entities import Run

NUMBER: Final = re.compile(r"[0-9]{1,18}")
SCORE: Final = re.compile(r"[-+.eE0-9]{1,40}")
METRIC: Final = re.compile(r"[\w./ :-]{1,250}")
FINGERPRINT: Final = re.compile(r"[\w.-]{1,200}")
READ: Final[tuple[str, ...]] = (
    tag_names.KIND, tag_names.SWEEP, tag_names.PARENT, tag_names.TRIAL, tag_names.STORE,
    tag_names.STATUS, tag_names.EPOCHS, tag_names.SCORE, tag_names.BEST_EPOCH, tag_names.PARAMS,
    tag_names.REPEAT_OF, tag_names.OBJECTIVES, tag_names.REASON, tag_names.METRIC, tag_names.MODE,
    tag_names.OUTBOX, tag_names.ENDED_BY, tag_names.INFEASIBLE,
)  # fmt: skip
"""The tags that are read."""


class LoggedPoint(NamedTuple):
    """A value of a metric at a step, an epoch, logged at ``at_ms`` since 1970."""

    step: int
    value: float
    at_ms: int


@dataclass(frozen=True)
class TaggedRun:
    """A listed run: its id, its start (ms since 1970), and its tags in ``READ``."""

    run: str
    start_ms: int | None
    tags: Mapping[str, str]

    @property
    def kind(self) -> str | None:
        """The kind in its tags: sweep, trial or evaluation."""
        return self.tags.get(tag_names.KIND)

    @property
    def said(self) -> str:
        """The run in words: its id, and the kind and name in its tags."""
        of = {"trial": tag_names.TRIAL, "sweep": tag_names.SWEEP}
        name = self.tags.get(of.get(self.kind or "", ""))
        return f"{self.run} ({self.kind} '{cut(name)}')" if name else self.run


def tagged(run: Run) -> TaggedRun:
    """Return a run of MLflow's client with only the tags that are read."""
    tags = {name: str(run.data.tags[name]) for name in READ if name in run.data.tags}
    return TaggedRun(str(run.info.run_id), run.info.start_time, tags)


def read_sweep_tags(run: TaggedRun) -> SweepRecord:
    """Return the sweep whose own run is ``run``, without its trials.

    Raises:
        RunError: if a tag is missing or is not as the recorder writes it.
    """
    return SweepRecord(
        sweep=_like(run, tag_names.SWEEP, NAME, "the name of a sweep"),
        status=cast("SweepStatus", _one_of(run, tag_names.STATUS, get_args(SweepStatus))),
        metric=_like(run, tag_names.METRIC, METRIC, "the name of a metric"),
        mode=_mode(run),
        store=_like(run, tag_names.STORE, FINGERPRINT, "the fingerprint of a store"),
        created=_created(run),
        trials=(),
        objectives=_directions(run),
        ended_by=_ended_by(run),
    )


def read_trial_tags(run: TaggedRun, sweep: str) -> TrialRecord:
    """Return the trial of ``sweep`` whose run is ``run``.

    Raises:
        RunError: as ``read_sweep_tags``, or if the run is no trial or of another sweep.
    """
    if run.kind != "trial":
        raise _wrong(run, tag_names.KIND, "'trial', since it is under a sweep")
    if run.tags.get(tag_names.SWEEP) != sweep:
        raise _wrong(run, tag_names.SWEEP, f"'{sweep}', since it is under that sweep's run")
    repeated = run.tags.get(tag_names.REPEAT_OF)
    return TrialRecord(
        trial=_like(run, tag_names.TRIAL, NUMBER, "a number such as 007"),
        status=cast("TrialStatus", _one_of(run, tag_names.STATUS, get_args(TrialStatus))),
        epochs=read_whole(run, tag_names.EPOCHS),
        score=read_score(run),
        mlflow_run=run.run,
        params=read_params(run),
        reason=run.tags.get(tag_names.REASON),
        repeat_of=repeated and _like(run, tag_names.REPEAT_OF, NUMBER, "a number such as 007"),
        objectives=read_objectives(run),
        infeasible=is_infeasible(run),
    )


def is_infeasible(run: TaggedRun) -> bool:
    """Tell whether a trial broke a constraint or ran out of memory."""
    return run.tags.get(tag_names.INFEASIBLE) == "true"


def read_whole(run: TaggedRun, name: str, default: str | None = None) -> int:
    """Return the whole number of a tag, or ``default`` where the tag is missing.

    Raises:
        RunError: if it is no whole number.
    """
    if default is not None and name not in run.tags:
        return int(default)
    return int(_like(run, name, NUMBER, "a whole number"))


def epochs_if_told(run: TaggedRun) -> int:
    """Return the epochs of a trial by its tag, 0 if the tag is no number."""
    text = run.tags.get(tag_names.EPOCHS, "")
    return int(text) if NUMBER.fullmatch(text) else 0


def read_score(run: TaggedRun) -> float | None:
    """Return the score of a trial, or None before it has one.

    Raises:
        RunError: if it is no finite number.
    """
    text = run.tags.get(tag_names.SCORE)
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        if SCORE.fullmatch(text) and math.isfinite(float(text)):
            return float(text)
    raise _wrong(run, tag_names.SCORE, "a number")


def read_objectives(run: TaggedRun) -> dict[str, float]:
    """Return the objectives of a trial at its best epoch, without those that are NaN.

    Raises:
        RunError: if they are not a JSON object of numbers.
    """
    expected = "a JSON object of numbers"
    values = _json(run, tag_names.OBJECTIVES, expected, "{}")
    if not isinstance(values, dict) or not all(_is_number(value) for value in values.values()):
        raise _wrong(run, tag_names.OBJECTIVES, expected)
    return {name: value for name, value in values.items() if not math.isnan(value)}


def read_params(run: TaggedRun) -> dict[str, Any]:
    """Return the drawn settings of a trial.

    Raises:
        RunError: if they are not a JSON object of values, and lists of values.
    """
    expected = "a JSON object of settings"
    params = _json(run, tag_names.PARAMS, expected)
    if not isinstance(params, dict) or not all(_is_setting(value) for value in params.values()):
        raise _wrong(run, tag_names.PARAMS, expected)
    return params


def _is_setting(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_setting(each) and not isinstance(each, list) for each in value)
    return value is None or isinstance(value, str | bool) or _is_finite(value)


def _is_finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _mode(run: TaggedRun) -> Mode:
    return cast("Mode", _one_of(run, tag_names.MODE, get_args(Mode)))


def _directions(run: TaggedRun) -> tuple[tuple[str, Mode], ...]:
    expected = 'JSON such as [["val/dice_mean", "max"]]'
    pairs = _json(run, tag_names.OBJECTIVES, expected, "[]")
    if not isinstance(pairs, list) or not all(map(_is_direction, pairs)):
        raise _wrong(run, tag_names.OBJECTIVES, expected)
    return tuple((metric, mode) for metric, mode in pairs)


def _is_direction(pair: Any) -> bool:
    is_pair = isinstance(pair, list) and len(pair) == 2
    return is_pair and isinstance(pair[0], str) and pair[1] in ("max", "min")


def _created(run: TaggedRun) -> str:
    try:
        at = datetime.fromtimestamp(cast("int", run.start_ms) / 1000, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        raise RunError(run.said, f"its start time is {cut(run.start_ms)}, expected one") from None
    return at.isoformat(timespec="seconds")


def _like(run: TaggedRun, name: str, pattern: re.Pattern[str], expected: str) -> str:
    value = run.tags.get(name)
    if value is None or not pattern.fullmatch(value):
        raise _wrong(run, name, expected)
    return value


def _ended_by(run: TaggedRun) -> EndedBy | None:
    if run.tags.get(tag_names.STATUS) != "finished" or not run.tags.get(tag_names.ENDED_BY):
        return None
    return cast("EndedBy", _one_of(run, tag_names.ENDED_BY, get_args(EndedBy)))


def _one_of(run: TaggedRun, name: str, values: tuple[str, ...]) -> str:
    value = run.tags.get(name)
    if value not in values:
        raise _wrong(run, name, f"one of {', '.join(values)}")
    return value


def _json(run: TaggedRun, name: str, expected: str, default: str | None = None) -> Any:
    text = run.tags.get(name, default)
    try:
        return parse_json(cast("str", text))
    except (DocumentError, TypeError):
        raise _wrong(run, name, expected) from None


def _wrong(run: TaggedRun, name: str, expected: str) -> RunError:
    value = run.tags.get(name)
    actual = "is missing" if value is None else f"is '{cut(value)}'"
    return RunError(run.said, f"its tag {name} {actual}, expected {expected}")
