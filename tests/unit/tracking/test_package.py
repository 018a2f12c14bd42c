"""The packaged model: loaded by MLflow alone, refused once changed, gone with its sweep."""

from __future__ import annotations

import ast
import json
import pickle
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import packages_distributions, version
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from segan_ray.config import Experiment, load_experiment
from segan_ray.data.io.volumes import Volume, read_volume
from segan_ray.data.layouts.cases import discover, layout_named
from segan_ray.data.store.manifest import PrepareSettings
from segan_ray.data.store.opened_store import read_manifest
from segan_ray.data.store.origin import origin_of, write_origin
from segan_ray.errors import CheckpointError, RegistryError, TrackingError
from segan_ray.evaluation.inference.inference_settings import Postprocessing
from segan_ray.evaluation.inference.packaged_model import (
    PACKAGED,
    Model,
    TrainedSegmentor,
    load_model,
    member_folders,
)
from segan_ray.evaluation.inference.segment_volume import probabilities_of_volume, segment_volume
from segan_ray.home import Home
from segan_ray.models.build import build_segmentor
from segan_ray.search.results.ranking import TrialRecord
from segan_ray.tracking.client.connection import connect, experiment_id, pointing_at
from segan_ray.tracking.recording.deletion import delete_packages
from segan_ray.tracking.registry.aliases import move_alias
from segan_ray.tracking.registry.model_versions import SHA256, fetched, find_alias, register
from segan_ray.tracking.registry.package import package_model, requirements, write_package
from segan_ray.training.checkpoints.checkpoint import save_segmentor
from segan_ray.workflows.candidate import candidate_model
from tests.unit.stored import bare_version

EXPERIMENT = Experiment.model_validate(
    # Its maps vary more. MONAI, which U-Net needs, imports what of optuna it finds.
    {"segmentor": {"network": "segan", "base_width": 4, "depth": 2, "full_resolution": False}}
)
THRESHOLDS = Postprocessing(thresholds={"whole": 0.48, "core": 0.5, "enhancing": 0.52})
CODE = layout_named("brats2021").code


@pytest.fixture(scope="module")
def model(store: Path) -> Model:
    torch.manual_seed(0)
    segmentor = build_segmentor(EXPERIMENT).eval()
    return Model(
        (TrainedSegmentor(segmentor, EXPERIMENT),), origin_of(read_manifest(store)), THRESHOLDS
    )


@pytest.fixture(scope="module")
def volume(phantom_folder: Path) -> Volume:
    return read_volume(discover(phantom_folder).cases[0], CODE)


@pytest.fixture(scope="module")
def expected(model: Model, volume: Volume) -> np.ndarray:
    """The label map of the volume; all labels occur in it, or it would prove little."""
    label = CODE.labels(segment_volume(model, volume))
    assert set(np.unique(label)) == {0, 1, 2, 4}
    return label


def make_run(client: MlflowClient, home: Home) -> str:
    return client.create_run(experiment_id(client, home), tags={"segan.sweep": "s"}).info.run_id


def make_champion(home: Home, model: Model) -> Path:
    """Return the folder where MLflow keeps it."""
    client = connect(home)
    run = make_run(client, home)
    package = package_model(client, run, model)
    move_alias(client, "champion", register(client, run, {"segan.sweep": "s"}, package))
    return next(home.artifacts.glob("**/MLmodel")).parent


@pytest.fixture(scope="module")
def home_with_a_champion(
    made_home: Path, model: Model, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    home = Home.at(shutil.copytree(made_home, tmp_path_factory.mktemp("champion") / "home"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        make_champion(home, model)
    return home.folder


@pytest.fixture
def registered(home: Home, home_with_a_champion: Path) -> Path:
    """The folder where MLflow keeps the champion of ``home``."""
    shutil.rmtree(home.folder)
    shutil.copytree(home_with_a_champion, home.folder)
    return next(home.artifacts.glob("**/MLmodel")).parent


@pytest.fixture(scope="module")
def written(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that no registry knows; read only."""
    folder = tmp_path_factory.mktemp("package") / "model"
    write_package(folder, model)
    return folder


ELSEWHERE = """
import json, pickle, sys
import numpy as np, torch

def refuse(*args, **kwargs):
    raise AssertionError("unpickled")

pickle.load = pickle.loads = pickle.Unpickler = torch.load = refuse
import mlflow
model = mlflow.pyfunc.load_model("models:/segan@champion")
cases = np.load("cases.npy")
np.save("labels.npy", model.predict(cases))
np.save("probabilities.npy", model.predict(
    cases, params={"output": "probabilities", "spacing_mm": [4.0, 4.0, 4.0]}
))
import segan_ray
ours = {name: m.__file__ for name, m in sys.modules.items() if name.startswith("segan_ray")}
third = sorted({name.partition(".")[0] for name in sys.modules})
json.dump({"segan_ray": ours, "modules": third}, open("modules.json", "w"))
"""


def test_other_homes_of_the_process_stay_where_they_are(
    registered: Path, home: Home, tmp_path: Path
) -> None:
    """Though MLflow notes an address it is pointed at in the environment, where homes look."""
    with fetched(home, "champion"):
        other = Home.at(tmp_path / "other")
    assert other.tracks_itself
    assert other.tracking_uri == f"sqlite:///{other.tracking_database}"
    assert connect(home).get_model_version_by_alias("segan", "champion").version


@pytest.mark.slow
def test_another_process_needs_nothing_but_mlflow(
    home: Home, model: Model, volume: Volume, expected: np.ndarray, tmp_path: Path
) -> None:
    # Made in place: MLflow alone goes by the addresses that it noted.
    registered = make_champion(home, model)
    np.save(tmp_path / "cases.npy", volume.image[None])
    subprocess.run(
        [sys.executable, "-I", "-c", ELSEWHERE], cwd=tmp_path, check=True,
        env={"MLFLOW_TRACKING_URI": home.tracking_uri, "PATH": "", "HOME": str(tmp_path)},
    )  # fmt: skip
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), expected[None])
    np.testing.assert_array_equal(
        np.load(tmp_path / "probabilities.npy"), probabilities_of_volume(model, volume)[None]
    )
    seen = json.loads((tmp_path / "modules.json").read_text())
    carried = registered / "code"
    assert seen["segan_ray"]
    for name, path in seen["segan_ray"].items():
        assert Path(path).is_relative_to(carried), f"{name} was imported from {path}"
    assert not {"ray", "optuna", "typer", "plotly"} & set(seen["modules"])
    # Loading wrote into the folder, since it is a local one; the version is the same still.
    with fetched(home, "champion") as found:
        assert found.version == "1"


@pytest.mark.slow
def test_the_requirements_are_what_the_carried_code_imports(model: Model, written: Path) -> None:
    """The modules that are loaded to predict, those they import, and what installs these."""
    code = (
        "import sys, segan_ray.evaluation.inference.raw_cases, segan_ray.models.build;"
        "print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('segan_ray')))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set()
    for path in run.stdout.split():
        for node in ast.walk(ast.parse(Path(path).read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    imported -= sys.stdlib_module_names | {"segan_ray"}
    installs = packages_distributions()
    needed = {installs[name][0].lower() for name in imported} | {"mlflow"}
    monai = TrainedSegmentor(model.segmentor, load_experiment(None, ["segmentor.network=unet"]))
    corrected = model.origin.model_copy(update={"preparation": PrepareSettings(n4=True)})
    of_both = requirements(Model((*model.members, monai), corrected))
    assert needed <= {line.partition("==")[0].lower() for line in of_both}
    lines = (written / "requirements.txt").read_text().split()
    assert lines == requirements(model)
    assert not any("+" in line or "index" in line or "://" in line for line in lines)
    assert [line for line in of_both if line not in lines] == [
        f"{name}=={version(name)}" for name in ("monai", "SimpleITK")
    ]


def test_nothing_in_a_package_is_pickled(written: Path) -> None:
    names = {path.relative_to(written).as_posix() for path in written.rglob("*") if path.is_file()}
    assert {name for name in names if name.startswith("artifacts")} == {
        f"{PACKAGED}/{name}"
        for name in (
            "segmentor.safetensors", "state.json", "origin.json", "postprocessing.json",
            "checksums.json",
        )
    }  # fmt: skip
    suffixes = {Path(name).suffix for name in names}
    assert suffixes <= {"", ".py", ".json", ".yaml", ".txt", ".html", ".safetensors", ".typed"}
    assert "python_model" not in (written / "MLmodel").read_text()
    assert (written / "code/segan_ray/evaluation/inference/packaged_model.py").is_file()
    assert (written / "input_example.json").stat().st_size < 100_000


def test_a_package_says_what_goes_in_and_comes_out(written: Path) -> None:
    loaded = mlflow.pyfunc.load_model(str(written))
    example = loaded.input_example
    label = loaded.predict(example)
    assert label.dtype == np.uint8
    assert label.shape == (1, *example.shape[2:])
    ragged = np.empty(2, dtype=object)
    ragged[:] = [example[0], example[0, :, :12]]
    found = loaded.predict(ragged)
    np.testing.assert_array_equal(found[0], label[0])
    assert found[1].shape == (12, *label.shape[2:])
    with pytest.raises(mlflow.MlflowException, match="does not match expected shape"):
        loaded.predict(example[:, :3])


@pytest.mark.parametrize("name", ["champion", "models:/segan@champion", "models:/segan/1", "run"])
def test_a_package_is_fetched_by_any_of_its_names(
    registered: Path, home: Home, model: Model, name: str
) -> None:
    run = find_alias(connect(home), "champion").run_id
    with fetched(home, f"runs:/{run}/model" if name == "run" else name) as found:
        loaded = load_model(found.folder)
        assert not (found.folder / "MLmodel").exists()
    assert (loaded.experiments, loaded.origin) == ((EXPERIMENT,), model.origin)
    assert loaded.postprocessing == THRESHOLDS
    with fetched(home, str(registered)) as found:
        assert load_model(registered).origin == load_model(found.folder).origin
    with pytest.raises(RegistryError, match="models:/segan/7"), fetched(home, "models:/segan/7"):
        pass


def flip_a_weight(folder: Path) -> None:
    path = folder / PACKAGED / "segmentor.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def replace_by_a_pickle(folder: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, folder / PACKAGED / "segmentor.safetensors")


def change_a_threshold(folder: Path) -> None:
    path = folder / PACKAGED / "postprocessing.json"
    path.write_text(path.read_text().replace("0.48", "0.58"))


def remove_thresholds(folder: Path) -> None:
    (folder / PACKAGED / "postprocessing.json").unlink()


TAMPERINGS = [flip_a_weight, replace_by_a_pickle, change_a_threshold, remove_thresholds]


@pytest.mark.parametrize("tamper", TAMPERINGS)
def test_a_version_that_was_changed_is_refused(
    registered: Path, home: Home, tamper: Callable[[Path], None]
) -> None:
    tamper(registered)
    with (
        pytest.raises(CheckpointError, match=f"Version 1 .* changed .* {SHA256}"),
        fetched(home, "champion"),
    ):
        pass
    with (
        pointing_at(home.tracking_uri),
        pytest.raises(CheckpointError, match="packaged"),
    ):
        mlflow.pyfunc.load_model("models:/segan@champion")
    with pytest.raises(CheckpointError, match="packaged"):
        load_model(registered)
    with pytest.raises(CheckpointError, match="packaged"), fetched(home, str(registered)):
        pass


@pytest.mark.parametrize("name", ["../../MLmodel", "/etc/hostname"])
def test_a_seal_names_files_below_it_alone(written: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(written, tmp_path / "model")
    sealed = copy / PACKAGED / "checksums.json"
    sealed.write_text(json.dumps({**json.loads(sealed.read_text()), name: "0" * 64}))
    with pytest.raises(CheckpointError, match=f"names '{name}', which is no file below its folder"):
        load_model(copy)


@pytest.mark.parametrize("name", ["code/segan_ray/brats.py", "pyfunc_model.py", "MLmodel", "more"])
def test_a_version_is_its_code_as_well(registered: Path, home: Home, name: str) -> None:
    with (registered / name).open("a") as stream:
        stream.write("\n")
    with pytest.raises(CheckpointError, match="changed"), fetched(home, "champion"):
        pass


def test_a_version_without_a_digest_is_refused(home: Home) -> None:
    client = connect(home)
    run = make_run(client, home)
    client.log_text(run, "{}", "checkpoint/state.json")
    bare_version(client, run)
    with (
        pytest.raises(CheckpointError, match=r"no tag segan\.sha256"),
        fetched(home, "models:/segan/1"),
    ):
        pass


def zipped(path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, path)


def old_torch(path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)


def plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": [0.0]}))


@pytest.mark.parametrize("write", [zipped, old_torch, plain_pickle])
def test_a_pickle_of_any_name_is_no_checkpoint(
    model: Model, tmp_path: Path, write: Callable[[Path], None]
) -> None:
    save_segmentor(tmp_path, model.segmentor, EXPERIMENT)
    write(tmp_path / "segmentor.safetensors")
    with pytest.raises(CheckpointError, match="is a Python pickle"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["weights.pkl", "weights.pt", "weights.PTH"])
def test_a_folder_with_a_pickle_is_not_read(model: Model, tmp_path: Path, name: str) -> None:
    save_segmentor(tmp_path, model.segmentor, EXPERIMENT)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match=f"{name}: segan-ray reads no pickles"):
        load_model(tmp_path)


def test_the_model_stands_with_its_run(registered: Path, home: Home, model: Model) -> None:
    client = connect(home)
    version = find_alias(client, "champion")
    logged = client.get_logged_model(version.source.removeprefix("models:/"))
    assert (logged.source_run_id, logged.status) == (version.run_id, "READY")
    (output,) = client.get_run(version.run_id).outputs.model_outputs
    assert output.model_id == logged.model_id
    delete_packages(client, version.run_id)
    assert not list(home.artifacts.rglob("MLmodel"))
    assert not client.search_logged_models([logged.experiment_id])


def test_a_changed_record_of_a_model_deletes_nothing_else(registered: Path, home: Home) -> None:
    precious = home.folder / "precious"
    (precious / "artifacts").mkdir(parents=True)
    client = connect(home)
    version = find_alias(client, "champion")
    with sqlite3.connect(home.tracking_database) as database:
        database.execute("UPDATE logged_models SET artifact_location = ?", (precious.as_uri(),))
    with pytest.raises(TrackingError, match=r"artifacts are at file:///.*/precious; expected"):
        delete_packages(client, version.run_id)
    assert precious.is_dir()


def test_a_package_cut_short_is_marked_so(
    home: Home, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(home)
    run = make_run(client, home)

    def fail(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(client, "log_model_artifacts", fail)
    with pytest.raises(OSError, match="disk full"):
        package_model(client, run, model)
    (logged,) = client.search_logged_models([experiment_id(client, home)])
    assert logged.status == "FAILED"


def test_an_ensemble_is_packaged_as_one_model(model: Model, volume: Volume, tmp_path: Path) -> None:
    torch.manual_seed(1)
    other = EXPERIMENT.model_copy(
        update={"data": EXPERIMENT.data.model_copy(update={"neighbours": 1})}
    )
    members = (*model.members, TrainedSegmentor(build_segmentor(other).eval(), other))
    write_package(tmp_path / "package", Model(members, model.origin, THRESHOLDS))
    case = np.stack([volume.image[index] for index in range(4)])[None].astype(np.float32)
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "package"))
    found = loaded.predict(case, params={"output": "probabilities", "spacing_mm": [4.0] * 3})
    each = [probabilities_of_volume(Model((one,), model.origin), volume) for one in members]
    np.testing.assert_allclose(found[0], np.mean(each, axis=0), atol=1e-6)
    assert np.abs(each[0] - each[1]).max() > 0.01

    inside = tmp_path / "package" / PACKAGED
    assert [path.name for path in member_folders(inside)] == ["member-0", "member-1"]
    weights = inside / "member-1" / "segmentor.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"member-1/segmentor\.safetensors: was changed"):
        load_model(tmp_path / "package")
    shutil.rmtree(inside / "member-1")
    with pytest.raises(CheckpointError, match="is missing from the packaged model"):
        load_model(tmp_path / "package")


def test_members_agree_on_what_is_brain(model: Model) -> None:
    training = EXPERIMENT.training.model_copy(update={"brain_mask": False})
    other = EXPERIMENT.model_copy(update={"training": training})
    with pytest.raises(CheckpointError, match=r"training\.brain_mask"):
        Model((*model.members, TrainedSegmentor(model.segmentor, other)), model.origin)


def test_a_trial_s_checkpoint_is_the_candidate(
    home: Home, model: Model, store: Path, tmp_path: Path
) -> None:
    client = connect(home)
    run = make_run(client, home)
    save_segmentor(tmp_path / "c", model.segmentor, EXPERIMENT)
    write_origin(tmp_path / "c", model.origin)
    client.log_artifacts(run, str(tmp_path / "c"), "checkpoint")
    trial = TrialRecord("000", "completed", 2, 0.5, mlflow_run=run, params={})
    found = candidate_model(home, [trial], store)
    assert (found.experiments[0], found.origin) == (EXPERIMENT, model.origin)
    for name, weight in model.segmentor.state_dict().items():
        assert torch.equal(found.segmentor.state_dict()[name], weight)
