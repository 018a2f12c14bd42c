"""Unpacking gzip: any number of members, padding after them, and a limit to the content.

mgzip, BGZF and pigz write several members, tapes and some copiers pad with zeros, so neither
the last bytes of a file nor its first member tell how long its content is.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final

from segan_ray.data.io.contents import GZIP
from segan_ray.data.io.headers import SLACK_BYTES, ImageError, overlong, truncated

_READ_BYTES: Final = 1 << 17  # each member copies the bytes read behind it
_PIECE_BYTES: Final = 1 << 22
_GZIP_WINDOW: Final = zlib.MAX_WBITS | 16  # zlib then checks each member's checksum and length


def trailer(stream: BinaryIO) -> tuple[str, int]:
    """Return the last checksum of ``stream``, in hex digits, and the length beside it.

    They cover the whole content if there is one member and nothing behind it.
    """
    if stream.seek(0, os.SEEK_END) < 8:
        return "", 0
    stream.seek(-8, os.SEEK_END)
    tail = stream.read(8)
    return tail[:4].hex(), int.from_bytes(tail[4:], "little")


def first_bytes(stream: BinaryIO, size: int) -> bytes:
    """Return the first ``size`` bytes of the packed content, or fewer if it is short.

    Raises:
        ImageError: if the content is damaged.
    """
    start = bytearray()
    try:
        for piece in _pieces(stream, size):
            start += piece
            if len(start) >= size:
                break
    except EOFError:
        pass  # reading on reports that the file is too short
    except zlib.error as error:
        raise _damaged(str(error)) from None
    return bytes(start[:size])


def unpack(stream: BinaryIO, promised: int, *, keep: bool = True) -> bytearray:
    """Return the first ``promised`` bytes of the packed content; no bytes unless ``keep``.

    The bytes behind them are unpacked too, for the checksums, and dropped. They may be as many
    again, but no more: a small file may hold gigabytes that its header does not promise.

    Raises:
        ImageError: if the content is damaged, shorter than ``promised``, or far longer.
    """
    content = bytearray()
    length = 0
    try:
        for piece in _pieces(stream, _PIECE_BYTES):
            if keep and length < promised:
                content += piece[: promised - length]
            length += len(piece)
            if length > 2 * promised + SLACK_BYTES:
                raise overlong(length, promised)
    except EOFError:
        if length >= promised:
            raise _damaged("it ends within its checksum") from None
    except zlib.error as error:
        raise _damaged(str(error)) from None
    if length < promised:
        raise truncated(promised)
    return content


def _pieces(stream: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield the packed content of ``stream``, at most ``size`` bytes at a time.

    Like gzip itself, it skips zeros between and after members, and any other bytes after the
    last member.

    Raises:
        EOFError: if the last member is cut short.
        zlib.error: if a member is damaged.
    """
    stream.seek(0)
    waiting = _next_member(stream, b"")
    while waiting:
        member = zlib.decompressobj(_GZIP_WINDOW)
        while not member.eof:
            piece = member.decompress(waiting, size)
            if piece:
                yield piece
            waiting = member.unconsumed_tail or (b"" if member.eof else stream.read(_READ_BYTES))
            if not (piece or waiting or member.eof):
                raise EOFError
        waiting = _next_member(stream, member.unused_data)


def _next_member(stream: BinaryIO, waiting: bytes) -> bytes:
    """Return bytes of ``stream`` that begin with a member, or no bytes after the last member."""
    waiting = waiting.lstrip(b"\0")
    while len(waiting) < len(GZIP):
        if not (read := stream.read(_READ_BYTES)):
            return b""
        waiting = (waiting + read).lstrip(b"\0")
    return waiting if waiting.startswith(GZIP) else b""


def _damaged(reason: str) -> ImageError:
    return ImageError(f"is truncated or damaged ({reason}). Copy it again from the source.")
