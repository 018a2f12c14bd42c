"""Preparing cases as Ray tasks, so that a big folder spreads over a cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

import ray

from segan_ray.data.layouts.cases import Case, Layout
from segan_ray.data.store.manifest import CaseRecord, PrepareSettings
from segan_ray.data.store.prepare import keep_writing
from segan_ray.data.store.prepare_case import prepare_case
from segan_ray.errors import SeganRayError
from segan_ray.orchestration.cluster.session import ray_session

__all__ = ["outcomes_on_ray", "ray_session"]

RETRIES: Final = 3
"""How often a case starts again on another node when its node is lost."""


def outcomes_on_ray(
    layout: Layout, cases: Sequence[Case], work: Path, settings: PrepareSettings
) -> Generator[tuple[Case, Callable[[], CaseRecord]]]:
    """Yield each case as it is done, with a function that returns its record or raises its error.

    Every node must see the folder of the cases and ``work`` at the same paths. Tasks are
    submitted a few at a time, just enough to keep all cores busy.
    """
    task = ray.remote(_prepare).options(num_cpus=1, max_retries=RETRIES)
    ahead = 2 * int(ray.cluster_resources()["CPU"])
    coming = iter(cases)
    running: dict[ray.ObjectRef[CaseRecord | SeganRayError], Case] = {}
    try:
        while True:
            for case in islice(coming, ahead - len(running)):
                running[task.remote(case, layout.name, work, settings)] = case
            if not running:
                return
            (done,), _ = ray.wait(list(running), num_returns=1)
            yield running.pop(done), partial(_outcome, done)
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _prepare(
    case: Case, layout: str, work: Path, settings: PrepareSettings
) -> CaseRecord | SeganRayError:
    """Prepare one case; return errors that a user can mend, since Ray would wrap raised ones."""
    with keep_writing(work):
        try:
            return prepare_case(case, layout, work, settings)
        except SeganRayError as error:
            return error


def _outcome(reference: ray.ObjectRef[CaseRecord | SeganRayError]) -> CaseRecord:
    outcome = ray.get(reference)
    if isinstance(outcome, SeganRayError):
        raise outcome
    return outcome
