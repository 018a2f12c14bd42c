"""A node's copy of a store on shared storage: filled once, checked, bounded. Real processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from segan_ray.data.layouts.cases import discover
from segan_ray.data.store import cache
from segan_ray.data.store.cache import local_store
from segan_ray.data.store.opened_store import PrepareSettings, open_for_tuning, read_manifest
from segan_ray.data.store.prepare import prepare
from segan_ray.data.store.remote_manifest import manifest_at
from segan_ray.data.store.splits import SplitSettings
from segan_ray.errors import StoreError
from segan_ray.filesystem.locations import absolute, is_url, location_name
from segan_ray.filesystem.locks import acquire, release

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, of which this process uses no store."""
    monkeypatch.setenv("SEGAN_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_in_use", {})
    yield tmp_path / "cache"
    stop_using()


def stop_using() -> None:
    """Release every copy, as the end of a process does."""
    for handle in cache._in_use.values():
        release(handle)
    cache._in_use.clear()


@pytest.fixture
def remote(store: Path, tmp_path: Path) -> Path:
    """A copy of the store that a test may break."""
    return shutil.copytree(store, tmp_path / "remote")


@pytest.fixture(scope="session")
def other(phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the same size with another fingerprint."""
    path = tmp_path_factory.mktemp("other") / "store"
    split = SplitSettings(val=0.17, gate=0.17, test=0.17, seed=9)
    prepare(discover(phantom_folder), path, settings=PrepareSettings(), split_settings=split)
    return path


def url(folder: Path) -> str:
    return f"file://{folder}"


def arrays(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*.npy")}


def test_a_plain_folder_is_read_where_it_is(store: Path, root: Path) -> None:
    assert local_store(str(store)) == store
    assert not root.exists()


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_a_copy_equals_its_store(store: Path, root: Path, scheme: str) -> None:
    where = url(store)
    if scheme == "memory":
        where = "memory://bucket/stores/ours"
        fsspec.filesystem("memory").put(str(store), "/bucket/stores/ours", recursive=True)
    copy = local_store(where)
    assert copy == root / read_manifest(store).fingerprint
    assert arrays(copy) == arrays(store)
    assert manifest_at(where) == read_manifest(copy) == read_manifest(store)
    assert open_for_tuning(copy).train[0].image().shape
    assert {path.name for path in root.iterdir() if path.is_dir()} == {copy.name}


def _use(where: str, fills: str, barrier) -> None:
    real = cache._fill

    def counted(*arguments) -> None:
        with Path(fills).open("a") as stream:
            stream.write("fill\n")
        real(*arguments)

    cache._fill = counted
    barrier.wait()
    cases = open_for_tuning(local_store(where))
    assert cases.train[0].image().any()
    barrier.wait()  # all must have the store at once: users must not keep others waiting


@pytest.mark.slow
def test_many_processes_fill_it_once(store: Path, root: Path, tmp_path: Path) -> None:
    barrier = SPAWN.Barrier(4)
    arguments = (url(store), str(tmp_path / "fills"), barrier)
    processes = [SPAWN.Process(target=_use, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert (tmp_path / "fills").read_text() == "fill\n"


def _die_after_five(where: str) -> None:
    real, count = cache._copy_array, 0
    cache.STREAMS = 1

    def copy_array(*arguments) -> None:
        nonlocal count
        count += 1
        if count > 5:
            os.kill(os.getpid(), signal.SIGKILL)
        real(*arguments)

    cache._copy_array = copy_array
    local_store(where)


def test_leftovers_of_a_killed_filler_are_not_taken_for_whole(
    store: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = SPAWN.Process(target=_die_after_five, args=(url(store),))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    name = read_manifest(store).fingerprint
    left = root / f".{name}.filling"
    assert not (root / name).exists()
    assert len(arrays(left)) == 5
    half = sorted(left.rglob("*.npy"))[0]
    half.write_bytes(half.read_bytes()[:100])
    fetched: list[str] = []
    real = cache._chunks
    monkeypatch.setattr(cache, "_chunks", lambda *args: (fetched.append(args[1]), real(*args))[1])
    assert arrays(local_store(url(store))) == arrays(store)
    assert len(fetched) == len(arrays(store)) - 4
    assert not left.exists()


def test_a_damaged_object_is_named(remote: Path, root: Path) -> None:
    path = sorted(remote.rglob("image.npy"))[3]
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(StoreError) as caught:
        local_store(url(remote))
    assert str(caught.value).startswith(f"file://{path}: is not what the manifest says")
    assert "Copy the store there again" in str(caught.value)
    assert not (root / read_manifest(remote).fingerprint).exists()
    path.write_bytes(good)
    assert arrays(local_store(url(remote))) == arrays(remote)


def test_a_missing_object_is_named(remote: Path, root: Path) -> None:
    path = sorted(remote.rglob("mask.npy"))[0]
    path.unlink()
    with pytest.raises(StoreError, match=r"mask\.npy: is missing, though the manifest lists it"):
        local_store(url(remote))


def test_an_edited_manifest_is_noticed(remote: Path, root: Path) -> None:
    content = json.loads((remote / "manifest.json").read_text())
    content["splits"]["train"], content["splits"]["test"] = (
        content["splits"]["test"], content["splits"]["train"],
    )  # fmt: skip
    (remote / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(StoreError, match="was changed after the store was made"):
        local_store(url(remote))


@pytest.mark.parametrize(
    "change",
    [
        *({"case": name} for name in ("../../escape", "/escape", "..", ".", "a\\b", "", "a/b")),
        {"checksums": {"image.npy": "", "../../escape": ""}},
        {"checksums": {"image.npy": "", "mask.npy": "", "../escape": ""}},
    ],
)
def test_a_manifest_names_nothing_outside_of_its_store(
    remote: Path, root: Path, change: dict[str, Any]
) -> None:
    content = json.loads((remote / "manifest.json").read_text())
    content["cases"][0] |= change
    (remote / "manifest.json").write_text(json.dumps(content))
    for use in (local_store, lambda _: open_for_tuning(remote)):
        with pytest.raises(StoreError, match=r"damaged at 'cases\.0"):
            use(url(remote))
    assert not root.exists()


def test_a_fingerprint_names_no_folder_but_a_copy_s(remote: Path, root: Path) -> None:
    content = json.loads((remote / "manifest.json").read_text())
    (remote / "manifest.json").write_text(json.dumps(content | {"fingerprint": "../../../escape"}))
    with pytest.raises(StoreError, match="damaged at 'fingerprint'"):
        local_store(url(remote))


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("memory://nothing", "memory://nothing is not a prepared store: it has no manifest.json"),
        ("nonsense://store", "nonsense://store: cannot be opened"),
    ],
)
def test_a_url_without_a_store(root: Path, where: str, words: str) -> None:
    with pytest.raises(StoreError, match=words):
        local_store(where)


def test_the_store_used_longest_ago_makes_room(
    store: Path, other: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = read_manifest(store).array_bytes
    monkeypatch.setenv("SEGAN_RAY_CACHE_BYTES", str(1.5 * size + cache.HEADROOM_BYTES))
    first = local_store(url(store))
    with pytest.raises(StoreError, match=r"no room for a copy .* in use"):
        local_store(url(other))
    assert arrays(first) == arrays(store)
    stop_using()
    second = local_store(url(other))
    assert not first.exists()
    assert arrays(second) == arrays(other)
    stop_using()
    assert local_store(url(store)) == first
    assert not second.exists()


def test_the_store_used_last_stays(
    store: Path, other: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, used in ((store, 2000), (other, 1000)):
        copy = local_store(url(place))
        stop_using()
        os.utime(root / f"{copy.name}.lock", (used, used))
    size = read_manifest(store).array_bytes
    monkeypatch.setenv("SEGAN_RAY_CACHE_BYTES", str(2.5 * size + cache.HEADROOM_BYTES))
    third = root / ("f" * 16)
    manifest = read_manifest(store)
    cache._make_room(manifest, b"", third.with_name(f".{third.name}.filling"))
    assert (root / manifest.fingerprint).exists()
    assert not (root / read_manifest(other).fingerprint).exists()


def test_a_store_larger_than_the_cache(
    store: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGAN_RAY_CACHE_BYTES", "1e6")
    with pytest.raises(StoreError, match="Raise SEGAN_RAY_CACHE_BYTES"):
        local_store(url(store))
    monkeypatch.setenv("SEGAN_RAY_CACHE_BYTES", "much")
    with pytest.raises(StoreError, match="is 'much'; expected a number of bytes"):
        local_store(url(store))


def test_an_exclusive_lock_waits_and_a_shared_one_is_shared(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    one, two = acquire(path, shared=True), acquire(path, shared=True)
    assert one is not None
    assert two is not None
    assert acquire(path) is None
    release(one)
    threading.Timer(0.2, release, [two]).start()
    alone = acquire(path, wait_s=10)
    assert alone is not None
    assert acquire(path, shared=True) is None
    release(alone)


@pytest.mark.parametrize("where", ["s3://bucket/a/store", "file:///mnt/store", "memory://store"])
def test_urls_are_not_mangled(where: str) -> None:
    assert is_url(where)
    assert absolute(where) == absolute(f"{where}/") == where
    assert location_name(where) == "store"


def test_a_folder_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("store") == absolute(Path("store")) == str(tmp_path / "store")
