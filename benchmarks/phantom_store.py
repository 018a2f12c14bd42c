"""A prepared store of phantoms, for benchmarks that need patients and not many."""

from __future__ import annotations

from pathlib import Path

from segan_ray.data.layouts.cases import discover
from segan_ray.data.phantom.dataset import write_phantoms
from segan_ray.data.store.opened_store import PrepareSettings
from segan_ray.data.store.prepare import prepare
from segan_ray.data.store.splits import SplitSettings


def make_store(folder: Path, *, cases: int, spacing_mm: float) -> Path:
    """Return the store; an eighth of the patients is for validation, gate and test each."""
    data, store = folder / "data", folder / "store"
    write_phantoms(data, cases=cases, spacing_mm=spacing_mm, seed=0)
    split = SplitSettings(val=0.13, gate=0.13, test=0.13)
    prepare(discover(data), store, settings=PrepareSettings(), split_settings=split)
    return store
