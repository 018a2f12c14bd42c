"""Data that tests share: a small phantom folder and the store made of it."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from segan_ray.data.layouts.cases import discover
from segan_ray.data.phantom.dataset import write_phantoms
from segan_ray.data.store.opened_store import PrepareSettings, TuningCases, open_for_tuning
from segan_ray.data.store.prepare import prepare
from segan_ray.data.store.splits import SplitSettings
from segan_ray.home import TRACKING_URI

# How long an example takes is the machine's affair.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

CASES = 12
SPLIT = SplitSettings(val=0.17, gate=0.17, test=0.17)
WITHOUT_RAY = (
    "test_backends.py", "test_cluster_compose.py", "test_cluster_image.py", "test_mlflow_ui.py",
    "test_one_without_ray", "test_promotion.py", "test_report_in_a_browser.py",
    "test_tracking_server.py",
)  # fmt: skip
"""What of the tests outside ``unit`` starts no Ray."""


class TurnsOfRay(LoadScopeScheduling):
    """Sends all that starts Ray to one process: two clusters at once would be slow."""

    def _split_scope(self, nodeid: str) -> str:
        without = any(name in nodeid for name in WITHOUT_RAY)
        return nodeid.partition("::")[0] if without else "ray"


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> TurnsOfRay | None:
    """Take ``--dist loadgroup`` to mean the groups above."""
    return TurnsOfRay(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.fixture(autouse=True)
def homes_stay_where_they_are() -> Iterator[None]:
    """A test that points MLflow elsewhere and leaves it so breaks others, far from itself."""
    before = os.environ.get(TRACKING_URI)
    yield
    assert os.environ.get(TRACKING_URI) == before


@pytest.fixture(autouse=True)
def recorders_are_closed() -> Iterator[None]:
    """A recorder's thread that outlives its test writes into a home that others may look at."""
    before = set(threading.enumerate())
    yield
    left = [new for new in set(threading.enumerate()) - before if new.name == "tracking"]
    for thread in left:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in left), "this test leaves a recorder open"


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve phantoms at 4 mm; read only."""
    out = tmp_path_factory.mktemp("phantom") / "data"
    write_phantoms(out, cases=CASES, spacing_mm=4.0, seed=3)
    return out


@pytest.fixture
def folder(phantom_folder: Path, tmp_path: Path) -> Path:
    """A copy of four phantoms that a test may break."""
    copy = tmp_path / "data"
    for case in sorted(phantom_folder.glob("BraTS2021_*"))[:8]:
        shutil.copytree(case, copy / case.name)
    return copy


@pytest.fixture(scope="session")
def store(phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the phantoms; read only."""
    path = tmp_path_factory.mktemp("store") / "store"
    prepare(discover(phantom_folder), path, settings=PrepareSettings(), split_settings=SPLIT)
    return path


@pytest.fixture(scope="session")
def tuning_cases(store: Path) -> TuningCases:
    """The train and val patients of the store."""
    return open_for_tuning(store)
