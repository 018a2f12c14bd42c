"""Gzip in practice: several members, padding, and wrong sizes."""

from __future__ import annotations

import gzip
import io
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segan_ray.data.io.gzipped import first_bytes, trailer, unpack
from segan_ray.data.io.headers import ImageError

BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
CONTENT = bytes(range(256)) * 40


def packed(*parts: bytes, padding: bytes = b"") -> io.BytesIO:
    return io.BytesIO(b"".join(gzip.compress(part, mtime=0) for part in parts) + padding)


@given(
    parts=st.lists(st.binary(max_size=400), min_size=1, max_size=6),
    zeros=st.lists(st.integers(0, 20), min_size=6, max_size=6),
    size=st.integers(0, 500),
)
def test_members_and_zeros_between_them_unpack_to_their_content(parts, zeros, size) -> None:
    content = b"".join(parts)
    stream = io.BytesIO(
        b"".join(
            gzip.compress(part) + bytes(count) for part, count in zip(parts, zeros, strict=False)
        )
    )
    assert unpack(stream, len(content)) == content
    assert first_bytes(stream, size) == content[:size]
    with pytest.raises(ImageError, match="is truncated"):
        unpack(stream, len(content) + 1)


@pytest.mark.parametrize(
    "padding",
    [
        BGZF_END,
        bytes(1),
        bytes(512),
        bytes(3 << 20),
        bytes(10) + BGZF_END + bytes(9),
        b"tail",
        b"\n",
    ],
)
def test_bytes_behind_the_last_member_do_no_harm(padding: bytes) -> None:
    assert unpack(packed(CONTENT, padding=padding), len(CONTENT)) == CONTENT
    assert unpack(packed(CONTENT, padding=padding), len(CONTENT), keep=False) == b""


def test_members_longer_than_a_single_read() -> None:
    part = bytes(5 << 20)
    content = unpack(packed(part, CONTENT, part), 2 * len(part) + len(CONTENT))
    assert content == part + CONTENT + part


@pytest.mark.parametrize("cut", [1, 4, 8, 9, 200])
def test_a_member_cut_at_any_byte_is_refused(cut: int) -> None:
    for parts in ([CONTENT], [CONTENT, CONTENT]):
        whole = packed(*parts).getvalue()
        with pytest.raises(ImageError, match="truncated"):
            unpack(io.BytesIO(whole[:-cut]), len(CONTENT) * len(parts))


@pytest.mark.parametrize("at", [-1, -5, -30])
@pytest.mark.parametrize("member", [0, 1])
def test_the_checksum_of_each_member_counts(member: int, at: int) -> None:
    members = [bytearray(gzip.compress(CONTENT)) for _ in range(2)]
    members[member][at] ^= 0xFF
    with pytest.raises(ImageError, match="truncated or damaged"):
        unpack(io.BytesIO(b"".join(members)), 2 * len(CONTENT))


def test_a_bomb_is_refused_at_twice_what_its_header_promises() -> None:
    pack = zlib.compressobj(wbits=31)
    bomb = b"".join(pack.compress(bytes(1 << 20)) for _ in range(300)) + pack.flush()
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match=r"unpacks to over .* promises 1,000,000\."):
            unpack(io.BytesIO(bomb), 1_000_000)
        assert first_bytes(io.BytesIO(bomb), 100) == bytes(100)
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


def test_as_much_again_behind_the_voxels_is_no_bomb() -> None:
    assert unpack(packed(CONTENT * 2), len(CONTENT)) == CONTENT


def test_the_trailer_is_that_of_the_last_member() -> None:
    assert trailer(packed(CONTENT)) == (zlib.crc32(CONTENT).to_bytes(4, "little").hex(), 10240)
    assert trailer(packed(CONTENT, b"xy"))[1] == 2
    assert trailer(io.BytesIO(b"short")) == ("", 0)
