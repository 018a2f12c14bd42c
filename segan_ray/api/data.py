"""From a BRATS folder to a store, and phantoms to try things on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segan_ray.api.notes import Notes, log_notes
from segan_ray.engine_settings import prepare_ray
from segan_ray.errors import StoreError
from segan_ray.terminal.show import progress as bar

if TYPE_CHECKING:
    from segan_ray.data.layouts.cases import Discovery
    from segan_ray.data.store.manifest import Manifest
    from segan_ray.data.store.prepare import Outcomes

CORES = os.cpu_count() or 1


@dataclass(frozen=True)
class PreparedStore:
    """A store: its patients by split, and the cases that were left out with the reason of each."""

    path: Path
    """Its folder."""
    fingerprint: str
    """Of its content. Sweeps and models remember it."""
    cases: int
    """How many cases it has."""
    skipped: Mapping[str, str]
    """Cases that were left out, each with the reason."""
    splits: Mapping[str, Sequence[str]]
    """The patients of ``train``, ``val``, ``gate`` and ``test``."""
    folds: int
    """How many folds it has; 0 for none."""
    notes: Sequence[str]
    """Cautions to whoever trains on it."""


def phantom(
    out: str | Path,
    *,
    cases: int = 40,
    layout: str = "brats2021",
    spacing_mm: float = 1.0,
    seed: int = 0,
    workers: int = CORES,
    progress: bool = True,
) -> tuple[str, ...]:
    """Write synthetic BRATS-like cases below ``out`` and return their names.

    Voxels are cubes of ``spacing_mm`` mm; BRATS itself has 1. ``workers`` are processes.

    >>> api.phantom("data", cases=12, spacing_mm=6, progress=False)[0]
    'BraTS2021_00000'

    Raises:
        DataError: if an argument cannot be right, or ``out`` holds something else.
    """
    from segan_ray.data.phantom.dataset import write_phantoms

    with bar("Growing tumours", cases, drawn=progress) as done:
        return write_phantoms(
            Path(out),
            cases=cases,
            layout=layout,
            spacing_mm=spacing_mm,
            seed=seed,
            workers=workers,
            on_case=done,
        )


def prepare(
    data: str | Path,
    store: str | Path,
    *,
    layout: str | None = None,
    val: float = 0.15,
    gate: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
    folds: int = 0,
    split_file: str | Path | None = None,
    n4: bool = False,
    skip_bad: bool = False,
    workers: int = CORES,
    progress: bool = True,
    on_notes: Notes = log_notes,
) -> PreparedStore:
    """Turn a BRATS folder into a store for training: cropped, normalised, split by patient.

    ``val``, ``gate`` and ``test`` are shares of the patients, unless a ``split_file`` says who is
    where. With RAY_ADDRESS set, cases are prepared as tasks of that cluster, whose nodes must see
    ``data`` and ``store`` at the same paths; else by ``workers`` processes here.

    >>> store = api.prepare("data", "store", progress=False)
    >>> {side: len(patients) for side, patients in store.splits.items()}
    {'train': 6, 'val': 2, 'gate': 2, 'test': 2}

    Raises:
        DataError: if cases are bad and ``skip_bad`` is not set, or none is good.
        StoreError: if ``store`` exists with other cases or settings, or cannot be written.
        SplitError: if the patients cannot be split as asked.
    """
    from segan_ray.data.store.opened_store import PrepareSettings
    from segan_ray.data.store.prepare import prepare as make_store
    from segan_ray.data.store.split_file import read_split_file
    from segan_ray.data.store.splits import split_settings

    settings = split_settings(val=val, gate=gate, test=test, seed=seed, folds=folds)
    own_split = read_split_file(Path(split_file)) if split_file else None
    made = local_folder(str(store))
    discovery = _discovered(Path(data), layout)
    notes = [*discovery.notes, *discovery.warnings, *discovery.untold]
    on_notes(notes)
    with (
        _where_cases_are_prepared() as outcomes,
        bar("Preparing cases", len(discovery.cases), drawn=progress) as done,
    ):
        manifest = make_store(
            discovery,
            made,
            settings=PrepareSettings(n4=n4),
            split_settings=settings,
            split_file=own_split,
            skip_bad=skip_bad,
            workers=workers,
            outcomes=outcomes,
            on_case=done,
        )
    odd = _odd_regions(manifest)
    on_notes(odd)
    return PreparedStore(
        path=made,
        fingerprint=manifest.fingerprint,
        cases=len(manifest.cases),
        skipped={case.case: case.problem for case in manifest.skipped},
        splits=dict(manifest.splits.items()),
        folds=len(manifest.folds),
        notes=(*notes, *odd),
    )


def local_folder(text: str) -> Path:
    """Return the folder that ``text`` names.

    Raises:
        StoreError: if it is a URL, which would become a folder of that name.
    """
    if "://" in text:
        raise StoreError(
            f"{text}: a store is made in a folder. Make it there, then copy it to the URL whole."
        )
    return Path(text)


def _discovered(data: Path, layout: str | None) -> Discovery:
    from segan_ray.data.layouts.cases import discover

    # Tasks of a cluster run in folders of their own, where a relative path leads elsewhere.
    return discover(data.resolve() if os.environ.get("RAY_ADDRESS") else data, layout)


def _odd_regions(manifest: Manifest) -> Sequence[str]:
    """Return the problems that regions of many cases show together, such as swapped labels."""
    from segan_ray.data.inspection.folder_report import region_notes

    return region_notes([case.region_voxels for case in manifest.cases if case.has_truth])


@contextmanager
def _where_cases_are_prepared() -> Iterator[Outcomes | None]:
    """Yield the function that prepares cases on RAY_ADDRESS, or None to use processes here."""
    if not os.environ.get("RAY_ADDRESS"):
        yield None
        return
    prepare_ray()
    from segan_ray.orchestration.cluster.preparation import outcomes_on_ray
    from segan_ray.orchestration.cluster.session import ray_session

    with ray_session():
        yield outcomes_on_ray
