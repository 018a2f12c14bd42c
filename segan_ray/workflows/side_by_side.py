"""Setting sweeps side by side, read from MLflow."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from segan_ray.evaluation.sweeps_page import ComparedSweep, render_sweeps
from segan_ray.filesystem.atomic_files import check_folder, write_text
from segan_ray.home import Home
from segan_ray.search.results.progress import TimedEpoch, progress
from segan_ray.search.results.question import question
from segan_ray.search.results.ranking import SweepRecord
from segan_ray.tracking.reading.evaluations import latest_evaluation
from segan_ray.tracking.reading.sweeps import Note, ignore_note, read_sweep, timed_histories
from segan_ray.workflows.write_report import recorded_space


def write_side_by_side(
    home: Home, sweeps: Sequence[str], out: Path, on_note: Note = ignore_note
) -> None:
    """Write the page of ``sweeps`` to ``out``, whole or not at all.

    ``on_note`` is told of each run that is left out, since it is not as segan-ray writes them.

    Raises:
        SweepError: if there is no sweep of one of these names.
        DataError: if ``out`` cannot be written.
    """
    check_folder(out)
    write_text(out, render_sweeps([compared_sweep(home, name, on_note) for name in sweeps]))


def compared_sweep(home: Home, name: str, on_note: Note = ignore_note) -> ComparedSweep:
    """Return what the page shows of one sweep."""
    record = read_sweep(home, name, on_note)
    return ComparedSweep(
        sweep=record,
        asked=question(recorded_space(home, name)),
        progress=progress(_epochs(home, record), record.mode),
        evaluation=latest_evaluation(home, name, on_note),
    )


def _epochs(home: Home, record: SweepRecord) -> Iterator[TimedEpoch]:
    """Yield every epoch of every trial, with the score that it brought if it may win."""
    times = timed_histories(home, record, "time/epoch_s")
    scores = timed_histories(home, record, record.metric)
    for trial in record.trials:
        of_trial = {point.step: point.value for point in scores[trial.trial]}
        for point in times[trial.trial]:
            score = math.nan if trial.infeasible else of_trial.get(point.step, math.nan)
            yield TimedEpoch(point.at_ms / 1000, point.value, score)
