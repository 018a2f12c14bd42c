"""Every exception a user can cause, as one tree.

SeganRayError
├── DataError            a BRATS folder, case or volume is not what it should be
│   ├── NoCasesError     a folder holds no case of any known layout
│   └── CaseError        one case is bad; the others are not touched by it
├── StoreError           a prepared store is missing, unfinished or of another version
├── SplitError           a split cannot be made, or puts a patient on two sides
├── ConfigError          settings or a search space that cannot be right; lists every problem
├── CheckpointError      a checkpoint is missing, unfinished, not ours or was changed
├── ExportError          a model cannot be exported as asked
├── NotInstalledError    a package is missing that one of segan-ray's extras brings
├── SweepError           a sweep or trial is unknown, already there, or all of it failed
│   ├── Interrupted      a sweep was asked to end by a signal; it can be resumed
│   └── TakenOver        a sweep goes on in another process, since this one stood still
├── TrialError           the processes that train a trial were lost
├── ClusterError         a Ray cluster cannot be reached, or a job on it refused or failed
├── TrackingError        MLflow cannot be reached or used
│   └── RunError         one run's tags are not as segan-ray writes them
└── RegistryError        a model, version or alias that is not registered

Messages are one or two plain lines: the file or key, the value found, the value expected, and
what to do. The command line prints them as they are and exits with 1.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

T = TypeVar("T")

LONGEST: Final = 400
"""Characters of a library's message, which may be pages long."""
LONGEST_VALUE: Final = 80
"""Characters of a name or value in a message."""
LONGEST_PROBLEM: Final = 1000
MOST_PROBLEMS: Final = 50
"""Problems of one file that are listed; the others are counted."""
# Characters that move the cursor, rewrite a line, turn the direction of writing or end a line.
_UNSEEN: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)


class SeganRayError(Exception):
    """Root of everything a user can cause and mend."""


class DataError(SeganRayError):
    """A BRATS folder, case or volume is not what it should be."""


class NoCasesError(DataError):
    """A folder holds no case of any known layout."""


class CaseError(DataError):
    """One case is bad. ``case`` names it; the message says what is wrong in words."""

    def __init__(self, case: str, message: str) -> None:
        super().__init__(f"Case {visible(case)}: {message}")
        self.case = case

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions cross process borders by their args; ours takes two, so say how.
        prefix = f"Case {visible(self.case)}: "
        return type(self), (self.case, str(self).removeprefix(prefix))


class StoreError(SeganRayError):
    """A prepared store is missing, unfinished or of another version."""


class SplitError(SeganRayError):
    """A split cannot be made, or puts a patient on two sides."""


class ConfigError(SeganRayError):
    """Settings or a search space that cannot be right; ``problems`` holds them all.

    ``lines``, where known, are the lines of the file ``where`` that hold them.
    """

    def __init__(
        self, where: str, problems: Iterable[str], lines: Iterable[int | None] = ()
    ) -> None:
        self.where = where
        self.problems = tuple(cut(problem, LONGEST_PROBLEM) for problem in problems)
        self.lines = (*lines,) or (None,) * len(self.problems)
        locations = (f"{where}:{line}" if line else where for line in self.lines)
        pairs = zip(locations, self.problems, strict=True)
        super().__init__("\n".join(f"{location}: {problem}" for location, problem in pairs))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.where, self.problems, self.lines)


class CheckpointError(SeganRayError):
    """A checkpoint is missing, unfinished or not ours."""


class ExportError(SeganRayError):
    """A model cannot be exported as asked."""


class NotInstalledError(SeganRayError):
    """A package is missing that one of segan-ray's extras brings."""


class SweepError(SeganRayError):
    """A sweep or trial is unknown, already there, or all of it failed."""


class Interrupted(SweepError):  # noqa: N818 - nothing went wrong
    """A sweep was asked to end by ``signal``; it can be resumed."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal

    @classmethod
    def of(cls, sweep: str, command: str, signal: int) -> Interrupted:
        """Say that a sweep was interrupted, and by which command it goes on."""
        return cls(f"'{sweep}' was interrupted; nothing of it is lost. Go on: {command}", signal)


class TakenOver(SweepError):  # noqa: N818 - nothing went wrong with the sweep
    """Another process, ``by``, has taken over a sweep: this one may write no more of it."""

    def __init__(self, sweep: str, by: str) -> None:
        self.sweep, self.by = sweep, by
        super().__init__(
            f"'{sweep}' was taken over by {by} while this process was stopped or cut off from the "
            f"database.\nThis one has ended and writes nothing more of it. Watch the sweep: "
            f"segan-ray trials {sweep}"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.sweep, self.by)


class TrialError(SeganRayError):
    """The processes that train a trial were lost."""


class ClusterError(SeganRayError):
    """A Ray cluster cannot be reached, or a job on it was refused or failed."""


class TrackingError(SeganRayError):
    """MLflow cannot be reached or used."""


class RunError(TrackingError):
    """One run is not as segan-ray writes them; ``run`` says which, ``problem`` how."""

    def __init__(self, run: str, problem: str) -> None:
        super().__init__(
            f"MLflow's run {run}: {problem}. Correct that or delete the run in MLflow's UI: "
            "segan-ray ui"
        )
        self.run = run
        self.problem = problem

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.run, self.problem)


class RegistryError(SeganRayError):
    """A model, version or alias that is not registered."""


def said(error: BaseException) -> str:
    """Return an error's message on one line, without full stop and SQL statement."""
    source = getattr(error, "orig", None) or error
    line = " ".join(str(getattr(source, "message", None) or source).split()).rstrip(".")
    return f"{line[:LONGEST]}…" if len(line) > LONGEST else line or type(error).__name__


def named(error: BaseException) -> str:
    """Return an error's type and message, on one line."""
    return f"{type(error).__name__}: {said(error)}"


def cut(value: object, most: int = LONGEST_VALUE) -> str:
    """Return a name or value as a message shows it, cut if it is long."""
    text = str(value)
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def listed(
    problems: Sequence[T], explain: Callable[[T], str], most: int = MOST_PROBLEMS
) -> list[str]:
    """Return ``explain`` of each of the first ``most`` problems, and how many follow."""
    return [*map(explain, problems[:most]), *and_more(len(problems) - most)]


def and_more(count: int) -> list[str]:
    """Return a line on ``count`` problems that are not listed, or no line for 0."""
    return [f"{many(count, 'more problem')} not listed here."] if count > 0 else []


def visible(text: str, keep: str = "") -> str:
    """Return ``text`` with control characters, those in ``keep`` apart, written as escapes."""

    def escaped(match: re.Match[str]) -> str:
        return match[0] if match[0] in keep else match[0].encode("unicode_escape").decode("ascii")

    return _UNSEEN.sub(escaped, text)


def many(count: int, thing: str) -> str:
    """Return ``3 trials`` or ``1 trial``."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


LEAST_LIKENESS: Final = 0.5
"""Names less alike than this are not suggested."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest of ``valid``, or nothing.

    A word of a name counts as the whole name does: ``critic.widht`` means ``critic.base_width``.
    """
    close = max(((_likeness(name, each), each) for each in valid), default=(0.0, ""))
    return f" Did you mean '{close[1]}'?" if close[0] >= LEAST_LIKENESS else ""


def _likeness(name: str, valid: str) -> float:
    """Return how alike two dotted names are, from 0 to 1."""
    group, _, last = name.rpartition(".")
    valid_group, _, valid_last = valid.rpartition(".")
    words = valid_last.split("_") if group == valid_group else []
    pairs = [(name, valid), *((last, word) for word in words)]
    return max(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)
