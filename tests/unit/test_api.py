"""What the functions for Python have in common."""

from __future__ import annotations

from pathlib import Path

import pytest

from segan_ray.api.models import home_at


def test_a_home_is_the_one_given_or_that_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGAN_RAY_HOME", str(tmp_path / "usual"))
    assert home_at("own").folder == tmp_path / "own"
    assert home_at(None).folder == tmp_path / "usual"
    monkeypatch.setenv("SEGAN_RAY_HOME", "")
    assert home_at(None).folder == tmp_path / "segan-ray-home"
    monkeypatch.delenv("SEGAN_RAY_HOME")
    assert home_at(None).folder == tmp_path / "segan-ray-home"
