"""A command loads each of its models once, however many parts of it use the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn
from typer.testing import CliRunner

from segan_ray.cli.main import app
from segan_ray.home import Home
from tests.unit.promotable import WHOLE, WHOLE_AND_CORE, record_sweep, write_store

Loads = Callable[..., int]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, and a home with two sweeps of one trial each."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        write_store(folder / "store")
        home = Home.at(folder / "home")
        record_sweep(home, "good", folder / "store", WHOLE)
        record_sweep(home, "better", folder / "store", WHOLE_AND_CORE)
    return folder


@pytest.fixture
def loads(made: Path, monkeypatch: pytest.MonkeyPatch) -> Loads:
    """Run a command in this process and return how often weights were put into a network."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    loaded: list[nn.Module] = []
    load = nn.Module.load_state_dict

    def counted(network: nn.Module, *args: object, **kwargs: object) -> object:
        loaded.append(network)
        return load(network, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(nn.Module, "load_state_dict", counted)

    def run(*arguments: object) -> int:
        loaded.clear()
        command = [str(each) for each in (*arguments, "--home", made / "home")]
        result = CliRunner().invoke(app, command, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return len(loaded)

    return run


@pytest.mark.slow
def test_each_model_of_a_command_is_loaded_once(
    loads: Loads, made: Path, phantom_folder: Path, tmp_path: Path
) -> None:
    store = made / "store"
    assert loads("promote", "good") == 1
    assert loads("promote", "better", "--dry-run") == 2, "the candidate and the champion"
    assert loads("promote", "better", "--force") == 2
    assert loads("evaluate", "champion", store) == 1
    assert loads("evaluate", "champion", store, "--reference", "threshold") == 1
    both = ("--against", "models:/segan/1", "--reference", "again=models:/segan/1")
    assert loads("evaluate", "champion", store, *both) == 2
    # Both names are of the same model.
    assert loads("evaluate", "champion", store, "--against", "models:/segan/2") == 1
    assert loads("export", "champion", tmp_path / "exported", "--format", "torch") == 1
    assert loads("predict", "champion", phantom_folder, tmp_path / "labels") == 1
    more = ("--probabilities", "--overwrite")
    assert loads("predict", "champion", phantom_folder, tmp_path / "labels", *more) == 1
