"""``dataset.json`` of the Decathlon and of nnU-Net: channels, labels and files, checked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from segan_ray.brats import CODE_MSD, MODALITIES, Modality
from segan_ray.data.layouts.entries import reason
from segan_ray.documents import (
    LIST_BYTES,
    LONGEST_NUMBER,
    BoundsError,
    DocumentError,
    parse_json,
    read_bytes,
)
from segan_ray.errors import DataError, cut

_KEYS: Final = ("modality", "channel_names")  # the Decathlon's and nnU-Net v2's
# The keys are in lower case, without other characters than letters and digits.
_MODALITIES: Final[Mapping[str, Modality]] = {
    **dict.fromkeys(("flair", "t2flair", "t2f", "flairw", "t2wflair"), "flair"),
    **dict.fromkeys(("t1", "t1w", "t1n", "t1native"), "t1"),
    **dict.fromkeys(
        ("t1gd", "t1ce", "t1c", "t1wgd", "t1wce", "t1cw", "t1post", "t1contrast", "cet1", "cet1w"),
        "t1ce",
    ),
    **dict.fromkeys(("t2", "t2w"), "t2"),
}
_EXPECTED: Final = "expected FLAIR, T1w, t1gd, T2w, each once, in channels 0 to 3"
# The first matching pattern gives the meaning of a label's name; the values are CODE_MSD's.
_MEANINGS: Final[tuple[tuple[str, str, frozenset[frozenset[int]]], ...]] = (
    (r"background", "background", frozenset({frozenset({0})})),
    (r"whole|^wt$", "whole tumour", frozenset({CODE_MSD.whole, frozenset({1})})),
    (
        r"o?edema|^ed$|snfh|hyperintens|invaded",
        "edema",
        frozenset({CODE_MSD.whole - CODE_MSD.core}),
    ),
    (
        r"non-?\s*_?enh|necro|cyst|^ncr|^net",
        "non-enhancing tumour",
        frozenset({CODE_MSD.core - CODE_MSD.enhancing}),
    ),
    (r"enhanc|^et$|^at$", "enhancing tumour", frozenset({CODE_MSD.enhancing})),
    (r"core|^tc$", "tumour core", frozenset({CODE_MSD.core, frozenset({2})})),
)


@dataclass(frozen=True)
class DatasetFile:
    """The content of the file: channels (empty if it names none) and names of listed files."""

    exists: bool = False
    channels: Mapping[Modality, int] = field(default_factory=dict)
    images: Set[str] = frozenset()
    labels: Set[str] = frozenset()
    tests: Set[str] = frozenset()


def read_dataset_file(file: Path) -> DatasetFile:
    """Read ``dataset.json``; a missing file gives an empty ``DatasetFile``.

    Raises:
        DataError: if it is not JSON, does not name each of the four modalities once, or gives the
            labels another meaning than the Decathlon does.
    """
    document = _read(file)
    if document is None:
        return DatasetFile()
    channels = [_channels(file, key, document[key]) for key in _KEYS if key in document]
    if len(channels) == 2 and channels[0] != channels[1]:
        raise DataError(
            f'{file}: "modality" and "channel_names" order the channels differently. Keep the one '
            "that is right."
        )
    if "labels" in document:
        _check_labels(file, document["labels"])
    return DatasetFile(
        exists=True,
        channels=channels[0] if channels else {},
        images=frozenset(_names(document.get("training"), "image")),
        labels=frozenset(_names(document.get("training"), "label")),
        tests=frozenset(_names(document.get("test"), "image")),
    )


def _read(file: Path) -> Mapping[str, Any] | None:
    if not file.exists() and not file.is_symlink():
        return None
    try:
        # Bytes, since json detects the UTF encoding and the byte order mark.
        document = parse_json(read_bytes(file, LIST_BYTES))
    except BoundsError as error:
        raise DataError(f"{file}: {error}.") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({reason(error)}).") from None
    except UnicodeDecodeError:
        raise DataError(f"{file}: is not JSON in UTF-8. Save it in UTF-8.") from None
    except DocumentError as error:
        raise DataError(f"{file}: is not JSON ({error}). Copy it again from the source.") from None
    if not isinstance(document, dict):
        raise DataError(f"{file}: holds no JSON object. Copy it again from the source.")
    return document


def _channels(file: Path, key: str, stacked: object) -> Mapping[Modality, int]:
    if not isinstance(stacked, dict) or not all(map(_is_count, stacked)):
        raise DataError(
            f'{file}: "{key}" must map channels to names, such as "0": "FLAIR"; '
            f"found {json.dumps(stacked)[:80]}."
        )
    channels: dict[Modality, int] = {}
    for index, name in stacked.items():
        modality = _MODALITIES.get(re.sub(r"[^a-z0-9]", "", str(name).lower()))
        if modality is None:
            raise DataError(
                f"{file}: the modality of channel {index} is {cut(repr(name))}; {_EXPECTED}."
            )
        if modality in channels:
            raise DataError(f"{file}: names {cut(name)} twice; {_EXPECTED}.")
        channels[modality] = int(index)
    expected = {"flair": "FLAIR", "t1": "T1w", "t1ce": "t1gd", "t2": "T2w"}
    missing = [name for modality, name in expected.items() if modality not in channels]
    if missing:
        raise DataError(f"{file}: names no channel for {', '.join(missing)}; {_EXPECTED}.")
    if set(channels.values()) != set(range(len(MODALITIES))):
        numbers = ", ".join(map(str, sorted(channels.values())))
        raise DataError(f"{file}: names channels {numbers}; {_EXPECTED}.")
    return channels


def _check_labels(file: Path, labels: object) -> None:
    """Refuse labels whose names contradict this layout's code; unknown names pass."""
    for name, values in _named_values(labels):
        for pattern, meaning, allowed in _MEANINGS:
            if re.search(pattern, name.strip().lower()):
                if values not in allowed:
                    codes = ", ".join(map(str, sorted(values)))
                    raise DataError(
                        f"{file}: label {cut(codes)} is {cut(repr(name))}; this layout has 1 "
                        f"edema, 2 non-enhancing, 3 enhancing, so {meaning} is another. Write the "
                        'segmentations in that code, and mend "labels".'
                    )
                break


def _named_values(labels: object) -> Iterator[tuple[str, frozenset[int]]]:
    """Yield name and values of each label; the Decathlon maps values to names, nnU-Net v2 names."""
    if not isinstance(labels, dict):
        return
    for key, value in labels.items():
        if _is_count(key):
            yield str(value), frozenset({int(key)})
        else:
            values = value if isinstance(value, list) else [value]
            if all(map(_is_count, values)):  # some writers quote them
                yield str(key), frozenset(int(number) for number in values)


def _is_count(text: object) -> bool:
    """Tell whether ``text`` is a whole number, and short enough to be converted."""
    return str(text).isdecimal() and len(str(text)) <= LONGEST_NUMBER


def _names(listed: object, key: str) -> Iterator[str]:
    """Yield the names of the files of a list, without their folders."""
    for item in listed if isinstance(listed, list) else []:
        name = item.get(key) if isinstance(item, dict) else item if key == "image" else None
        if isinstance(name, str):
            yield PurePosixPath(name.replace("\\", "/")).name
