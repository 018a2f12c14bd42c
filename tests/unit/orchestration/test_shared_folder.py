"""Workers train only where the sweep's own process made the folder of checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from segan_ray.errors import TrialError
from segan_ray.orchestration.cluster.shared_folder import check_shared, make_shared


def test_a_folder_that_the_sweep_made(tmp_path: Path) -> None:
    place = str(tmp_path / "sweep" / "checkpoints")
    with pytest.raises(TrialError, match=r"is not there on 10\.0\.0\.2.*SEGAN_RAY_STORAGE"):
        check_shared(place, "10.0.0.2")
    make_shared(place)
    make_shared(place)
    check_shared(place, "10.0.0.2")


def test_a_url_is_the_same_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_shared("s3://bucket/sweeps/x/checkpoints")
    check_shared("s3://bucket/sweeps/x/checkpoints", "10.0.0.2")
    assert list(tmp_path.iterdir()) == []
