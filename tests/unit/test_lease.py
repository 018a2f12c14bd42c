"""Two processes that share a database and no disk: one of them runs a sweep at a time."""

from __future__ import annotations

import time
from pathlib import Path

import optuna
import pytest

from segan_ray.errors import SweepError
from segan_ray.home import Home
from segan_ray.search import lease
from segan_ray.search.lease import HELD, holder_of, lease_of, leased
from segan_ray.search.storage import Storage, open_storage
from segan_ray.search.whereabouts import settle_place, settle_records

SWEEP = "sweep"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("LEASE_S", 1.0), ("RENEW_S", 0.1), ("SETTLE_S", 0.2)):
        monkeypatch.setattr(lease, name, seconds)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = open_storage(Home(tmp_path))
    optuna.create_study(study_name=SWEEP, storage=storage)
    return storage


@pytest.fixture
def study(storage: Storage) -> optuna.Study:
    return optuna.load_study(study_name=SWEEP, storage=storage)


def test_a_sweep_is_held_and_given_back(storage: Storage, study: optuna.Study) -> None:
    with leased(SWEEP, storage, "a", print):
        first = lease_of(study)
        assert first.by == "a"
        end = time.monotonic() + 30
        while lease_of(study).until == first.until:
            assert time.monotonic() < end
    assert lease_of(study) is None


def test_another_process_finds_it_running(storage: Storage, study: optuna.Study) -> None:
    said: list[str] = []
    with leased(SWEEP, storage, "there:/home", print):
        here = leased(SWEEP, storage, "here:/home", said.append)
        with pytest.raises(SweepError, match="is running now, by there:/home"), here:
            raise AssertionError("both have it")
        # And it was not harmed.
        assert lease_of(study).by == "there:/home"
    assert "run by there:/home" in said[0]


def test_a_dead_ones_sweep_is_taken_over(storage: Storage, study: optuna.Study) -> None:
    study.set_user_attr(HELD, {"by": "dead", "until": time.time() + 0.5})
    with leased(SWEEP, storage, "here", print):
        assert lease_of(study).by == "here"
        assert time.time() < lease_of(study).until


def test_the_same_home_takes_over_at_once(storage: Storage, study: optuna.Study) -> None:
    # Its lock has said that the process is gone.
    study.set_user_attr(HELD, {"by": "here", "until": time.time() + 1e6})
    with leased(SWEEP, storage, "here", pytest.fail):
        pass


def test_of_two_that_take_over_at_once_one_has_it(storage, study, monkeypatch) -> None:
    study.set_user_attr(HELD, {"by": "dead", "until": time.time() + 0.2})

    def other(_: float) -> None:
        if lease_of(study).by == "here":
            study.set_user_attr(HELD, {"by": "other", "until": time.time() + 60})

    monkeypatch.setattr(lease.time, "sleep", other)
    here = leased(SWEEP, storage, "here", print)
    with pytest.raises(SweepError, match="running now, by other"), here:
        raise AssertionError("both have it")


def test_who_holds_it_says_where(tmp_path: Path) -> None:
    assert holder_of(Home(tmp_path)).endswith(f":{tmp_path}")


@pytest.mark.parametrize(
    ("before", "now", "mend"),
    [
        (None, "s3://b/s", "Unset SEGAN_RAY_STORAGE"),
        ("s3://b/s", None, "Set SEGAN_RAY_STORAGE=s3://b/s"),
        ("s3://b/s", "s3://c/s", "Set SEGAN_RAY_STORAGE=s3://b/s"),
    ],
)
def test_checkpoints_stay_where_they_began(study, before, now, mend: str) -> None:
    settle_place(study, before)
    settle_place(study, before)
    with pytest.raises(SweepError, match="would train all anew") as told:
        settle_place(study, now)
    assert mend in str(told.value)


def test_records_stay_where_they_began(study, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@server:5000")
    home = Home(tmp_path)
    settle_records(study, home, lambda: False)
    assert "secret" not in str(study.user_attrs)
    study.add_trial(optuna.create_trial(value=0.5))
    settle_records(study, home, lambda: False)

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(SweepError, match="Set MLFLOW_TRACKING_URI=http://me:") as refused:
        settle_records(study, home, lambda: False)
    assert f"{tmp_path} has none of it" in str(refused.value)
    # The same records by another address, or a home that was moved.
    settle_records(study, home, lambda: True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://other")
    with pytest.raises(SweepError, match=f"say --home {tmp_path}"):
        settle_records(study, home, lambda: False)
