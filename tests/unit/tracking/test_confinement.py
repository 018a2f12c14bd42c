"""MLflow's server reads and writes artifacts only in the folders of its own records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import (
    get_artifact_repository,
    get_registered_artifact_repositories,
)

from segan_ray.home import TRACKING_URI, Home
from segan_ray.tracking.ui.confinement import Places, confine_experiments, confined, places_of

REFUSED = "are not shown, read or written here"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with the artifacts of one run, and a file beside it."""
    monkeypatch.delenv(TRACKING_URI, raising=False)
    home = Home.at(tmp_path / "home")
    (home.artifacts / "run").mkdir(parents=True)
    (home.artifacts / "run" / "kept.txt").write_text("kept")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "traces.json").write_text('{"spans": []}')
    return home


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    return tmp_path / "outside"


@pytest.fixture
def run(home: Home) -> Iterator[ArtifactRepository]:
    """The artifacts of the run, as a server that is confined to the home has them."""
    with confined(places_of(home, home.artifacts.as_uri())):
        yield get_artifact_repository((home.artifacts / "run").as_uri())


@pytest.mark.parametrize(
    "location",
    ["{home}/mlartifacts", "file://{home}/mlartifacts/", "{home}/mlartifacts/1/x",
     "{home}/mlartifacts/x/../y", "file:{home}/mlartifacts/a%20b"],
)  # fmt: skip
def test_a_home_keeps_artifacts_in_itself(home: Home, location: str) -> None:
    places_of(home, "").check(location.format(home=home.folder))


@pytest.mark.parametrize(
    "location",
    ["/", "{home}", "{home}/mlartifacts2", "{home}/mlartifacts/..", "file://{home}/sweeps",
     "file://{home}/mlartifacts/%2e%2e/x", "relative", "", "s3://bucket/x", "FILE://{home}/../x",
     "mlflow-artifacts:/x", "runs:/x", "dbfs:/x", "http://127.0.0.1/x", "{home}/mlartifacts/out/x",
     "{home}/mlartifacts/round", "file:///%00"],
)  # fmt: skip
def test_a_home_keeps_none_elsewhere(home: Home, location: str) -> None:
    (home.artifacts / "out").symlink_to("/")
    (home.artifacts / "round").symlink_to(home.folder.parent / "round")
    (home.folder.parent / "round").symlink_to(home.artifacts.parent / "round")
    (home.artifacts.parent / "round").symlink_to(home.folder.parent / "round")
    with pytest.raises(MlflowException, match=REFUSED) as refused:
        places_of(home, "").check(location.format(home=home.folder))
    assert refused.value.get_http_status_code() == 403


def test_the_folder_of_a_home_may_be_on_another_disk_and_become_no_other(
    home: Home, outside: Path
) -> None:
    (home.folder / "mlartifacts").rename(outside / "mlartifacts")
    home.artifacts.symlink_to(outside / "mlartifacts")
    with confined(places_of(home, "")):
        run = get_artifact_repository((home.artifacts / "run").as_uri())
        assert [info.path for info in run.list_artifacts()] == ["kept.txt"]
        home.artifacts.unlink()
        home.artifacts.symlink_to(outside.parent)
        with pytest.raises(MlflowException, match=REFUSED):
            run.list_artifacts()


def test_records_elsewhere_keep_artifacts_where_the_project_does(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRACKING_URI, "postgresql://mlflow@records/mlflow")
    places = places_of(home, "file:///srv/mlruns/1")
    assert places == Places((home.artifacts, Path("/srv/mlruns/1")), remote=True)
    for location in ("/srv/mlruns/1/x", home.artifacts.as_uri(), "s3://bucket/x"):
        places.check(location)
    for location in ("/srv/mlruns/2", "/srv", "file:///"):
        with pytest.raises(MlflowException, match=REFUSED):
            places.check(location)
    assert places_of(home, "s3://bucket/1") == Places((home.artifacts,), remote=True)


def test_only_within_the_block_and_only_of_the_scheme(home: Home, outside: Path) -> None:
    before = dict(get_registered_artifact_repositories())
    with confined(Places((home.artifacts,), remote=False)):
        with pytest.raises(MlflowException, match=REFUSED):
            get_artifact_repository(str(outside)).list_artifacts()
        with pytest.raises(MlflowException, match=REFUSED):
            get_artifact_repository("s3://bucket/x")
    assert get_registered_artifact_repositories() == before
    with confined(Places((home.artifacts,), remote=True)):
        assert get_artifact_repository("s3://bucket/x").artifact_uri == "s3://bucket/x"
    assert [info.path for info in get_artifact_repository(str(outside)).list_artifacts()] == [
        "traces.json"
    ]


def test_artifacts_of_the_home_are_read_and_written(
    run: ArtifactRepository, home: Home, tmp_path: Path
) -> None:
    folder = tmp_path / "made" / "deep"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    run.log_artifacts(str(folder.parent))
    run.log_artifacts(str(folder), "b/c")
    run.log_artifact(str(folder / "a.txt"))
    found = {str(path.relative_to(home.artifacts / "run"))
             for path in (home.artifacts / "run").rglob("*") if path.is_file()}  # fmt: skip
    assert found == {"kept.txt", "deep/a.txt", "b/c/a.txt", "a.txt"}
    assert Path(run.download_artifacts("kept.txt")).read_text() == "kept"
    assert [info.path for info in run.list_artifacts("b")] == ["b/c"]
    run.delete_artifacts("b")
    assert [info.path for info in run.list_artifacts()] == ["a.txt", "deep", "kept.txt"]


WAYS: dict[str, Callable[[ArtifactRepository, Path], object]] = {
    "list": lambda run, _: run.list_artifacts("out"),
    "read": lambda run, _: run.download_artifacts("out/traces.json"),
    "copy": lambda run, made: run.download_artifacts("out", str(made)),
    "path": lambda run, _: run.get_local_path("out/traces.json"),
    "write": lambda run, made: run.log_artifact(str(made / "out" / "a.txt"), "out"),
    "write all": lambda run, made: run.log_artifacts(str(made)),
    "write all to it": lambda run, made: run.log_artifacts(str(made / "out"), "out"),
    "delete": lambda run, _: run.delete_artifacts("out/traces.json"),
    "trace": lambda run, _: run.download_trace_data(),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_link_among_the_artifacts_leads_nowhere(
    run: ArtifactRepository, home: Home, outside: Path, tmp_path: Path, way: str
) -> None:
    (home.artifacts / "run" / "out").symlink_to(outside)
    (home.artifacts / "run" / "traces.json").symlink_to(outside / "traces.json")
    (tmp_path / "made" / "out").mkdir(parents=True)
    (tmp_path / "made" / "out" / "a.txt").write_text("a")
    assert [info.path for info in run.list_artifacts()] == ["kept.txt"]
    with pytest.raises(MlflowException):
        WAYS[way](run, tmp_path / "made")
    assert [path.name for path in outside.iterdir()] == ["traces.json"]


@pytest.mark.parametrize("way", WAYS)
def test_a_folder_that_becomes_a_link_is_left_alone(
    run: ArtifactRepository, home: Home, tmp_path: Path, way: str
) -> None:
    (home.artifacts / "run" / "kept.txt").unlink()
    (home.artifacts / "run").rmdir()
    (home.artifacts / "run").symlink_to(tmp_path)
    (tmp_path / "made" / "out").mkdir(parents=True)
    (tmp_path / "made" / "out" / "a.txt").write_text("a")
    (tmp_path / "out").symlink_to("outside")
    with pytest.raises(MlflowException, match=REFUSED):
        WAYS[way](run, tmp_path / "made")
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["traces.json"]


def test_experiments_are_made_in_the_home_alone(home: Home, outside: Path) -> None:
    made: list[tuple[str, str | None]] = []

    class Store:
        def create_experiment(self, name: str, artifact_location: str | None, tags: object) -> str:
            made.append((name, artifact_location))
            return "7"

    store = Store()
    confine_experiments(store, places_of(home, ""))
    within = f"{home.artifacts}/x"
    assert store.create_experiment("a", None, []) == "7"
    assert store.create_experiment("b", within, []) == "7"
    with pytest.raises(MlflowException, match=REFUSED):
        store.create_experiment("c", str(outside), [])
    assert made == [("a", None), ("b", within)]
