"""Task01 of the Medical Segmentation Decathlon: all modalities of a case in one 4-D file.

``imagesTr/BRATS_001.nii.gz`` has its truth in ``labelsTr/BRATS_001.nii.gz``; ``imagesTs``
has none. ``dataset.json`` beside them says in which order the modalities are stacked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from segan_ray.brats import CODE_MSD, MODALITIES, Modality
from segan_ray.data.layouts import Case, Layout, only_one, visible_files
from segan_ray.errors import DataError

DATASET_FILE: Final = "dataset.json"
# In the order in which the Decathlon stacks them.
MSD_CHANNELS: Final[Mapping[str, Modality]] = {
    "FLAIR": "flair",
    "T1w": "t1",
    "t1gd": "t1ce",
    "T2w": "t2",
}

_IMAGE: Final = re.compile(r"(?P<case>BRATS_\d+)\.nii(?:\.gz)?")


@dataclass(frozen=True)
class MsdLayout(Layout):
    """``imagesTr``, ``labelsTr`` and ``imagesTs`` beside a ``dataset.json``."""

    def holds(self, folder: Path) -> bool:
        """Tell by its name whether ``folder`` is one of images."""
        return folder.name in {"imagesTr", "imagesTs"}

    def read(self, folder: Path) -> tuple[Case, ...]:
        """Return the cases of a folder of images.

        Raises:
            DataError: ``dataset.json`` names other modalities than these four.
        """
        root = folder.parent
        images = _by_case(folder)
        labels = _by_case(root / "labelsTr") if folder.name == "imagesTr" else {}
        names = sorted({*images, *labels})
        if not names:  # another task of the Decathlon
            return ()
        channels = read_channels(root / DATASET_FILE)
        return tuple(
            _case(name, folder, images.get(name, []), labels.get(name, []), channels)
            for name in names
        )


MSD_LAYOUT: Final = MsdLayout("msd", CODE_MSD)


def read_channels(file: Path) -> Mapping[Modality, int]:
    """Return the channel of each modality: as ``dataset.json`` says, else as published.

    Raises:
        DataError: the file is not JSON, or does not name each of the four modalities once.
    """
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        document = {}
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: is not JSON ({error}). Copy it again from the source.") from None
    if not isinstance(document, dict):
        raise DataError(f"{file}: holds no JSON object. Copy it again from the source.")
    if "modality" not in document:
        return {modality: index for index, modality in enumerate(MSD_CHANNELS.values())}
    return _parse_channels(file, document["modality"])


def _parse_channels(file: Path, stacked: object) -> Mapping[Modality, int]:
    if not isinstance(stacked, dict) or not all(str(key).isdecimal() for key in stacked):
        raise DataError(
            f'{file}: "modality" must map channels to names, such as "0": "FLAIR"; '
            f"found {json.dumps(stacked)[:80]}."
        )
    known = {name.lower(): modality for name, modality in MSD_CHANNELS.items()}
    expected = f"expected {', '.join(MSD_CHANNELS)}, each once, in channels 0 to 3"
    channels: dict[Modality, int] = {}
    for index, name in stacked.items():
        modality = known.get(str(name).lower())
        if modality is None:
            raise DataError(f"{file}: the modality of channel {index} is {name!r}; {expected}.")
        if modality in channels:
            raise DataError(f"{file}: names {name} twice; {expected}.")
        channels[modality] = int(index)
    missing = [name for name, modality in MSD_CHANNELS.items() if modality not in channels]
    if missing:
        raise DataError(f"{file}: names no channel for {', '.join(missing)}; {expected}.")
    if set(channels.values()) != set(range(len(MODALITIES))):
        found = ", ".join(map(str, sorted(channels.values())))
        raise DataError(f"{file}: names channels {found}; {expected}.")
    return channels


def _by_case(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in visible_files(folder):
        if match := _IMAGE.fullmatch(path.name):
            found.setdefault(match["case"], []).append(path)
    return found


def _case(
    name: str,
    folder: Path,
    images: list[Path],
    labels: list[Path],
    channels: Mapping[Modality, int],
) -> Case:
    problems: list[str] = []
    image = only_one(images, problems, below=folder.parent)
    if image is None:
        problems.append(f"the images are missing: expected {name}.nii.gz in {folder}.")
    return Case(
        case=name,
        patient=name,
        grade=None,
        images={} if image is None else dict.fromkeys(MODALITIES, image),
        label=only_one(labels, problems, below=folder.parent),
        problems=tuple(problems),
        channels=channels,
    )
