"""A sweep that is steered from another process, here or on another machine, while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from segan_ray.errors import SweepError
from segan_ray.home import Home
from segan_ray.tracking.outbox import read_outbox
from segan_ray.tracking.reading.sweeps import read_sweep
from segan_ray.workflows.steer import enqueue, set_limits, stop_trial
from tests.integration.backends import postgresql
from tests.integration.killing import WORKER, Killable, eventually, space_of, titled

pytestmark = [pytest.mark.endurance, pytest.mark.timeout(2400)]

EPOCHS = 40


@pytest.fixture
def sweep(store: Path, tmp_path: Path) -> Iterator[Killable]:
    space = space_of(trials=3, concurrent=2, epochs=EPOCHS)
    space["scheduler"] = {"type": "none"}
    killable = Killable(tmp_path, store, space=space)
    yield killable
    killable.end_all()


@pytest.fixture(params=["here", "elsewhere"])
def asks(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Home]:
    """The home that asks: the sweep's own, or one that shares no more than a PostgreSQL with it."""
    if request.param == "here":
        yield Home.at(tmp_path / "home")
        return
    with postgresql(tmp_path) as postgres:
        monkeypatch.setenv("OPTUNA_STORAGE", postgres.database("studies"))
        yield Home.at(tmp_path / "elsewhere")


def test_a_sweep_is_steered_while_it_runs(asks: Home, sweep: Killable) -> None:
    process = sweep.start()
    sweep.wait_for_epochs(2, process)

    def noted(kind: str) -> list[str]:
        records = read_outbox(sweep.sweep_folder / "tracking.jsonl")
        return [str(record.trial) for record in records if record.kind == kind]

    assert eventually(lambda: set(noted("start")) == {"000", "001"}), sweep.log
    # One of two makes room, and its worker goes.
    assert set_limits(asks, sweep.name, {"max_concurrent": 1, "trials": 4}).runs
    assert eventually(lambda: len(noted("pause")) == 1), sweep.log
    root = psutil.Process(process.pid)
    assert eventually(lambda: len(titled(root, WORKER)) == 1), sweep.log
    (waits,) = noted("pause")
    (runs,) = {"000", "001"} - {waits}

    enqueue(asks, sweep.name, {"segmentor.lr": 5e-4})
    stop_trial(asks, sweep.name, int(runs))
    assert eventually(lambda: noted("end") == [runs]), sweep.log
    assert eventually(lambda: noted("start")[2:] == [waits]), sweep.log
    set_limits(asks, sweep.name, {"max_concurrent": 2})
    assert process.wait(1800) == 0, sweep.log

    record = read_sweep(sweep.home, sweep.name)
    assert (record.status, len(record.trials)) == ("finished", 4)
    trials = {trial.trial: trial for trial in record.trials}
    stopped = trials.pop(runs)
    assert (stopped.status, stopped.reason) == ("stopped", "Stopped by segan-ray stop --trial.")
    assert stopped.epochs < EPOCHS
    assert {(trial.status, trial.epochs) for trial in trials.values()} == {("completed", EPOCHS)}
    assert trials["002"].params["segmentor.lr"] == 5e-4
    with pytest.raises(SweepError, match="has ended already: completed"):
        stop_trial(asks, sweep.name, int(waits))
