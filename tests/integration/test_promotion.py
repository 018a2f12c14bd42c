"""Promotion and rollback on a real SQLite home: judged, recorded, raced, cut off, taken back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from segan_ray.data.store.opened_store import open_gate
from segan_ray.errors import RegistryError, StoreError
from segan_ray.evaluation.inference.inference_settings import Postprocessing
from segan_ray.evaluation.inference.packaged_model import load_model
from segan_ray.evaluation.report import render_report
from segan_ray.home import Home
from segan_ray.tracking.client.connection import connect
from segan_ray.tracking.reading.sweeps import read_sweep
from segan_ray.tracking.registry.aliases import rollback
from segan_ray.tracking.registry.model_versions import MODEL, SHA256, fetched, find_alias
from segan_ray.tracking.registry.tries import TRIES
from segan_ray.workflows import gate_run
from segan_ray.workflows import promote as module
from segan_ray.workflows.candidate import candidate_model
from segan_ray.workflows.promote import Promotion, promote
from segan_ray.workflows.write_report import collect_report
from tests.unit.promotable import (
    ENHANCING_TOO,
    NOTHING,
    WHOLE,
    WHOLE_AND_CORE,
    record_sweep,
    write_store,
)

pytestmark = pytest.mark.slow

SWEEPS = {
    "poor": (NOTHING,),
    "good": (WHOLE, NOTHING),
    "better": (WHOLE_AND_CORE,),
    "twin": (WHOLE,),
    "lopsided": (ENHANCING_TOO,),
}
TAGS = {
    "segan.sweep", "segan.trial", "segan.store", "segan.val/dice_mean", "segan.verdict",
    "segan.difference", "segan.margin", "segan.forced", "segan.optimistic", "segan.alias",
    "segan.champion", "segan.sha256", "segan.flips", "segan.postprocessing",
}  # fmt: skip
PROMOTES_ON_A_WORD = """
import sys, contextlib
from pathlib import Path
from segan_ray.home import Home
from segan_ray.workflows import promote as module

locked, waits = module.registry_lock, [True]

@contextlib.contextmanager
def lock(home):
    if waits:
        waits.pop()
        print("judged", flush=True)
        sys.stdin.readline()
    with locked(home):
        yield

module.registry_lock = lock
done = module.promote(
    Home.at(Path(sys.argv[1])), sys.argv[2], alias="champion", force=sys.argv[3] == "force"
)
print(done.verdict.verdict, done.version, flush=True)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a home of several finished sweeps on one store, and none promoted."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        write_store(folder / "store")
        for name, models in SWEEPS.items():
            record_sweep(Home.at(folder / "home"), name, folder / "store", *models)
    return folder


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A copy of that home."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copytree(made / "home", tmp_path / "home")
    return Home.at(tmp_path / "home")


def run(home: Home, sweep: str, **options: Any) -> Promotion:
    return promote(home, sweep, **{"alias": "champion", **options})


def client_of(home: Home) -> MlflowClient:
    return connect(home)


def versions(home: Home) -> list[ModelVersion]:
    found = client_of(home).search_model_versions("name = 'segan'")
    return sorted(found, key=lambda one: int(one.version))


def held(home: Home, *aliases: str) -> tuple[str | None, ...]:
    """Return the version each alias points at."""
    found = [find_alias(client_of(home), alias) for alias in aliases or ("champion", "previous")]
    return tuple(None if one is None else str(one.version) for one in found)


def run_tags(home: Home, sweep: str) -> dict[str, str]:
    best = read_sweep(home, sweep).best
    assert best is not None
    return dict(client_of(home).get_run(best.mlflow_run).data.tags)


def _but_tries(tags: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in tags.items() if not name.startswith(TRIES)}


def everything(home: Home) -> object:
    """All that the registry holds but the tries on gate patients, and all the runs' tags."""
    client = client_of(home)
    registered = [
        (model.name, model.description, model.aliases, _but_tries(model.tags))
        for model in client.search_registered_models()
    ]
    tags = {sweep: run_tags(home, sweep) for sweep in SWEEPS}
    return registered, [vars(one) for one in versions(home)], tags


def test_a_better_candidate_takes_the_alias_and_a_worse_one_does_not(home: Home) -> None:
    first = run(home, "poor")
    assert (first.verdict.verdict, first.version, first.champion) == ("promoted", "1", None)
    assert held(home) == ("1", None)
    better = run(home, "good")
    assert (better.verdict.verdict, better.version) == ("promoted", "2")
    assert better.champion is not None
    assert (better.champion["version"], better.champion["sweep"]) == ("1", "poor")
    assert better.verdict.difference is not None
    assert better.verdict.difference.ci95[0] > 0
    assert held(home) == ("2", "1")
    assert [one.tags.keys() for one in versions(home)] == [TAGS, TAGS]

    worse = run(home, "poor")
    assert (worse.verdict.verdict, worse.version) == ("kept", None)
    lopsided = run(home, "lopsided")
    assert lopsided.verdict.verdict == "kept"
    assert held(home) == ("2", "1")
    assert len(versions(home)) == 2
    tags = run_tags(home, "lopsided")
    assert tags["segan.gate.verdict"] == "kept"
    assert tags["segan.gate.reason"] == lopsided.verdict.reason
    assert tags["segan.gate.champion"] == '"2"'
    assert run_tags(home, "good")["segan.gate.verdict"] == "promoted"


def test_an_equal_is_kept_but_is_not_inferior(home: Home) -> None:
    run(home, "good")
    same = run(home, "twin")
    assert same.verdict.verdict == "kept"
    assert same.verdict.reason == "It scores the same as the champion on all 8 patients."
    margin = run(home, "twin", non_inferior=0.02)
    assert (margin.verdict.verdict, margin.version, margin.margin) == ("promoted", "2", 0.02)
    assert margin.document()["margin"] == 0.02
    assert "not worse by more than 0.02 (95% interval 0.000 to 0.000" in margin.verdict.reason
    assert versions(home)[1].tags["segan.margin"] == "0.02"
    assert versions(home)[0].tags["segan.margin"] == "null"


def test_a_little_worse_is_within_a_margin_and_much_worse_is_not(home: Home) -> None:
    run(home, "better")
    assert run(home, "twin").verdict.verdict == "kept"
    assert run(home, "twin", non_inferior=0.001).verdict.verdict == "kept"
    assert run(home, "lopsided", non_inferior=0.02).verdict.verdict == "kept"
    assert held(home) == ("1", None)
    assert run(home, "twin", non_inferior=0.02).verdict.verdict == "promoted"


@pytest.mark.parametrize("margin", [0.0, 1.0, -0.1, float("nan")])
def test_what_is_no_margin_is_refused(home: Home, margin: float) -> None:
    with pytest.raises(RegistryError, match="between 0 and 1"):
        run(home, "good", non_inferior=margin)


def tries(home: Home) -> dict[str, dict[str, Any]]:
    """Return what the registry has noted of tries on gate patients, by tag."""
    tags = client_of(home).get_registered_model(MODEL).tags
    return {name: json.loads(tags[name]) for name in tags if name.startswith(TRIES)}


def test_a_rehearsal_changes_nothing_but_the_count_of_tries(home: Home) -> None:
    before = everything(home)
    assert run(home, "good", dry_run=True).verdict.verdict == "promoted"
    assert everything(home) == before
    run(home, "good")
    before = everything(home)
    assert tries(home) == {}
    for sweep, options in (("better", {}), ("poor", {}), ("poor", {"force": True})):
        rehearsed = run(home, sweep, dry_run=True, **options)
        assert (rehearsed.dry_run, rehearsed.version) == (True, None)
        assert everything(home) == before
    assert [one["try"] for one in tries(home).values()] == [1, 2]


def test_tries_on_the_same_patients_are_counted(home: Home, tmp_path: Path) -> None:
    run(home, "poor")
    assert run(home, "poor").verdict.tries is None  # the champion itself: nothing was asked
    assert tries(home) == {}
    asked = [
        run(home, "lopsided", dry_run=True),
        run(home, "lopsided"),
        run(home, "lopsided", non_inferior=0.02),
        run(home, "lopsided", flips=True),
        run(home, "good"),
    ]
    assert [one.verdict.tries for one in asked] == [1, 1, 1, 2, 3]
    assert asked[0].verdict == asked[1].verdict
    document = asked[-1].document()
    assert (document["tries"], document["verdict"]) == (3, "promoted")
    assert document["level"] == pytest.approx(1 - 0.05 / 9)
    assert "99.44% interval" in document["reason"]
    assert "try 3 on them" in document["reason"]
    low, high = document["interval"]
    assert low < document["difference"]["ci95"][0]
    assert document["difference"]["ci95"][1] < high
    # A new champion makes a new question.
    assert run(home, "lopsided").verdict.tries == 4
    best = read_sweep(home, "lopsided").best
    assert best is not None
    found = sorted(tries(home).values(), key=lambda one: one["try"])
    assert [one["try"] for one in found] == [1, 2, 3, 4]
    assert [one["postprocessing"]["flips"] for one in found] == [False, True, False, False]
    assert found[0] == {
        "try": 1,
        "candidate": best.mlflow_run,
        "postprocessing": Postprocessing().model_dump(mode="json"),
        "champion": "1",
    }


def test_what_was_killed_before_its_answer_has_been_counted(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(home, "poor")

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(gate_run, "judge", die)
        with pytest.raises(KeyboardInterrupt):
            run(home, "lopsided")
    assert len(tries(home)) == 1
    assert run(home, "good").verdict.tries == 2
    # The same question again is the same try.
    client = client_of(home)
    client.set_registered_model_alias(MODEL, "champion", "1")
    assert run(home, "lopsided").verdict.tries == 1


def test_stores_with_the_same_gate_patients_share_their_count(home: Home, tmp_path: Path) -> None:
    run(home, "poor")
    run(home, "lopsided")
    # The first eight patients are on the same side, and so are the gate's; the rest is left out.
    sides = {"train": 2, "val": 6, "gate": 8, "test": 1}
    write_store(tmp_path / "smaller", sides)
    for name, models in (("other-poor", NOTHING), ("other-good", WHOLE)):
        record_sweep(home, name, tmp_path / "smaller", models)
    run(home, "other-poor", alias="other")
    assert run(home, "other-good", alias="other").verdict.tries == 2
    # Other patients start anew.
    write_store(tmp_path / "elsewhere", {"train": 3, "val": 6, "gate": 8, "test": 1})
    for name, models in (("third-poor", NOTHING), ("third-good", WHOLE)):
        record_sweep(home, name, tmp_path / "elsewhere", models)
    run(home, "third-poor", alias="third")
    assert run(home, "third-good", alias="third").verdict.tries == 1


def test_a_gate_of_few_patients_promotes_nothing_and_counts_no_try(
    home: Home, tmp_path: Path
) -> None:
    write_store(tmp_path / "few", {"train": 2, "val": 6, "gate": 5, "test": 2})
    for name, models in (("few-poor", NOTHING), ("few-good", WHOLE)):
        record_sweep(home, name, tmp_path / "few", models)
    run(home, "few-poor")
    kept = run(home, "few-good").document()
    assert kept["reason"].startswith("5 patients are too few to tell; 6 are needed.")
    assert kept["difference"]["mean"] > 0
    assert (kept["difference"]["ci95"], kept["tries"], kept["interval"]) == (None, None, None)
    assert tries(home) == {}
    assert run(home, "few-good", force=True).forced
    assert json.loads(versions(home)[1].tags["segan.difference"])["ci95"] is None
    page = render_report(collect_report(home, "few-good"))
    assert "too few patients for an interval" in page


def test_more_failures_are_kept_and_a_forced_promotion_says_so(home: Home) -> None:
    run(home, "good")
    kept = run(home, "poor").document()
    assert kept["failed_regions"] == {"candidate": 16, "champion": 8}
    assert (
        "It fails in 16 regions (Dice below 0.1), the champion in 8; it alone in"
        in (kept["reason"])
    )
    run(home, "poor", force=True)
    said = versions(home)[1].tags["segan.verdict"]
    assert said.startswith("Forced. Dice differs")
    assert "It fails in 16 regions" in said


def test_force_is_recorded_only_where_the_gate_objected(home: Home) -> None:
    assert not run(home, "good", force=True).forced
    assert not run(home, "better", force=True).forced
    forced = run(home, "poor", force=True)
    assert (forced.forced, forced.verdict.verdict, forced.version) == (True, "promoted", "3")
    assert [one.tags["segan.forced"] for one in versions(home)] == ["false", "false", "true"]
    assert versions(home)[2].tags["segan.verdict"].startswith("Forced. Dice differs")
    assert held(home) == ("3", "2")


def test_the_champion_itself_is_not_registered_again(home: Home) -> None:
    run(home, "good")
    again = run(home, "good")
    assert again.verdict.verdict == "kept"
    assert again.verdict.reason == "It is the champion already, as version 1."
    assert again.document()["difference"] == {"mean": 0.0, "ci95": [0.0, 0.0]}
    forced = run(home, "good", force=True)
    assert (forced.forced, forced.version) == (True, "1")
    assert held(home) == ("1", None)


def test_a_version_whose_thresholds_were_fitted_otherwise_is_not_taken_for_the_candidate(
    home: Home,
) -> None:
    run(home, "good")
    connect(home).set_model_version_tag("segan", "1", "segan.postprocessing", "{}")
    again = run(home, "good", force=True)
    assert "champion already" not in again.verdict.reason
    assert (again.version, held(home)) == ("2", ("2", "1"))


def test_mirrored_slices_make_another_version_that_uses_them(home: Home) -> None:
    run(home, "good")
    document = run(home, "good", flips=True, force=True).document()
    assert "champion already" not in document["reason"]
    assert document["version"] == "2"
    assert [one.tags["segan.flips"] for one in versions(home)] == ["false", "true"]
    for version, flips in (("1", False), ("2", True)):
        with fetched(home, f"models:/segan/{version}") as found:
            assert load_model(found.folder).postprocessing.flips == flips


def test_a_champion_that_cannot_be_used_is_kept_until_forced_aside(home: Home) -> None:
    run(home, "poor")
    client = connect(home)
    client.set_model_version_tag(MODEL, "1", SHA256, "0" * 64)
    kept = run(home, "good")
    assert kept.verdict.verdict == "kept"
    assert kept.verdict.reason.startswith("The champion cannot be used: Version 1 of segan")
    assert "--force" in kept.verdict.reason
    assert run(home, "good", force=True).version == "2"
    assert held(home) == ("2", "1")


def test_a_promotion_that_was_cut_off_is_finished_by_the_next(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(home, "poor")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "move_alias", die)
        with pytest.raises(KeyboardInterrupt):
            run(home, "good")
    assert (held(home), len(versions(home))) == (("1", None), 2)
    # Neither another promotion nor a repeat of the same one is in its way.
    assert run(home, "better", alias="staging").version == "3"
    assert run(home, "good").version == "2"
    assert held(home) == ("2", "1")
    assert [one.tags.keys() for one in versions(home)] == [TAGS] * 3


def test_rollback_swaps_and_a_second_undoes_it(home: Home) -> None:
    with pytest.raises(RegistryError, match="No version of the model has the alias 'champion'"):
        rollback(home, "champion")
    run(home, "poor")
    with pytest.raises(RegistryError, match="version 1, and no other version had it before"):
        rollback(home, "champion")
    run(home, "good")
    assert rollback(home, "champion").document() == {"alias": "champion", "from": "2", "to": "1"}
    assert held(home) == ("1", "2")
    assert rollback(home, "champion").document() == {"alias": "champion", "from": "1", "to": "2"}
    assert held(home) == ("2", "1")


def test_every_alias_has_its_own_past(home: Home) -> None:
    run(home, "poor", alias="staging")
    run(home, "good", alias="staging")
    run(home, "poor")
    names = ("champion", "previous", "staging", "staging-previous")
    assert held(home, *names) == ("1", None, "2", "1")
    rollback(home, "staging")
    assert held(home, *names) == ("1", None, "1", "2")
    for alias in ("previous", "staging-previous"):
        with pytest.raises(RegistryError, match="moves with its alias"):
            run(home, "good", alias=alias)


def test_other_stores_and_other_splits_are_not_compared(home: Home, tmp_path: Path) -> None:
    run(home, "poor")
    sides = {"train": 3, "val": 5, "gate": 8, "test": 2}
    write_store(tmp_path / "split-otherwise", sides)
    record_sweep(home, "elsewhere", tmp_path / "split-otherwise", WHOLE)
    kept = run(home, "elsewhere")
    assert (kept.verdict.verdict, kept.verdict.difference) == ("kept", None)
    assert "their patients or their splits differ" in kept.verdict.reason
    assert kept.document()["difference"] is None
    assert held(home) == ("1", None)


def test_a_version_of_unknown_making_is_not_compared(home: Home) -> None:
    client = client_of(home)
    client.create_registered_model("segan")
    client.create_model_version("segan", "file:///nowhere")
    client.set_registered_model_alias("segan", "champion", "1")
    kept = run(home, "good")
    assert kept.verdict.verdict == "kept"
    assert "does not say which store" in kept.verdict.reason


def test_without_a_gate_only_models_of_one_fold_are_compared(home: Home, tmp_path: Path) -> None:
    sides = {"train": 6, "val": 6, "gate": 0, "test": 2}
    store = tmp_path / "gateless"
    write_store(store, sides, folds=True)
    for name, fold, model in (("f0", "0", NOTHING), ("f1", "1", WHOLE), ("g0", "0", WHOLE)):
        record_sweep(home, name, store, model, settings=(f"data.fold={fold}",))
    assert run(home, "f0").optimistic
    other = run(home, "f1")
    assert other.verdict.verdict == "kept"
    assert "not trained on fold 1" in other.verdict.reason
    same = run(home, "g0")
    assert (same.verdict.verdict, same.optimistic) == ("promoted", True)
    assert versions(home)[1].tags["segan.optimistic"] == "true"


def test_an_ensemble_goes_through_the_gate_as_one_model(made: Path, home: Home) -> None:
    record_sweep(home, "pair", made / "store", WHOLE, WHOLE_AND_CORE)
    assert run(home, "good").version == "1"
    alone = run(home, "pair")
    assert alone.verdict.verdict == "kept"
    both = run(home, "pair", ensemble=2)
    assert (both.verdict.verdict, both.version) == ("promoted", "2")
    assert both.document()["ensemble"] == ["000", "001"]
    tags = versions(home)[1].tags
    assert tags["segan.ensemble"] == '["000", "001"]'
    assert tags.keys() == TAGS | {"segan.ensemble"}
    assert "Averaged with others: trials" in str(versions(home)[1].description)
    with fetched(home, "champion") as found:
        assert len(load_model(found.folder).members) == 2
    # It is the champion already; its best trial alone is another candidate.
    assert "as version 2" in run(home, "pair", ensemble=2).verdict.reason
    assert run(home, "pair").verdict.difference is not None
    assert [entry.get("segan.ensemble") for entry in tries(home).values()].count(None) == 2


def test_folds_are_averaged_where_a_gate_can_judge_them(home: Home, tmp_path: Path) -> None:
    for name, gate in (("gated", 8), ("gateless", 0)):
        store = tmp_path / name
        write_store(store, {"train": 6, "val": 6, "gate": gate, "test": 2}, folds=True)
        record_sweep(home, name, store, WHOLE, settings=("data.fold=0",))
        record_sweep(home, f"{name}-1", store, WHOLE, settings=("data.fold=1",))
        folds = [read_sweep(home, sweep).trials[0] for sweep in (name, f"{name}-1")]
        model = candidate_model(home, folds, store)
        assert [each.data.fold for each in model.experiments] == [0, 1]
        assert model.postprocessing == Postprocessing()
        gate_cases = open_gate(store)
        if gate:
            module._check_judgeable(model, gate_cases, store)
        else:
            with pytest.raises(StoreError, match="nobody is left to judge it on"):
                module._check_judgeable(model, gate_cases, store)


@pytest.mark.parametrize("force", ["force", "fairly"])
def test_two_promotions_at_once_leave_one_champion(home: Home, force: str) -> None:
    run(home, "poor")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROMOTES_ON_A_WORD, str(home.folder), sweep, force],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ},
        )
        for sweep in ("good", "better")
    ]  # fmt: skip
    # Both have judged against version 1 before either may register.
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "judged\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [process.communicate(timeout=900)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]

    found = versions(home)
    assert [one.tags.keys() for one in found] == [TAGS] * len(found)
    assert len({one.run_id for one in found}) == len(found)
    assert [one.status for one in found] == ["READY"] * len(found)
    good, better = results
    assert better[0] == "promoted"
    if good[0] == "promoted":
        assert {good[1], better[1]} == {"2", "3"}
        assert held(home) == ("3", "2")
        # The second promotion was judged again, against the first.
        assert [json.loads(one.tags["segan.champion"]) for one in found] == [None, "1", "2"]
    else:
        assert (force, better[1], len(found)) == ("fairly", "2", 2)
        assert held(home) == ("2", "1")
