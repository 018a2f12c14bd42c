"""The lines of text in front of a MetaImage's voxels, with the meaning that ITK gives them.

ITK itself does not read them: some wrong lines (``NDims = -1``) corrupt its memory, and after
others it returns voxels from wrong positions. A header that ITK would guess at is refused here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Float

from segan_ray.data.io.contents import not_expected
from segan_ray.data.io.headers import ImageError, times

HEADER_BYTES: Final = 1 << 16
_PLACE: Final = b"ElementDataFile"
_NAME: Final = re.compile(r"\s*(\w+)\s*[=:]")
_OFFSETS: Final = ("Offset", "Origin", "Position")
_MATRICES: Final = ("TransformMatrix", "Rotation", "Orientation")
_ORDERS: Final = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
_SPACINGS: Final = ("ElementSpacing", "ElementSize")
_SWITCH: Final = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_TYPES: Final = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_SHOWN: Final = 40


@dataclass(frozen=True)
class MetaHeader:
    """How the voxels lie in a file, from byte ``offset`` on, and in space.

    Positions are ITK's, along left, back and head: axis ``i`` of the array runs along column
    ``i`` of ``direction``. ``placed`` tells whether the header says where the voxels lie.
    ``packed_size`` is the length of compressed voxels, if the header says it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    compressed: bool
    packed_size: int | None
    spacing_mm: Float[np.ndarray, "3"]
    origin_mm: Float[np.ndarray, "3"]
    direction: Float[np.ndarray, "3 3"]
    placed: bool

    @property
    def size(self) -> int:
        """How many bytes the voxels have, once unpacked."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def affine(self) -> Float[np.ndarray, "4 4"]:
        """The affine from voxels to mm along left, back and head."""
        lps = np.eye(4)
        lps[:3, :3] = self.direction * self.spacing_mm
        lps[:3, 3] = self.origin_mm
        return lps


def parse(start: bytes) -> MetaHeader:
    """Read the header at the ``start`` of a file; ElementDataFile is its last line.

    Raises:
        ImageError: saying what the file is instead, or what is wrong with the header.
    """
    fields, offset = _fields(start)
    shape = _shape(fields)
    compressed = _switch(fields, "CompressedData")
    if not _switch(fields, "BinaryData", default=True):
        raise wrong("BinaryData is False, voxels as text; expected True")
    _check_start(fields, offset, compressed)
    axes = len(shape)
    matrix = _same(fields, _MATRICES, axes * axes, np.eye(axes).ravel())
    spacing_mm = _spacing_mm(fields, axes)
    turns = np.where(spacing_mm < 0, -1.0, 1.0)  # a negative step runs the other way
    return MetaHeader(
        shape=shape,
        dtype=_dtype(fields),
        offset=offset,
        compressed=compressed,
        packed_size=_whole(fields, "CompressedDataSize") if compressed else None,
        spacing_mm=np.abs(spacing_mm),
        origin_mm=_same(fields, _OFFSETS, axes, np.zeros(axes))[:3],
        direction=matrix.reshape(axes, axes).T[:3, :3] * turns,
        placed=not {*_OFFSETS, *_MATRICES}.isdisjoint(fields),
    )


def wrong(what: str) -> ImageError:
    """Return the error of a header that says ``what``."""
    return ImageError(f"has a header that is wrong: {what}. Re-export the volume.")


def _fields(start: bytes) -> tuple[dict[str, str], int]:
    """Return the fields of the header, and the offset of the first byte behind it."""
    if start.count(_PLACE) > 1:  # the second may name any file of this machine
        raise ImageError(
            f"says more than once where its voxels are ({_PLACE.decode()}); expected them within, "
            "said once. Re-export the volume."
        )
    last = re.search(rb"^%b[ \t]*=[ \t]*(\S+)[ \t]*\r?\n" % _PLACE, start, re.MULTILINE)
    if last is None:
        raise not_expected(start[:1024], "a MetaImage (.mha)")
    if last[1] != b"LOCAL":
        raise ImageError(
            f"keeps its voxels in another file ({_shown(last[1].decode('latin-1'))}); expected "
            "them within. Re-export the volume."
        )
    fields: dict[str, str] = {}
    for line in re.split(r"[\r\n]+", start[: last.start()].decode("latin-1")):
        if not line.strip():
            continue
        if (match := _NAME.match(line)) is None:
            raise wrong(f"the line {_shown(line)} is no 'name = value'")
        name, value = match[1], line[match.end() :].strip()
        if fields.setdefault(name, value) != value and name != "Comment":
            raise wrong(f"{_shown(name)} is there twice, with two values")
    return fields, last.end()


def _shape(fields: Mapping[str, str]) -> tuple[int, ...]:
    words = _words(fields, "DimSize")
    stated = fields.get("NDims", "missing")
    shape = tuple(_integer("DimSize", word) for word in words[:5])
    grid = times(shape)
    if len(words) not in {3, 4} or stated != str(len(words)):
        raise ImageError(
            f"says NDims {_shown(stated)} and has {grid} voxels; expected a 3-D volume. "
            "Re-export it as one."
        )
    if min(shape) < 1:
        raise ImageError(f"has {grid} voxels; expected a 3-D volume.")
    return shape


def _dtype(fields: Mapping[str, str]) -> np.dtype[Any]:
    kind = fields.get("ElementType", "unknown")
    many = fields.get("ElementNumberOfChannels", "1")
    if kind not in _TYPES or many != "1":
        raise ImageError(
            f"holds {_shown(many)} × {_shown(kind)} in each voxel; expected one number."
        )
    orders = {_switch(fields, name) for name in _ORDERS if name in fields}
    if len(orders) > 1:
        raise wrong(f"{' and '.join(_ORDERS)} differ")
    return np.dtype(_TYPES[kind]).newbyteorder(">" if orders == {True} else "<")


def _check_start(fields: Mapping[str, str], offset: int, compressed: bool) -> None:
    """Refuse a HeaderSize by which the voxels begin elsewhere than behind the header.

    -1 means that the voxels, if they are not compressed, end with the file.
    """
    begin = _whole(fields, "HeaderSize", least=-1) or 0
    if begin not in {0, offset} and (compressed or begin != -1):
        raise wrong(f"HeaderSize is {begin}; expected 0, as voxels begin behind the header")


def _spacing_mm(fields: Mapping[str, str], axes: int) -> Float[np.ndarray, "3"]:
    name = next((name for name in _SPACINGS if name in fields), None)
    spacing = np.ones(axes) if name is None else _numbers(fields, name, axes)
    if not spacing.all():
        raise wrong(f"{name} is {_shown(fields[str(name)])}; expected lengths that are not 0")
    return spacing[:3]


def _same(
    fields: Mapping[str, str], names: tuple[str, ...], count: int, default: np.ndarray
) -> Float[np.ndarray, " count"]:
    """Return the value of the fields ``names``, which mean the same and must agree."""
    values = [_numbers(fields, name, count) for name in names if name in fields]
    if any((numbers != values[0]).any() for numbers in values):
        raise wrong(f"{' and '.join(name for name in names if name in fields)} differ")
    return values[0] if values else default


def _numbers(fields: Mapping[str, str], name: str, count: int) -> Float[np.ndarray, " count"]:
    words = _words(fields, name)
    try:
        numbers = np.array([float(word) for word in words])
    except ValueError:
        numbers = np.array([])
    if len(numbers) != count or not np.isfinite(numbers).all() or "_" in fields[name]:
        raise wrong(f"{name} is {_shown(fields[name])}; expected {count} numbers")
    return numbers


def _whole(fields: Mapping[str, str], name: str, *, least: int = 0) -> int | None:
    if not fields.get(name):
        return None
    number = _integer(name, fields[name])
    if number < least:
        raise wrong(f"{name} is {number}")
    return number


def _integer(name: str, word: str) -> int:
    if re.fullmatch(r"[+-]?[0-9]{1,18}", word) is None:
        raise wrong(f"{name} is {_shown(word)}; expected whole numbers")
    return int(word)


def _switch(fields: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    word = fields.get(name)
    if word is None:
        return default
    if word.lower() not in _SWITCH:
        raise wrong(f"{name} is {_shown(word)}; expected True or False")
    return _SWITCH[word.lower()]


def _words(fields: Mapping[str, str], name: str) -> list[str]:
    if name not in fields:
        raise wrong(f"{name} is missing")
    return fields[name].split()


def _shown(value: str) -> str:
    return value if len(value) <= _SHOWN and value.isprintable() else ascii(value[:_SHOWN]) + "…"
