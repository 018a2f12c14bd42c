"""Two processes that share a database and no disk: one of them runs a sweep at a time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from sqlalchemy.exc import OperationalError

from segan_ray.errors import SweepError, TakenOver
from segan_ray.home import Home
from segan_ray.search.storage import lease
from segan_ray.search.storage.lease import (
    HeldLease,
    LeaseWatch,
    ask_to_stop,
    dead_lease,
    forget_half_made,
    holder_of,
    lease_of,
    leased,
)
from segan_ray.search.storage.lease_record import HELD, LeaseRecord
from segan_ray.search.storage.owned_storage import OwnedStorage
from segan_ray.search.storage.recorded_locations import settle_records, settle_storage
from segan_ray.search.storage.server_lock import ServerLock
from segan_ray.search.storage.study_record import READY, SPACE, empty_study, reserve_study
from segan_ray.search.storage.study_storage import Storage, open_storage
from segan_ray.search.study.study_budget import Limits
from segan_ray.search.study.sweep_study import SweepStudy
from tests.unit.search.study.test_study import space

SWEEP = "sweep"
NEVER = 1e6


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("LEASE_S", 0.4), ("RENEW_S", 0.1)):
        monkeypatch.setattr(lease, name, seconds)


@pytest.fixture
def long(short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that runs out in no test, however slow the machine."""
    monkeypatch.setattr(lease, "LEASE_S", NEVER)


@pytest.fixture
def storage(studies: None, tmp_path: Path) -> Storage:
    storage = open_storage(Home(tmp_path))
    optuna.create_study(study_name=SWEEP, storage=storage).set_user_attr(READY, True)
    return storage


@pytest.fixture
def study(storage: Storage) -> optuna.Study:
    return optuna.load_study(study_name=SWEEP, storage=storage)


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def standing_still(storage: Storage, by: str) -> Iterator[HeldLease]:
    """Hold the study as a process does that is stopped: nothing of it is renewed."""
    record = LeaseRecord(SWEEP, storage)
    with ServerLock(record.engine, SWEEP) as lock:
        holding = HeldLease(record, by, lock)
        assert lock.take(None, lambda: False)
        assert holding.take(record.read())
        yield holding


def test_a_sweep_is_held_and_given_back(storage: Storage, long) -> None:
    with leased(SWEEP, storage, "a", print):
        first = lease_of(SWEEP, storage)
        assert (first.by, len(first.token)) == ("a", 32)
        eventually(lambda: lease_of(SWEEP, storage).renewals > first.renewals + 1)
        assert lease_of(SWEEP, storage).token == first.token
    assert lease_of(SWEEP, storage) is None
    # Another holder takes it without waiting.
    with leased(SWEEP, storage, "b", pytest.fail):
        assert lease_of(SWEEP, storage).by == "b"
    assert lease_of("unknown", storage) is None


def test_nothing_of_a_lease_is_a_time(storage: Storage) -> None:
    with leased(SWEEP, storage, "a", print):
        assert json.loads(LeaseRecord(SWEEP, storage).read()).keys() == {
            "by", "token", "renewals", "connections"
        }  # fmt: skip


def test_another_process_finds_it_running(storage: Storage, long) -> None:
    said: list[str] = []
    with leased(SWEEP, storage, "there:/home", print):
        here = leased(SWEEP, storage, "here:/home", said.append)
        with pytest.raises(SweepError, match="is running now, by there:/home") as told, here:
            raise AssertionError("both have it")
        assert "End it first: segan-ray stop sweep" in str(told.value)
        # The holder's lease is unchanged.
        assert lease_of(SWEEP, storage).by == "there:/home"
    assert "run by there:/home" in said[0]


def test_a_holder_that_stood_still_finds_that_another_took_over(storage: Storage) -> None:
    with standing_still(storage, "there:/home") as stopped:
        with leased(SWEEP, storage, "here:/home", print):
            with pytest.raises(TakenOver, match="'sweep' was taken over by here:/home while"):
                stopped.check()
            with pytest.raises(TakenOver):
                stopped.renew()
            stopped.give_back()
            assert lease_of(SWEEP, storage).by == "here:/home"
        # The end of the new holder does not make the former one a holder again.
        assert lease_of(SWEEP, storage) is None
        with pytest.raises(TakenOver):
            stopped.check()
    assert lease_of(SWEEP, storage) is None


def test_a_former_holder_is_told_of_a_later_one_that_has_ended(storage: Storage) -> None:
    with standing_still(storage, "there:/home") as stopped:
        with leased(SWEEP, storage, "here:/home", print):
            pass
        with pytest.raises(TakenOver, match="by another process, which has ended"):
            stopped.renew()


def test_a_holder_that_stands_still_for_less_goes_on(storage: Storage, monkeypatch, long) -> None:
    with standing_still(storage, "a") as stopped, monkeypatch.context() as patch:
        patch.setattr(stopped._record, "change", pytest.fail)
        # Soon after a renewal the database is not even asked.
        stopped.check()
    with standing_still(storage, "a") as stopped:
        monkeypatch.setattr(lease, "_passed", lambda _: 2 * NEVER)
        stopped.check()
        assert lease_of(SWEEP, storage).renewals == 1


@pytest.mark.parametrize("clock", range(3))
def test_any_clock_that_went_on_counts(clock: int, monkeypatch) -> None:
    monkeypatch.setattr(lease, "_clocks", lambda: tuple(float(n == clock) * 9 for n in range(3)))
    assert lease._passed((0.0, 0.0, 0.0)) == 9
    assert len(lease._clocks()) == 3


def test_an_answer_that_was_lost_is_no_loss(storage: Storage, monkeypatch) -> None:
    with standing_still(storage, "a") as holding:
        change = holding._record.change

        def unheard(before: str | None, now: str | None) -> bool:
            monkeypatch.setattr(holding._record, "change", change)
            change(before, now)
            return False

        monkeypatch.setattr(holding._record, "change", unheard)
        holding.renew()
        assert lease_of(SWEEP, storage).renewals == 2
        holding.renew()


def test_while_the_database_is_away_nothing_is_sure(storage: Storage, monkeypatch) -> None:
    away = OperationalError("", None, OSError("away"))

    def fail(*_: object) -> bool:
        raise away

    with standing_still(storage, "a") as holding:
        monkeypatch.setattr(holding._record, "change", fail)
        monkeypatch.setattr(lease, "SURE", 0.0)
        with pytest.raises(OperationalError):
            holding.check()


def test_a_holder_writes_and_a_former_holder_does_not(tmp_path: Path) -> None:
    storage = open_storage(Home(tmp_path))
    reserve_study(SWEEP, space(), storage)
    with standing_still(storage, "there:/home") as stopped:
        owned = OwnedStorage(storage, stopped.check)
        ours = SweepStudy.begin(empty_study(SWEEP, space(), owned), space(), store="f", earlier=())
        asked, waiting = ours.ask(), ours.ask()
        ours.report(asked.number, 1, 0.5)
        with leased(SWEEP, storage, "here:/home", print):
            before = [(trial.state, trial.user_attrs) for trial in ours.study.trials]
            for write in (
                ours.ask,
                lambda: ours.report(waiting.number, 1, 0.5),
                lambda: ours.tell(asked.number, "completed"),
                lambda: ours.enqueue_repeats(1, 1),
                lambda: ours.take_budget(Limits(30)),
                lambda: ours.end("ended"),
                ours.suspend,
                lambda: settle_storage(ours.study, "s3://b/s"),
            ):
                with pytest.raises(TakenOver):
                    write()
            again = optuna.load_study(study_name=SWEEP, storage=storage)
            assert [(trial.state, trial.user_attrs) for trial in again.trials] == before


def test_each_method_of_a_storage_is_passed_on() -> None:
    own = {name for name in vars(OwnedStorage) if not name.startswith("_")}
    assert own >= optuna.storages.BaseStorage.__abstractmethods__
    writes = {name for name in own if name.startswith(("set_", "create_", "delete_"))}

    class Passed(Exception):
        pass

    def check() -> None:
        raise Passed

    refusing = OwnedStorage(optuna.storages.InMemoryStorage(), check)
    for name in writes:
        method = getattr(refusing, name)
        needed = [0] * (method.__code__.co_argcount - 1 - len(method.__defaults__ or ()))
        with pytest.raises(Passed):
            method(*needed)
    assert len(writes) == 10


@pytest.mark.parametrize(
    "left",
    [{"by": "dead", "token": "t", "renewals": 3}, {"by": "dead", "until": 9e12}],
    ids=["", "of an older segan-ray, whose clock is fast"],
)
def test_the_sweep_of_a_dead_holder_is_taken_over(
    storage: Storage, study: optuna.Study, left
) -> None:
    study.set_user_attr(HELD, left)
    said: list[str] = []
    with leased(SWEEP, storage, "here", said.append):
        assert lease_of(SWEEP, storage).by == "here"
    assert said == [
        "'sweep' was run by dead until now: waiting 0 s to see whether it still is.",
    ]


def test_an_older_segan_ray_that_lives_is_left_alone(storage, study, monkeypatch, long) -> None:
    # Its clock is an hour behind: by that its lease ran out long ago.
    study.set_user_attr(HELD, {"by": "old", "until": time.time() - 3600})
    sleep = time.sleep

    def meanwhile(seconds: float) -> None:
        sleep(seconds)
        study.set_user_attr(HELD, {"by": "old", "until": time.time() - 3500})

    monkeypatch.setattr(lease.time, "sleep", meanwhile)
    with pytest.raises(SweepError, match="running now, by old"), leased(SWEEP, storage, "b", print):
        raise AssertionError("both have it")


def test_the_same_home_takes_over_at_once(storage: Storage, study, long) -> None:
    # Its lock has said that the process is gone.
    study.set_user_attr(HELD, {"by": "here", "token": "t", "renewals": 3})
    with leased(SWEEP, storage, "here", pytest.fail):
        pass


def test_a_dead_holder_is_waited_for_once(storage: Storage, study, monkeypatch) -> None:
    study.set_user_attr(HELD, {"by": "dead", "token": "t", "renewals": 3})
    dead = dead_lease(SWEEP, storage, "here", print)
    assert json.loads(dead)["by"] == "dead"
    monkeypatch.setattr(lease, "LEASE_S", NEVER)
    with leased(SWEEP, storage, "here", pytest.fail, dead=dead):
        pass


def test_a_holder_that_ends_while_others_wait_is_not_dead(storage, monkeypatch, long) -> None:
    sleep = time.sleep
    with standing_still(storage, "there") as holding:

        def end(seconds: float) -> None:
            holding.give_back()
            sleep(seconds)

        monkeypatch.setattr(lease.time, "sleep", end)
        assert dead_lease(SWEEP, storage, "here", print) is None


def test_a_waiting_process_that_stood_still_looks_again(storage: Storage, monkeypatch) -> None:
    with standing_still(storage, "there") as holding:
        watch = LeaseWatch(SWEEP, storage)
        now = time.monotonic()
        monkeypatch.setattr(lease.time, "monotonic", lambda: now + 100)
        holding.renew()
        assert watch.may_live()
        assert watch.moved
        assert watch.dead is None


def test_of_many_processes_that_take_over_at_once_one_does(storage: Storage, study, long) -> None:
    one_of_many_takes_over([storage] * 6, study)


def one_of_many_takes_over(storages: list[Storage], study: optuna.Study) -> None:
    storage = storages[0]
    study.set_user_attr(HELD, {"by": "dead", "token": "t", "renewals": 3})
    dead = LeaseRecord(SWEEP, storage).read()
    over = threading.Event()

    def take(number: int) -> str:
        try:
            with leased(SWEEP, storages[number], f"home {number}", lambda _: None, dead=dead):
                over.wait(300)
                return "had it"
        except SweepError as error:
            return str(error)

    with ThreadPoolExecutor(6) as pool:
        tries = [pool.submit(take, number) for number in range(6)]
        eventually(lambda: sum(each.done() for each in tries) == 5)
        holder = lease_of(SWEEP, storage)
        over.set()
    told = [each.result() for each in tries]
    assert told.count("had it") == 1
    # A process that came before the holder's name was written does not know it.
    assert set(told) - {"had it"} <= {
        f"'sweep' is running now, by {by}. End it first: segan-ray stop sweep"
        for by in (holder.by, "another process")
    }


def test_of_many_processes_one_takes_the_first_lease(storage: Storage) -> None:
    records = [LeaseRecord(SWEEP, storage) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        took = list(pool.map(lambda record: record.change(None, '{"by": "a"}'), records))
    assert took.count(True) == 1
    storage.delete_study(storage.get_study_id_from_name(SWEEP))
    # No lease is written for a deleted study: SQLite gives its number to the next study.
    assert not records[0].change(None, '{"by": "a"}')
    assert records[0].read() is None


def test_another_home_asks_for_the_end(storage: Storage, long) -> None:
    asked = threading.Event()
    with leased(SWEEP, storage, "there", print, on_stop=asked.set):
        ask_to_stop(SWEEP, storage, lease_of(SWEEP, storage))
        assert asked.wait(30)
    # A later holder is not meant.
    with leased(SWEEP, storage, "there", print, on_stop=pytest.fail):
        first = lease_of(SWEEP, storage)
        eventually(lambda: lease_of(SWEEP, storage).renewals > first.renewals + 2)


@pytest.mark.parametrize("attributes", [{}, {SPACE: "{}"}], ids=["empty", "begun"])
def test_a_study_that_is_being_made_is_left_alone(storage: Storage, attributes, long) -> None:
    made = optuna.create_study(study_name="new", storage=storage)
    for key, value in attributes.items():
        made.set_user_attr(key, value)
    with (
        leased("new", storage, "there", pytest.fail, new=True),
        pytest.raises(SweepError, match="'new' is running now, by there"),
    ):
        forget_half_made("new", storage, "here", print)
    assert made.user_attrs.keys() >= attributes.keys()


def test_a_study_whose_maker_comes_to_its_first_word_is_left_alone(storage, monkeypatch, long):
    made = optuna.create_study(study_name="new", storage=storage)
    sleep = time.sleep

    def meanwhile(seconds: float) -> None:
        sleep(seconds)
        made.set_user_attr(HELD, {"by": "there", "token": "t", "renewals": 0})

    monkeypatch.setattr(lease.time, "sleep", meanwhile)
    with pytest.raises(SweepError, match="'new' is running now, by there"):
        forget_half_made("new", storage, "here", print)


@pytest.mark.parametrize("by", [None, "here", "there"])
def test_a_study_whose_maker_died_is_removed(storage: Storage, by: str | None) -> None:
    made = optuna.create_study(study_name="new", storage=storage)
    if by is not None:
        made.set_user_attr(HELD, {"by": by, "token": "t", "renewals": 0})
        made.set_user_attr(SPACE, "{}")
    said: list[str] = []
    forget_half_made("new", storage, "here", said.append)
    assert optuna.get_all_study_names(storage) == [SWEEP]
    # Where the maker was of this home, whose lock is held, there is nothing to wait for.
    assert len(said) == (by != "here")


def test_a_holder_says_where_it_is(tmp_path: Path) -> None:
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
    settle_storage(study, before)
    settle_storage(study, before)
    with pytest.raises(SweepError, match="would train all anew") as told:
        settle_storage(study, now)
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
