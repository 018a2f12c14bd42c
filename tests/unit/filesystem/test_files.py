"""Files are written whole or not at all, and never through another user's link."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

import pytest

from segan_ray.errors import DataError
from segan_ray.filesystem import atomic_files
from segan_ray.filesystem.atomic_files import follow_umask, write_bytes


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"first", b"second"):
        write_bytes(path, content)
        assert path.read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_the_names_of_unfinished_files_are_not_predictable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, seen = os.replace, set[str]()

    def watched(partial: Path, path: Path) -> None:
        seen.add(partial.name)
        replace(partial, path)

    monkeypatch.setattr(os, "replace", watched)
    for _ in range(20):
        write_bytes(tmp_path / "file", b"")
    assert len(seen) == 20


@pytest.mark.parametrize("entry", ["link", "dangling link", "file"])
def test_nothing_is_written_through_an_entry_of_the_unfinished_name(
    entry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda _: "known")
    partial, victim = tmp_path / ".file.known", tmp_path / "victim"
    if entry == "file":
        partial.write_bytes(b"theirs")
    else:
        partial.symlink_to(victim)
    if entry == "link":
        victim.write_bytes(b"theirs")
    with pytest.raises(DataError, match=r"file: cannot be written \(File exists\)"):
        write_bytes(tmp_path / "file", b"ours")
    assert not (tmp_path / "file").exists()
    assert victim.exists() == (entry == "link")
    assert entry != "link" or victim.read_bytes() == b"theirs"


def test_a_link_in_the_place_of_the_file_is_replaced_itself(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "file"
    victim.write_bytes(b"theirs")
    path.symlink_to(victim)
    write_bytes(path, b"ours")
    assert (victim.read_bytes(), path.read_bytes(), path.is_symlink()) == (
        b"theirs",
        b"ours",
        False,
    )


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077], ids=oct)
def test_the_mode_is_the_umasks(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_bytes(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask


def test_the_folder_is_synced_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bytes] = []
    monkeypatch.setattr(
        atomic_files, "sync_path", lambda folder: synced.append((folder / "file").read_bytes())
    )
    write_bytes(tmp_path / "file", b"whole")
    assert synced == [b"whole"]


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_write_that_fails_leaves_nothing(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, fails, full)
    with pytest.raises(DataError, match="No space left on device: the disk at"):
        write_bytes(tmp_path / "file", b"whole")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", ["missing", "a file"])
def test_a_missing_folder_is_refused(folder: str, tmp_path: Path) -> None:
    if folder == "a file":
        (tmp_path / folder).touch()
    with pytest.raises(DataError, match="cannot be written"):
        write_bytes(tmp_path / folder / "file", b"")


@pytest.mark.parametrize(
    ("umask", "of_files", "of_folders"),
    [(0o002, 0o664, 0o775), (0o022, 0o644, 0o755), (0o077, 0o600, 0o700), (0o027, 0o640, 0o750)],
)
def test_copies_get_the_modes_of_new_files(
    umask: int, of_files: int, of_folders: int, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("")
    elsewhere.chmod(0o400)
    folder = tmp_path / "copies"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "read-only").write_text("")
    (folder / "inner" / "read-only").chmod(0o444)
    (folder / "inner").chmod(0o700)
    (folder / "program").write_text("")
    (folder / "program").chmod(0o755)
    (folder / "link").symlink_to(elsewhere)
    before = os.umask(umask)
    try:
        follow_umask(folder)
    finally:
        os.umask(before)
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in folder.rglob("*")
        if not path.is_symlink()
    }
    assert modes == {"inner": of_folders, "read-only": of_files, "program": of_files}
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o400
