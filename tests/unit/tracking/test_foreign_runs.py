"""Runs that a user made or changed in MLflow: each is left out with a note, and no other run."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from segan_ray.cli import sweeps as commands
from segan_ray.config import Experiment
from segan_ray.errors import SeganRayError, SweepError
from segan_ray.evaluation.report import render_report
from segan_ray.home import TRACKING_URI, Home
from segan_ray.orchestration.tune.end_sweep import plan_deletion, stop
from segan_ray.tracking import tag_names
from segan_ray.tracking.client.connection import connect
from segan_ray.tracking.description.card import StoreCard
from segan_ray.tracking.description.facts import SweepFacts
from segan_ray.tracking.description.views import drawn_settings
from segan_ray.tracking.outbox import OUTBOX, lock_of
from segan_ray.tracking.reading import reader
from segan_ray.tracking.reading.client_reader import ClientReader
from segan_ray.tracking.reading.evaluations import DOCUMENT
from segan_ray.tracking.reading.sweeps import list_sweeps, read_sweep, store_location
from segan_ray.tracking.recording.close_dead_sweep import recorded, recorded_names
from segan_ray.tracking.recording.recorder import Recorder, known_facts
from segan_ray.tracking.recording.runs import SweepRuns
from segan_ray.tracking.registry.model_versions import fetched
from segan_ray.workflows.write_report import collect_report

pytestmark = pytest.mark.slow

METRIC = "val/dice_mean"
CARD = StoreCard("/data/store", "f", {"train": 4})
PARENT_TAGS = (
    tag_names.KIND, tag_names.SWEEP, tag_names.STATUS, tag_names.METRIC, tag_names.MODE,
    tag_names.STORE, tag_names.OBJECTIVES,
)  # fmt: skip
TRIAL_TAGS = (
    tag_names.KIND, tag_names.SWEEP, tag_names.PARENT, tag_names.TRIAL, tag_names.STATUS,
    tag_names.EPOCHS, tag_names.SCORE, tag_names.BEST_EPOCH, tag_names.PARAMS, tag_names.REPEAT_OF,
    tag_names.OBJECTIVES, tag_names.REASON, tag_names.STORE,
)  # fmt: skip
VALUES = (
    None, "", "abc", "nan", "-1", "1e999", "0x10", "٣", "null", "[]", "{}", "[[1, 2]]",
    '{"a": NaN}', '{"a": {"b": 2}}', '{"a": "1"}', '[["x", "up"]]', '["max"]',
    "\x1b[2J\n\u202e'\"", "x" * 5000, "9" * 5000, "[" * 5000, "../../../etc",
    "sweep", "trial", "evaluation", "good",
)  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """A home with the sweeps ``good`` and ``odd``; runs by their names."""

    home: Home
    runs: dict[str, str]

    @contextlib.contextmanager
    def changed(self, run: str, tag: str, value: str | None) -> Iterator[None]:
        """Have a run say something else, or nothing, while the context lasts."""
        key = (tag, self.runs[run])
        before = self.query("SELECT value FROM tags WHERE key = ? AND run_uuid = ?", *key)
        self._put(key, value)
        try:
            yield
        finally:
            self._put(key, before[0][0] if before else None)

    def _put(self, key: tuple[str, str], value: str | None) -> None:
        self.query("DELETE FROM tags WHERE key = ? AND run_uuid = ?", *key)
        if value is not None:
            self.query("INSERT INTO tags (key, run_uuid, value) VALUES (?, ?, ?)", *key, value)

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.home.tracking_database)) as database, database:
            return database.execute(statement, values).fetchall()


def record(home: Home, name: str) -> None:
    folder = home.sweeps / name
    recorder = Recorder.for_sweep(
        home, name, CARD, METRIC, "max", "name: test", folder,
        objectives=[(METRIC, "max"), ("val/dice_core", "max")],
    )  # fmt: skip
    for number in range(2):
        trial = f"{number:03d}"
        recorder.start_trial(trial, Experiment(), {"critic.depth": number, "segmentor.lr": 0.1})
        recorder.log_epoch(trial, 1, {METRIC: 0.5 + number / 10, "val/dice_core": 0.1})
        recorder.end_trial(trial, "completed", None, None)
    recorder.close("finished")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    home = Home(tmp_path_factory.mktemp("foreign") / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(TRACKING_URI, raising=False)
        for name in ("good", "odd"):
            record(home, name)
        client = connect(home)
        runs = client.search_runs(["1"])
    found = {str(run.info.run_name): str(run.info.run_id) for run in runs}
    return Scene(home, found)


@pytest.fixture
def scene(template: Scene, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """The home, which a test leaves as it was."""
    monkeypatch.delenv(TRACKING_URI, raising=False)
    yield template
    assert [len(one.trials) for one in list_sweeps(template.home, pytest.fail)] == [2, 2]


def attempt(act: Callable[[], object]) -> str | None:
    """Do something that may be refused, and return in which words it was."""
    try:
        act()
    except SeganRayError as error:
        said = str(error)
    else:
        return None
    assert len(said.splitlines()) <= 2
    return said


def shown(capsys: pytest.CaptureFixture[str], act: Callable[[], object]) -> tuple[Any, str, bool]:
    """Return the document and the notes of a command, and whether it was refused."""
    refused = attempt(act)
    out, notes = capsys.readouterr()
    assert "\x1b" not in out + notes
    assert len(max(notes.splitlines(), key=len, default="")) < 1000
    return (None if refused else json.loads(out)), notes, refused is not None


CASES = [
    *(("odd", tag) for tag in PARENT_TAGS),
    *(("odd-000", tag) for tag in TRIAL_TAGS),
]


@pytest.mark.parametrize(("run", "tag"), CASES)
def test_sweeps_and_trials_show_what_is_sound_and_say_what_is_not(
    scene: Scene, capsys: pytest.CaptureFixture[str], run: str, tag: str
) -> None:
    folder, id_of = scene.home.folder, scene.runs[run]
    sound, _, _ = shown(capsys, lambda: commands.sweeps(folder, as_json=True))
    leaderboard, _, _ = shown(capsys, lambda: commands.trials("odd", folder, as_json=True))
    for value in VALUES:
        with scene.changed(run, tag, value):
            listed, notes, refused = shown(capsys, lambda: commands.sweeps(folder, as_json=True))
            assert not refused
            assert listed["sweeps"][0] == sound["sweeps"][0]
            if [one["trials"] for one in listed["sweeps"]] != [2, 2]:
                assert "Left out: " in notes, (tag, value)
                assert id_of in notes or tag == tag_names.SWEEP, (tag, value)
            trials, notes, refused = shown(
                capsys, lambda: commands.trials("odd", folder, as_json=True)
            )
            assert refused or trials.keys() == leaderboard.keys()
            if not refused and len(trials["trials"]) != 2 and tag != tag_names.PARENT:
                assert id_of in notes, (tag, value)
            if run == "odd-000":
                assert not refused
                assert trials["trials"][0]["trial"] == "001"


@pytest.mark.parametrize(("run", "tag"), CASES)
def test_every_other_command_reads_past_a_changed_tag(scene: Scene, run: str, tag: str) -> None:
    home, client = scene.home, connect(scene.home)
    name = run.partition("-")[0]
    with scene.changed(run, tag, None if CASES.index((run, tag)) % 2 else "x" * 5000):
        attempt(lambda: recorded(home, name))
        attempt(lambda: plan_deletion(home, name))
        assert "good" in recorded_names(home)
        assert attempt(lambda: drawn_settings(client, home)) is None
        attempt(lambda: store_location(home, "odd"))
        attempt(lambda: fetched(home, name).__enter__())


@pytest.mark.parametrize(
    ("run", "tag"),
    [
        ("odd", tag_names.MODE),
        ("odd-000", tag_names.PARAMS),
        ("odd-000", tag_names.SCORE),
        ("odd", tag_names.KIND),
    ],
)
def test_a_report_is_made_of_what_is_sound(scene: Scene, run: str, tag: str) -> None:
    with scene.changed(run, tag, "abc"):
        notes: list[str] = []
        report = collect_report(scene.home, "good", notes.append)
        assert notes == []
        assert "val/dice_mean" in render_report(report)
        refused = attempt(lambda: collect_report(scene.home, "odd", notes.append))
        assert refused is not None if run == "odd" else notes


def test_mlflow_s_own_reading_says_the_same(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for run, tag in (
        ("odd", tag_names.MODE),
        ("odd-000", tag_names.EPOCHS),
        ("odd-000", tag_names.PARENT),
    ):
        told: list[list[str]] = []
        with scene.changed(run, tag, "abc"), monkeypatch.context() as patch:
            for _ in range(2):
                notes: list[str] = []
                found = list_sweeps(scene.home, notes.append)
                told.append([*notes, str(found)])
                patch.setattr(reader, "sqlite_reader", lambda _: None)
        assert told[0] == told[1]
        assert len(told[0]) >= 2


def test_the_words_of_a_note(scene: Scene) -> None:
    with scene.changed("odd-000", tag_names.EPOCHS, "abc"):
        notes: list[str] = []
        read_sweep(scene.home, "odd", notes.append)
    assert notes == [
        f"Left out: MLflow's run {scene.runs['odd-000']} (trial '000'): its tag segan.epochs is "
        "'abc', expected a whole number. Correct that or delete the run in MLflow's UI: segan-ray "
        "ui"
    ]


def test_a_sweep_whose_own_run_is_broken_is_refused_in_words(scene: Scene) -> None:
    with (
        scene.changed("odd", tag_names.MODE, "up"),
        pytest.raises(SeganRayError, match=r"its tag segan.mode is 'up', expected one of max, min"),
    ):
        read_sweep(scene.home, "odd")
    with (
        scene.changed("odd", tag_names.KIND, None),
        pytest.raises(SweepError, match=r"2 trials of 'odd' .* under MLflow's run .*: segan-ray"),
    ):
        read_sweep(scene.home, "odd")


@pytest.mark.parametrize("column", ["start_time = NULL", "start_time = 9e18", "end_time = NULL"])
@pytest.mark.parametrize("run", ["odd", "odd-000"])
def test_runs_without_times(scene: Scene, run: str, column: str) -> None:
    id_of, notes = scene.runs[run], []
    before = scene.query("SELECT start_time, end_time FROM runs WHERE run_uuid = ?", id_of)[0]
    scene.query(f"UPDATE runs SET {column} WHERE run_uuid = ?", id_of)
    try:
        found = list_sweeps(scene.home, notes.append)
        attempt(lambda: collect_report(scene.home, "odd"))
    finally:
        scene.query(
            "UPDATE runs SET start_time = ?, end_time = ? WHERE run_uuid = ?", *before, id_of
        )
    broken = run == "odd" and column.startswith("start")
    assert [one.sweep for one in found if one.sweep == "good"] == ["good"]
    assert len(found) == (1 if broken else 2)
    assert any(id_of in note for note in notes) == broken


def test_trials_of_a_deleted_sweep_are_told_once(scene: Scene) -> None:
    client, notes = connect(scene.home), []
    client.delete_run(scene.runs["odd"])
    try:
        assert [one.sweep for one in list_sweeps(scene.home, notes.append)] == ["good"]
        (note,) = notes
        assert note.startswith("Left out: 2 trials of 'odd' (the first is run ")
        with pytest.raises(SweepError, match="2 trials of 'odd'"):
            read_sweep(scene.home, "odd")
    finally:
        client.restore_run(scene.runs["odd"])


def test_trials_that_the_registry_holds_on_to_are_not_told(scene: Scene) -> None:
    """Of a deleted sweep they stay on purpose."""
    client, kept = connect(scene.home), scene.runs["odd-000"]
    client.create_registered_model("segan")
    client.create_model_version("segan", client.get_run(kept).info.artifact_uri, run_id=kept)
    client.delete_run(scene.runs["odd"])
    try:
        assert ClientReader(client).registered() == {kept}
        notes: list[str] = []
        list_sweeps(scene.home, notes.append)
        (note,) = notes
        assert f"1 trial of 'odd' (run {scene.runs['odd-001']})" in note
    finally:
        client.restore_run(scene.runs["odd"])
        client.delete_registered_model("segan")


def test_of_two_runs_of_one_name_that_with_the_trials_is_the_sweep(scene: Scene) -> None:
    client = connect(scene.home)
    tags = dict(client.get_run(scene.runs["odd"]).data.tags)
    double = client.create_run("1", tags=tags).info.run_id
    try:
        for read in (lambda note: list_sweeps(scene.home, note)[1],
                     lambda note: read_sweep(scene.home, "odd", note)):  # fmt: skip
            notes: list[str] = []
            assert len(read(notes.append).trials) == 2
            (note,) = notes
            assert f"run {double} (sweep 'odd')" in note
    finally:
        client.delete_run(double)


def test_of_two_runs_of_one_trial_that_with_more_epochs_is_shown(scene: Scene) -> None:
    client = connect(scene.home)
    tags = dict(client.get_run(scene.runs["odd-000"]).data.tags)
    double = client.create_run("1", tags=tags | {tag_names.EPOCHS: "0"}).info.run_id
    try:
        notes: list[str] = []
        trials = read_sweep(scene.home, "odd", notes.append).trials
        assert {one.mlflow_run for one in trials} == {scene.runs["odd-000"], scene.runs["odd-001"]}
        assert double in notes[0]
    finally:
        client.delete_run(double)


def test_a_nested_run_made_by_hand_is_left_out(scene: Scene) -> None:
    client = connect(scene.home)
    made = client.create_run("1", tags={tag_names.PARENT: scene.runs["odd"]}).info.run_id
    try:
        notes: list[str] = []
        assert len(read_sweep(scene.home, "odd", notes.append).trials) == 2
        assert made in notes[0]
        assert "its tag segan.kind is missing" in notes[0]
    finally:
        client.delete_run(made)


def test_what_a_resume_would_know_of_a_changed_trial_is_refused_in_words(scene: Scene) -> None:
    client = connect(scene.home)
    for tag in (tag_names.EPOCHS, tag_names.SCORE, tag_names.BEST_EPOCH, tag_names.OBJECTIVES):
        with scene.changed("odd-000", tag, "abc"):
            refused = attempt(lambda: known_facts(client.get_run(scene.runs["odd-000"])))
            assert refused is not None
            assert f"its tag {tag} is 'abc'" in refused


@pytest.mark.parametrize(
    "tag", [tag_names.TRIAL, tag_names.EPOCHS, tag_names.SWEEP, tag_names.KIND, tag_names.STATUS]
)
@pytest.mark.parametrize("value", [None, "abc/../x"])
def test_a_resume_goes_on_or_is_refused_in_words(scene: Scene, tag: str, value: str | None) -> None:
    client = connect(scene.home)
    runs = SweepRuns(client, "1", SweepFacts("odd", CARD, METRIC, "max"), scene.runs["odd"])
    with scene.changed("odd-000", tag, value):
        refused = attempt(runs.know_trials)
    assert (refused is not None) == (tag == tag_names.TRIAL)
    assert refused is None or scene.runs["odd-000"] in refused


def test_stopping_what_says_nothing_of_its_end_is_refused_in_words(scene: Scene) -> None:
    folder = scene.home.sweeps / "odd"
    aside = folder.rename(folder.with_name("aside"))  # as if its outbox were lost
    try:
        with (
            scene.changed("odd", tag_names.STATUS, "abc"),
            scene.changed("odd", tag_names.MODE, None),
        ):
            refused = attempt(lambda: stop(scene.home, "odd", print))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    assert refused is not None
    assert scene.runs["odd"] in refused


def no_outbox(path: Path) -> None:
    os.mkfifo(path)


def no_file(path: Path) -> None:
    path.mkdir()


def no_lock(path: Path) -> None:
    path.touch()
    lock_of(path).unlink()
    lock_of(path).symlink_to("elsewhere")


@pytest.mark.parametrize("damage", [no_outbox, no_file, no_lock])
def test_an_outbox_that_cannot_be_read_hides_no_sweep(
    scene: Scene, damage: Callable[[Path], None]
) -> None:
    folder = scene.home.sweeps / "odd"
    aside = shutil.copytree(folder, folder.with_name("aside"))
    notes: list[str] = []
    try:
        (folder / OUTBOX).unlink()
        damage(folder / OUTBOX)
        with scene.changed("odd", tag_names.STATUS, "running"):
            listed = list_sweeps(scene.home, notes.append)
            shown = read_sweep(scene.home, "odd", notes.append)
    finally:
        shutil.rmtree(folder)
        aside.rename(folder)
    assert {sweep.sweep: sweep.status for sweep in listed} == {"good": "finished", "odd": "running"}
    assert len(shown.trials) == 2
    assert len(notes) == 2
    assert notes[0] == notes[1]
    assert re.match(rf"Whether 'odd' still runs is not known: .*{folder}/{OUTBOX}", notes[0])


def test_a_report_passes_over_evaluations_that_are_half_made_or_another_programs(
    scene: Scene,
) -> None:
    client, made = connect(scene.home), []
    try:
        for document in (None, "no JSON", "[]", '{"summary": {}}', "[" * 5000):
            tags = {tag_names.KIND: "evaluation", tag_names.SWEEP: "good"}
            made.append(client.create_run("1", tags=tags).info.run_id)
            if document is not None:
                client.log_text(made[-1], document, DOCUMENT)
        notes: list[str] = []
        report = collect_report(scene.home, "good", notes.append)
        assert report.evaluation is None
        assert len(notes) == len(made)
        assert all(any(run in note for note in notes) for run in made)
    finally:
        for run in made:
            client.delete_run(run)


def test_of_many_that_are_alike_a_few_are_named(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    client = connect(scene.home)
    tags = {tag_names.PARENT: scene.runs["odd"]}
    made = [client.create_run("1", tags=tags).info.run_id for _ in range(8)]
    try:
        commands.sweeps(scene.home.folder, as_json=True)
        out, err = capsys.readouterr()
        assert json.loads(out)["sweeps"][1]["trials"] == 2
        assert len(err.splitlines()) == 6
        assert "... and 3 more like this" in err
    finally:
        for run in made:
            client.delete_run(run)
