"""Evaluation: who may be tested, models side by side, and what MLflow keeps of it."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import mlflow
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from segan_ray.brats import REGIONS
from segan_ray.cli.models import named_rows
from segan_ray.data.layouts.cases import discover
from segan_ray.data.phantom.dataset import write_phantoms
from segan_ray.data.store.manifest import PrepareSettings, read_manifest
from segan_ray.data.store.origin import origin_of
from segan_ray.data.store.prepare import prepare
from segan_ray.data.store.split_file import assign_tested, read_split_file
from segan_ray.data.store.splits import SplitSettings
from segan_ray.errors import DataError, RegistryError, SplitError, StoreError
from segan_ray.evaluation.figures.overlays import CAPTION, COLOURS
from segan_ray.evaluation.inference.inference_settings import Postprocessing
from segan_ray.evaluation.inference.packaged_model import load_model, save_model
from segan_ray.evaluation.metrics.region_metrics import METRICS, RegionScores
from segan_ray.evaluation.metrics.scores import (
    LESION_METRICS,
    CaseScores,
    evaluation_document,
    means_over_cases,
)
from segan_ray.evaluation.scoring.case_files import check_table, write_table
from segan_ray.evaluation.scoring.comparison import compare
from segan_ray.evaluation.scoring.leakage import refuse_seen
from segan_ray.home import Home
from segan_ray.terminal.score_tables import show_scores
from segan_ray.tracking import tag_names
from segan_ray.tracking.client.connection import connect, experiment_id, pointing_at, search
from segan_ray.tracking.description.card import StoreCard
from segan_ray.tracking.reading.evaluations import latest_evaluation
from segan_ray.tracking.recording.evaluation_run import Subject, evaluation_run
from segan_ray.tracking.registry.model_versions import MODEL, FetchedModel
from segan_ray.workflows.evaluate import evaluate
from segan_ray.workflows.predict import predict
from tests.unit.command_line import refused, segan
from tests.unit.trained import checkpoint

pytestmark = pytest.mark.slow

SPLIT = SplitSettings(val=0.17, gate=0.17, test=0.17, seed=1)


@pytest.fixture(scope="module")
def models(store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two models that were trained on the store."""
    folder = tmp_path_factory.mktemp("models")
    origin = origin_of(read_manifest(store))
    first, second = (checkpoint(folder / name, origin, seed=i) for i, name in enumerate("ab"))
    return str(first), str(second)


@pytest.fixture(scope="module")
def phantom_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Coarse phantoms: the maps of untrained networks are noise, which takes long to score."""
    out = tmp_path_factory.mktemp("phantom") / "data"
    write_phantoms(out, cases=12, spacing_mm=8.0, seed=3)
    return out


@pytest.fixture(scope="module")
def store(phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "store"
    settings = SPLIT.model_copy(update={"seed": 0})
    prepare(discover(phantom_folder), path, settings=PrepareSettings(), split_settings=settings)
    return path


@pytest.fixture(scope="module")
def other_split(phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same scans in another store, where other patients are test."""
    path = tmp_path_factory.mktemp("other") / "store"
    found = discover(phantom_folder)
    prepare(found, path, settings=PrepareSettings(), split_settings=SPLIT)
    return path


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other people's scans under the same names."""
    folder = tmp_path_factory.mktemp("strangers")
    write_phantoms(folder / "data", cases=5, spacing_mm=8.0, seed=77)
    settings = PrepareSettings(clip_low=1.0)
    prepare(discover(folder / "data"), folder / "store", settings=settings, split_settings=SPLIT)
    return folder / "store"


def split_file(folder: Path, **sides: list[str]) -> Path:
    path = folder / "split.yaml"
    path.write_text(yaml.safe_dump(sides))
    return path


def runs_of(home: Home) -> list[mlflow.entities.Run]:
    return search(connect(home), f"tags.`{tag_names.KIND}` = 'evaluation'")


def artifact(home: Home, run: mlflow.entities.Run, name: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(f"{run.info.artifact_uri}/{name}"))


def test_one_model_keeps_its_document(home: Home, store: Path, models: tuple[str, str]) -> None:
    found = evaluate(home, models[0], store, references={"flair": "threshold"})
    document = found.document
    assert {"model", "split", "cases", "summary", "references", "store"} <= set(document)
    assert (document["model"], document["split"]) == (models[0], "test")
    assert "split_file" not in document
    manifest = read_manifest(store)
    assert document["store"] == manifest.fingerprint
    assert tuple(case["patient"] for case in document["cases"]) == manifest.splits["test"]
    assert list(document["cases"][0]["whole"]) == list(METRICS)
    assert list(document["references"]) == ["flair"]
    (compared,) = document["comparisons"]
    assert (compared["model"], compared["against"]) == (models[0], "flair")
    expected = document["summary"]["whole"]["dice"]["mean"]
    expected -= document["references"]["flair"]["whole"]["dice"]["mean"]
    assert compared["difference"]["whole"]["mean"] == pytest.approx(expected)
    json.dumps(document, allow_nan=False)

    (run,) = runs_of(home)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/dice_whole"] == document["summary"]["whole"]["dice"]["mean"]
    assert set(run.data.metrics) >= {"test/dice_mean", "test/hd95_core"}
    assert run.data.tags[tag_names.STORE] == manifest.fingerprint
    (given,) = run.inputs.dataset_inputs
    assert given.dataset.digest == manifest.fingerprint
    assert given.tags[0].value == "testing"
    assert json.loads(artifact(home, run, "evaluation.json").read_text()) == document
    csv = pd.read_csv(artifact(home, run, "cases.csv"))
    parquet = pd.read_parquet(artifact(home, run, "cases.parquet"))
    assert list(csv.columns) == ["case", "patient", "region", *METRICS]
    pd.testing.assert_frame_equal(csv, parquet)
    own = found.cases[found.cases["model"] == models[0]]
    pd.testing.assert_frame_equal(parquet, own.drop(columns="model"))
    # The reference has rows as well, by the name of its row.
    theirs = found.cases[found.cases["model"] == "flair"]
    assert list(theirs["case"]) == list(own["case"])
    whole = theirs[theirs["region"] == "whole"]["dice"].mean()
    assert whole == pytest.approx(document["references"]["flair"]["whole"]["dice"]["mean"])
    # Two patients: no interval, and each has one case.
    assert document["summary"]["core"]["hd95"]["ci95"] is None
    assert "means_over_cases" not in document


def test_the_written_files_have_the_scores_of_the_document(
    home: Home, store: Path, phantom_folder: Path, models: tuple[str, str], tmp_path: Path
) -> None:
    document = evaluate(home, models[0], store).document
    found = discover(phantom_folder)
    written = {one.case: one.label for one in predict(home, models[0], found, tmp_path / "out")}
    truth = {case.case: case.label for case in found.cases}
    for entry in document["cases"]:
        label, true = (
            np.asarray(nib.load(paths[entry["case"]]).dataobj) for paths in (written, truth)
        )
        for region, values in (("whole", [1, 2, 4]), ("core", [1, 4]), ("enhancing", [4])):
            one, other = np.isin(label, values), np.isin(true, values)
            total = one.sum() + other.sum()
            dice = 2 * (one & other).sum() / total if total else 1.0
            assert entry[region]["dice"] == pytest.approx(dice, abs=1e-6), (entry["case"], region)


@pytest.mark.parametrize(
    "dropping",
    [
        {"thresholds": dict.fromkeys(REGIONS, 1 - 1e-6)},
        {"smallest_mm3": dict.fromkeys(REGIONS, 1e9)},
    ],
    ids=["thresholds", "pieces"],
)
def test_the_overlay_shows_what_was_scored(
    home: Home, store: Path, models: tuple[str, str], tmp_path: Path, dropping: dict
) -> None:
    """A model whose postprocessing drops all is drawn empty, though its maps exceed 0.5."""

    def outlined(model: str) -> tuple[bool, bool]:
        """Whether the sides of truth and prediction have an outline, without the legend."""
        evaluate(home, model, store)
        picture = artifact(home, runs_of(home)[0], "overlays/test.png")
        pixels = np.asarray(Image.open(picture).convert("RGB"))[: -CAPTION - 1]
        sides = np.array_split(pixels, 2, axis=1)
        found = [
            (side == COLOURS[region]).all(axis=-1).any() for side in sides for region in REGIONS
        ]
        return any(found[:3]), any(found[3:])

    assert outlined(models[0]) == (True, True)
    plain = load_model(Path(models[0]))
    save_model(tmp_path / "fitted", replace(plain, postprocessing=Postprocessing(**dropping)))
    assert outlined(str(tmp_path / "fitted")) == (True, False)


def test_models_side_by_side(home: Home, store: Path, models: tuple[str, str]) -> None:
    first, second = models
    document = evaluate(home, first, store, against=[second, first]).document
    (other,) = document["against"]
    assert (other["model"], len(other["cases"])) == (second, len(document["cases"]))
    (compared,) = document["comparisons"]
    assert (compared["model"], compared["against"]) == (first, second)
    assert list(compared["difference"]) == ["whole", "core", "enhancing", "mean"]
    assert [one["ci95"] for one in compared["difference"].values()] == [None] * 4
    own = {run.info.run_name: run for run in runs_of(home)}
    assert set(own) == {f"evaluation-{first}", f"evaluation-{second}"}
    theirs = json.loads(artifact(home, own[f"evaluation-{second}"], "evaluation.json").read_text())
    assert theirs == other


def test_the_same_scans_split_otherwise_are_refused(
    home: Home, store: Path, other_split: Path, models: tuple[str, str]
) -> None:
    chosen_with = {*read_manifest(store).splits["test"]}
    expected = sorted({*read_manifest(other_split).splits["test"]} - chosen_with)
    assert expected
    with pytest.raises(SplitError) as caught:
        evaluate(home, models[0], other_split, references={})
    assert ", ".join(expected) in str(caught.value)
    assert "--split-file" in str(caught.value)
    assert runs_of(home) == []


def test_a_rival_that_has_seen_them_is_refused_too(
    home: Home, store: Path, other_split: Path, models: tuple[str, str], tmp_path: Path
) -> None:
    rival = checkpoint(tmp_path / "rival", origin_of(read_manifest(other_split)))
    for how in ({"against": [str(rival)]}, {"references": {"rival": str(rival)}}):
        with pytest.raises(SplitError, match="rival was trained or chosen with scans"):
            evaluate(home, models[0], store, **how)


def test_one_known_scan_stands_for_the_patient(store: Path) -> None:
    manifest = read_manifest(store)
    origin = origin_of(manifest)
    seen = next(case for case in manifest.cases if case.patient in manifest.splits["train"])
    tested = next(case for case in manifest.cases if case.patient in manifest.splits["test"])
    refuse_seen("m", origin, [tested])
    visit = seen.model_copy(update={"patient": tested.patient, "case": "later"})
    with pytest.raises(SplitError, match=f"1 of these 1 test patients: {tested.patient}"):
        refuse_seen("m", origin, [tested, visit])


def test_a_model_that_knows_scans_by_older_checksums_is_not_tested(store: Path) -> None:
    manifest = read_manifest(store)
    tested = [case for case in manifest.cases if case.patient in manifest.splits["test"]]
    origin = origin_of(manifest).model_copy(update={"seen": {"somebody": ("0a" * 32,)}})
    with pytest.raises(SplitError, match="older segan-ray"):
        refuse_seen("m", origin, tested)


def test_namesakes_are_scored_with_a_word(
    home: Home, strangers: Path, models: tuple[str, str], tmp_path: Path
) -> None:
    said: list[str] = []
    tested = read_manifest(strangers).cases[:2]
    path = split_file(tmp_path, test=[case.case for case in tested])
    document = evaluate(home, models[0], strangers, split_file=path, on_note=said.append).document
    assert [case["case"] for case in document["cases"]] == [case.case for case in tested]
    assert len(document["split_file"]) == 16
    namesakes, prepared = said
    assert "the scans differ, so these are scored" in namesakes
    assert "clip_low 0.5" in prepared
    assert "clip_low 1.0" in prepared
    (run,) = runs_of(home)
    assert run.data.tags["segan.split_file"] == document["split_file"]


def test_a_split_file_for_the_models_own_scans_is_no_way_around(
    home: Home, store: Path, models: tuple[str, str], tmp_path: Path
) -> None:
    manifest = read_manifest(store)
    trained, tested = manifest.splits["train"][0], manifest.splits["test"][0]
    path = split_file(tmp_path, test=[trained, tested])
    with pytest.raises(SplitError, match=f"1 of these 2 test patients: {trained}"):
        evaluate(home, models[0], store, split_file=path)
    path = split_file(tmp_path, test=[tested])
    document = evaluate(home, models[0], store, split_file=path).document
    assert [case["patient"] for case in document["cases"]] == [tested]


def test_the_threshold_is_not_tuned_on_patients_that_it_is_scored_on(
    home: Home, strangers: Path, models: tuple[str, str], tmp_path: Path
) -> None:
    everybody = sorted(case.case for case in read_manifest(strangers).cases)
    path = split_file(tmp_path, test=everybody)
    with pytest.raises(StoreError, match="no training patient left to tune the threshold on"):
        evaluate(home, models[0], strangers, references={"t": "threshold"}, split_file=path)


@pytest.mark.parametrize(
    ("sides", "words"),
    [
        ({"train": ["x"]}, r"test has no patient. Name them as test: \[patient, patient\]"),
        ({"test": ["BraTS2021_0000"]}, "Did you mean 'BraTS2021_0000"),
        ({"test": ["BraTS2021_00000"], "val": ["BraTS2021_00000"]}, "Keep one of them"),
    ],
)
def test_a_split_file_that_cannot_be_right(
    strangers: Path, tmp_path: Path, sides: dict, words: str
) -> None:
    records = read_manifest(strangers).cases
    with pytest.raises(SplitError, match=words):
        assign_tested(read_split_file(split_file(tmp_path, **sides), needed=("test",)), records)


def test_patients_that_cannot_be_scored_are_refused(strangers: Path, tmp_path: Path) -> None:
    first, *rest = read_manifest(strangers).cases
    blind = first.model_copy(update={"has_truth": False})
    file = read_split_file(split_file(tmp_path, test=[first.case]), needed=("test",))
    with pytest.raises(SplitError, match="no segmentation in the store"):
        assign_tested(file, [blind, *rest])


def test_a_file_that_placed_a_store_keeps_its_digest(
    strangers: Path, tmp_path: Path
) -> None:  # fmt: skip
    sides = {side: list(people) for side, people in read_manifest(strangers).splits.items()}
    path = split_file(tmp_path, **sides)
    data = strangers.parent / "data"
    placed = prepare(
        discover(data), tmp_path / "store", settings=PrepareSettings(), split_settings=SPLIT,
        split_file=read_split_file(path),
    )  # fmt: skip
    file = read_split_file(path, needed=("test",))
    assert assign_tested(file, placed.cases).digest == placed.split_file
    # Patients of elsewhere may stand on the other sides.
    sides["train"].append("somebody else")
    assert assign_tested(
        read_split_file(split_file(tmp_path, **sides), needed=("test",)), placed.cases
    ).digest == placed.split_file  # fmt: skip


def scored(patient: str, dice: float) -> CaseScores:
    region = RegionScores(dice, 0.5, 0.5, 0.5, 1.0)
    return CaseScores(patient, patient, {"whole": region, "core": region, "enhancing": region})


def test_lesion_by_lesion(home: Home, store: Path, models: tuple[str, str]) -> None:
    plain = evaluate(home, models[0], store).document
    document = evaluate(home, models[0], store, lesion_wise=True).document
    names_of = (*METRICS, *LESION_METRICS)
    for case, same in zip(document["cases"], plain["cases"], strict=True):
        for region in ("whole", "core", "enhancing"):
            assert tuple(case[region]) == names_of
            assert {name: case[region][name] for name in METRICS} == same[region]
            assert isinstance(case[region]["lesions"], int)
    assert tuple(document["summary"]["core"]) == names_of
    assert document["summary"]["core"]["dice"] == plain["summary"]["core"]["dice"]
    json.dumps(document, allow_nan=False)


def test_a_comparison_is_paired() -> None:
    hard, easy = 0.1, 0.9
    theirs = [scored(name, hard if name < "d" else easy) for name in "abcdef"]
    ours = [scored(name, (hard if name < "d" else easy) + 0.05) for name in "abcdef"]
    document = compare("ours", "theirs", ours, theirs).document()
    assert document["patients"] == 6
    for difference in document["difference"].values():
        assert difference["mean"] == pytest.approx(0.05)
        assert difference["ci95"] == pytest.approx([0.05, 0.05])


def test_a_version_shows_where_it_was_evaluated(home: Home, tmp_path: Path) -> None:
    client = connect(home)
    run = client.create_run(experiment_id(client, home)).info.run_id
    client.create_registered_model(MODEL)
    logged = client.create_logged_model(experiment_id(client, home), name="segan")
    with pointing_at(home.tracking_uri):
        version = client.create_model_version(
            MODEL, f"models:/{logged.model_id}", run_id=run, model_id=logged.model_id
        ).version
    summary = {region: {"dice": {"mean": 0.5}} for region in ("whole", "core", "enhancing")}
    for own, score in ((True, 0.5), (False, 0.25)):
        summary["whole"]["dice"]["mean"] = score
        model = FetchedModel("champion", tmp_path, version=str(version), run=run, sweep="swept")
        subject = Subject(model, StoreCard(tmp_path, "f" * 16, {"test": 2}), None, own=own)
        with evaluation_run(client, home, subject) as evaluation:
            evaluation.log_summary(summary)
            evaluation.link_version(summary)
    tags = client.get_model_version(MODEL, str(version)).tags
    assert tags["segan.test/dice_whole"] == "0.5000"
    assert tags["segan.external/dice_whole"] == "0.2500"
    assert tags["segan.external/dice_mean"] == "0.4167"
    assert tags["segan.evaluation.external"] == evaluation.id
    found = client.get_run(evaluation.id)
    assert found.data.tags["segan.model_version"] == str(version)
    assert found.data.tags["segan.run"] == run
    assert [one.model_id for one in found.inputs.model_inputs] == [logged.model_id]
    metrics = client.get_logged_model(logged.model_id).metrics
    assert {(one.key, one.dataset_digest) for one in metrics} >= {("test/dice_whole", "f" * 16)}


def test_a_run_that_fails_does_not_stay_running(home: Home, tmp_path: Path) -> None:
    client = connect(home)
    subject = Subject(FetchedModel("m", tmp_path), StoreCard(tmp_path, "f", {}), None, own=True)
    with pytest.raises(RuntimeError), evaluation_run(client, home, subject) as run:
        raise RuntimeError
    assert client.get_run(run.id).info.status == "FAILED"


def test_the_latest_evaluation_is_the_models_own(
    home: Home, store: Path, models: tuple[str, str], monkeypatch
) -> None:
    import contextlib

    from segan_ray.workflows import evaluate as module

    @contextlib.contextmanager
    def of_a_sweep(home: Home, model: str):
        yield FetchedModel(model, Path(model), sweep="swept")

    monkeypatch.setattr(module, "fetched", of_a_sweep)
    evaluate(home, models[0], store, against=[models[1]])
    found = latest_evaluation(home, "swept")
    assert found is not None
    assert found["model"] == models[0]
    assert len(found["comparisons"]) == 1


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_tables_are_written_whole(tmp_path: Path, ending: str) -> None:
    table = pd.DataFrame({"case": ["a", "b"], "dice": [0.25, 1 / 3]})
    path = tmp_path / f"cases.{ending}"
    check_table(path)
    write_table(table, path)
    read = pd.read_csv if ending == "csv" else pd.read_parquet
    pd.testing.assert_frame_equal(read(io.BytesIO(path.read_bytes())), table)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_table_has_a_name_that_says_how(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ends in .csv or .parquet"):
        check_table(tmp_path / "cases.xlsx")
    with pytest.raises(DataError, match="Make it first"):
        check_table(tmp_path / "none" / "cases.csv")


def test_evaluate_as_a_command(
    home: Home, store: Path, other_split: Path, models: tuple[str, str], tmp_path: Path
) -> None:
    first, second = models
    result = segan(
        "evaluate", first, store, "--against", second, "--cases", "cases.parquet",
        "--reference", "flair=threshold", "--output", "scores.json", "--json",
        cwd=tmp_path, home=home.folder,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert json.loads((tmp_path / "scores.json").read_text()) == document
    table = pd.read_parquet(tmp_path / "cases.parquet")
    assert list(table.columns) == ["model", "case", "patient", "region", *METRICS]
    assert set(table["model"]) == {first, second, "flair"}
    shown = segan("evaluate", first, store, "--against", second, cwd=tmp_path, home=home.folder)
    assert "Difference in Dice, patient by patient" in shown.stdout
    assert "95% interval" not in shown.stdout
    assert f"{first} - {second}" in shown.stdout
    assert shown.stdout.count("No intervals: 2 patients are too few for one, 6 are needed.") == 1
    assert "[" not in shown.stdout
    seen = segan("evaluate", first, other_split, cwd=tmp_path, home=home.folder)
    refused(seen, "was trained or chosen with scans of")
    no = segan("evaluate", first, store, "--cases", "a.txt", cwd=tmp_path, home=home.folder)
    refused(no, "ends in .csv or .parquet")


def test_rows_called_alike_are_refused(home: Home, tmp_path: Path) -> None:
    assert named_rows(["threshold", "unet=run", "threshold"]) == {
        "threshold": "threshold",
        "unet": "run",
    }
    with pytest.raises(RegistryError, match="names the row 'b' twice"):
        named_rows(["b=threshold", "b=a"])
    for model, against in (("a", ()), ("m", ("a",))):
        with pytest.raises(RegistryError, match="Two rows would be called 'a'"):
            evaluate(home, model, tmp_path, against=against, references={"a": "threshold"})


def document_of(patients: int, *visits: str) -> dict:
    """Return the document of so many patients, the first of them seen again in ``visits``."""
    ours = [scored(f"p{i}", i / 10) for i in range(patients)]
    again = [replace(ours[0], case=f"again-{visit}") for visit in visits]
    document = evaluation_document("m", "test", [*ours, *again])
    means = means_over_cases([*ours, *again])
    over_cases = {} if means is None else {"means_over_cases": {"m": means}}
    return document | over_cases | {"against": [], "references": {}, "comparisons": []}


def test_tables_of_many_and_of_few_patients(capsys: pytest.CaptureFixture[str]) -> None:
    show_scores(document_of(6))
    shown = capsys.readouterr().out
    assert "Test scores, 6 patients: Dice with 95% interval, and HD95 in mm" in shown
    assert "0.250 [0." in shown
    assert "No intervals" not in shown
    assert "Means over" not in shown
    show_scores(document_of(1))
    shown = capsys.readouterr().out
    assert "Test scores, 1 patient: Dice, and HD95 in mm" in shown
    assert "No intervals: 1 patient is too few for one, 6 are needed." in shown


def test_the_mean_over_cases_is_shown_where_it_is_another(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_scores(document_of(6, "a", "b"))
    shown = capsys.readouterr().out
    title = "Means over 8 cases, as leaderboards have them: Dice, and HD95 in mm"
    assert title in " ".join(shown.split())
    of_patients, of_cases = (line for line in shown.splitlines() if line.startswith("m "))
    assert "0.250 [" in of_patients
    assert of_cases.split()[1] == "0.188"
