"""A home with thousands of recorded trials, made in seconds: one is recorded, the rest copied.

The recorder writes one sweep of one trial, so that every tag, parameter and metric is as the
product leaves it; its rows are then written again under other ids, with other scores.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from segan_ray.brats import REGIONS
from segan_ray.config import load_experiment
from segan_ray.home import Home
from segan_ray.tracking import tag_names
from segan_ray.tracking.description.card import StoreCard
from segan_ray.tracking.recording.recorder import Recorder

OBJECTIVE: Final = "val/dice_mean"
METRICS: Final = (
    OBJECTIVE, "train/loss_critic", "train/loss_segmentor", "time/epoch_s", "time/slices_per_s",
    *(f"val/dice_{region}" for region in REGIONS),
    *(f"val/precision_{region}" for region in REGIONS),
)  # fmt: skip
SPACE: Final = Path(__file__).parents[1] / "search_spaces" / "critic.yaml"
STATUSES: Final = ("stopped", "stopped", "completed")
HOUR_MS: Final = 3_600_000
Row = tuple[Any, ...]


@dataclass(frozen=True)
class Trial:
    """What tells a copied trial from the recorded one."""

    number: int
    lr: float
    depth: int
    curve: tuple[float, ...]

    @property
    def best_epoch(self) -> int:
        return 1 + max(range(len(self.curve)), key=self.curve.__getitem__)

    @property
    def tags(self) -> dict[str, str]:
        params = {"segmentor.lr": self.lr, "critic.lr": self.lr / 2, "critic.depth": self.depth}
        return {
            tag_names.TRIAL: f"{self.number:03d}",
            tag_names.STATUS: STATUSES[self.number % 3],
            tag_names.EPOCHS: str(len(self.curve)),
            tag_names.SCORE: repr(max(self.curve)),
            tag_names.BEST_EPOCH: str(self.best_epoch),
            tag_names.PARAMS: json.dumps(params),
        }


def write_many(home: Home, sweeps: int, trials: int, epochs: int = 20) -> list[str]:
    """Write ``sweeps`` sweeps of ``trials`` trials each and return their names."""
    sweep_names = [f"many-{number:03d}" for number in range(sweeps)]
    chance = random.Random(0)
    _record_one(home, sweep_names[0], _trial(chance, 0, epochs))
    with closing(sqlite3.connect(home.tracking_database)) as database, database:
        kinds = database.execute(
            "SELECT value, run_uuid FROM tags WHERE key = ?", (tag_names.KIND,)
        )
        ids = dict(kinds.fetchall())
        for number, name in enumerate(sweep_names):
            parent = ids["sweep"]
            if number:
                parent = f"{number:032x}"
                _copy(database, ids["sweep"], parent, name, {tag_names.SWEEP: name}, number)
            for place in range(0 if number else 1, trials):
                one = _trial(chance, place, epochs)
                run = f"{1 + number:08x}{place:024x}"
                tags = {**one.tags, tag_names.SWEEP: name, tag_names.PARENT: parent}
                _copy(database, ids["trial"], run, f"{name}-{place:03d}", tags, number)
                _write_curves(database, run, one)
    return sweep_names


def _trial(chance: random.Random, number: int, epochs: int) -> Trial:
    length = epochs if STATUSES[number % 3] == "completed" else max(1, epochs // (2 + number % 3))
    level = chance.uniform(0.3, 0.8)
    curve = tuple(level * i / (i + 3) + chance.gauss(0, 0.02) for i in range(1, length + 1))
    return Trial(number, 10 ** chance.uniform(-5, -2.5), chance.randint(1, 5), curve)


def _record_one(home: Home, name: str, one: Trial) -> None:
    recorder = Recorder.for_sweep(
        home, name, StoreCard("/data/store", "f" * 16, {"train": 4, "val": 2}), OBJECTIVE, "max",
        SPACE.read_text(), home.sweeps / name,
    )  # fmt: skip
    trial = one.tags[tag_names.TRIAL]
    params = json.loads(one.tags[tag_names.PARAMS])
    recorder.start_trial(trial, load_experiment(None, []), params)
    for epoch, value in enumerate(one.curve, start=1):
        recorder.log_epoch(trial, epoch, dict.fromkeys(METRICS, value))
    recorder.end_trial(trial, "completed", None, None)
    recorder.close("finished", patience_s=600)


def _copy(
    database: sqlite3.Connection,
    run: str,
    copy: str,
    name: str,
    tags: dict[str, str],
    hours: int,
) -> None:
    """Write a run again as of so many ``hours`` later, those in ``tags`` changed."""
    columns = [row[1] for row in database.execute("PRAGMA table_info(runs)")]
    values = database.execute("SELECT * FROM runs WHERE run_uuid = ?", (run,)).fetchone()
    row = dict(zip(columns, values, strict=True))
    row |= {"run_uuid": copy, "name": name, "artifact_uri": row["artifact_uri"].replace(run, copy)}
    row["start_time"] += hours * HOUR_MS
    _insert(database, "runs", [tuple(row.values())])
    found = database.execute("SELECT key, value FROM tags WHERE run_uuid = ?", (run,))
    new = {**dict(found.fetchall()), **tags, "mlflow.runName": name}
    _insert(database, "tags", [(key, value, copy) for key, value in new.items()])
    for table in ("params", "latest_metrics"):
        rows = database.execute(
            f"SELECT * FROM {table} WHERE run_uuid = ?",  # noqa: S608
            (run,),
        ).fetchall()
        _insert(database, table, [(*one[:-1], copy) for one in rows])
    inputs = database.execute("SELECT * FROM inputs WHERE destination_id = ?", (run,)).fetchall()
    _insert(database, "inputs", [(copy + one[0][:4], *one[1:4], copy, one[5]) for one in inputs])


def _write_curves(database: sqlite3.Connection, run: str, one: Trial) -> None:
    _insert(database, "metrics", list(_points(run, one)))
    last = len(one.curve)
    database.execute(
        "UPDATE latest_metrics SET value = ?, step = ? WHERE run_uuid = ?",
        (one.curve[-1], last, run),
    )


def _points(run: str, one: Trial) -> Iterator[Row]:
    for name in METRICS:
        for epoch, value in enumerate(one.curve, start=1):
            yield name, value, 1_790_000_000_000 + 1000 * epoch, run, epoch, 0


def _insert(database: sqlite3.Connection, table: str, rows: list[Row]) -> None:
    if rows:
        places = ", ".join("?" * len(rows[0]))
        database.executemany(f"INSERT INTO {table} VALUES ({places})", rows)  # noqa: S608
