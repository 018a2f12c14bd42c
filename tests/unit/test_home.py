"""The home's folder, and the commands that go on with an interrupted command."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from segan_ray.home import HOME, RESUME_WITH, Home, mend_database, resume_command


@pytest.fixture(autouse=True)
def usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder without any configuration."""
    for name in (HOME, RESUME_WITH):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "segan-ray-home"


def test_the_command_to_go_on_names_a_home_that_is_not_the_usual_one(
    usual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = "segan-ray train store --name n --resume"
    other = Home.at(tmp_path / "other home")
    arguments = ("train", "store", "--name", "n")
    assert resume_command(Home.at(None), *arguments) == go_on
    assert resume_command(Home.at(usual), *arguments) == go_on
    assert resume_command(other, *arguments) == f"{go_on} --home '{other.folder}'"
    monkeypatch.setenv(HOME, str(other.folder))
    assert resume_command(other, *arguments) == go_on
    assert resume_command(Home.at(usual), *arguments) == f"{go_on} --home {usual}"


def test_the_command_to_go_on_can_be_pasted_into_a_shell() -> None:
    arguments = ("tune", "my store", "--space", "a'b.yaml", "--name", "n")
    command = resume_command(Home.at(None), *arguments)
    assert shlex.split(command) == ["segan-ray", *arguments, "--resume"]


def test_a_job_sets_the_command_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RESUME_WITH, "segan-ray submit -- tune store")
    assert resume_command(Home.at(Path("x")), "tune", "store") == "segan-ray submit -- tune store"


def test_a_full_disk_needs_room_and_a_damaged_database_a_copy() -> None:
    assert mend_database("database or disk is full").startswith("Make room there")
    assert mend_database("file is not a database").startswith("Put a sound copy in its place")
