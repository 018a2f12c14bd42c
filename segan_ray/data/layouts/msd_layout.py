"""Task01 of the Medical Segmentation Decathlon: all modalities of a case in one 4-D file.

``imagesTr/BRATS_001.nii.gz`` has its truth in ``labelsTr/BRATS_001.nii.gz``; ``imagesTs``
has none. ``dataset.json`` beside them says in which order the modalities are stacked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from segan_ray.brats import CODE_MSD, MODALITIES, Modality
from segan_ray.data.layouts.dataset_file import read_dataset_file
from segan_ray.data.layouts.entries import Entry, called, images_in, only_one, reason
from segan_ray.data.layouts.layout import Case, Layout
from segan_ray.errors import DataError

DATASET_FILE: Final = "dataset.json"
# In the order in which the Decathlon stacks them.
MSD_CHANNELS: Final[Mapping[str, Modality]] = {
    "FLAIR": "flair",
    "T1w": "t1",
    "t1gd": "t1ce",
    "T2w": "t2",
}

_CASE: Final = re.compile(r"(?P<case>BRATS_\d+)(?:\.nii(?:\.gz)?)?", re.IGNORECASE)
_SINGLE_CHANNEL: Final = re.compile(r".*_\d{4}\.nii(?:\.gz)?", re.IGNORECASE)


@dataclass(frozen=True)
class MsdLayout(Layout):
    """``imagesTr``, ``labelsTr`` and ``imagesTs`` beside a ``dataset.json``."""

    def holds(self, folder: Path) -> bool:
        """Tell by its name whether ``folder`` is a folder of images."""
        return folder.name in {"imagesTr", "imagesTs"}

    def read(self, folder: Path) -> tuple[Case, ...]:
        """Return the cases of a folder of images.

        Raises:
            DataError: if ``dataset.json`` contradicts this layout, or a folder cannot be read.
        """
        root = folder.parent
        images, _ = _by_case(folder)
        labels = _by_case(root / "labelsTr")[0] if folder.name == "imagesTr" else {}
        names = sorted({*images, *labels})
        if not names:  # another task of the Decathlon
            return ()
        dataset = read_dataset_file(root / DATASET_FILE)
        listed = _listed(dataset.labels) if folder.name == "imagesTr" else set()
        channels = dataset.channels or dict(zip(MSD_CHANNELS.values(), range(4), strict=True))
        return tuple(
            _case(
                name,
                folder,
                images.get(name, []),
                labels.get(name, []),
                channels,
                listed=name in listed,
            )
            for name in names
        )

    def notes(self, folder: Path) -> tuple[str, ...]:
        """Return notes on guessed channels and on images that are not read."""
        root = folder.parent
        notes: list[str] = []
        images, others = _by_case(folder)
        beside = _by_case(root / "labelsTr")[1] if folder.name == "imagesTr" else []
        if images:
            dataset = read_dataset_file(root / DATASET_FILE)
            listed = _listed(dataset.images if folder.name == "imagesTr" else dataset.tests)
            if absent := sorted(listed - set(images)):
                notes.append(
                    f"{root / DATASET_FILE}: lists {len(absent)} images that are not in {folder}, "
                    f"first {absent[0]}."
                )
            if not dataset.channels:
                what = "names no channels" if dataset.exists else "is missing"
                notes.append(
                    f"{root / DATASET_FILE}: {what}; the channels are taken in the Decathlon's "
                    f"order, {', '.join(MSD_CHANNELS)}."
                )
        single = [entry for entry in others if _SINGLE_CHANNEL.fullmatch(entry.name)]
        if single:
            notes.append(
                f"{folder}: not read: {len(single)} single-channel files of nnU-Net (first "
                f"{single[0].name}); expected 4-D files BRATS_ddd.nii.gz of four channels. Give "
                "the folder they were converted from, or stack the channels of each case."
            )
        for entries, location in ((others, folder), (beside, root / "labelsTr")):
            rest = [entry for entry in entries if entry not in single]
            if rest and (images or not single):
                notes.append(
                    f"{location}: not read: {len(rest)} images called unlike BRATS_ddd.nii.gz, "
                    f"first {rest[0].name}."
                )
        return tuple(notes)


MSD_LAYOUT: Final = MsdLayout("msd", CODE_MSD)


def _by_case(folder: Path) -> tuple[dict[str, list[Entry]], list[Entry]]:
    """Return the images by case, and the images that are named like no case."""
    by_case: dict[str, list[Entry]] = {}
    others: list[Entry] = []
    if not folder.is_dir():
        return by_case, others
    try:
        entries = images_in(folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({reason(error)}).") from None
    for entry in entries:
        if match := _CASE.fullmatch(entry.name):
            by_case.setdefault(match["case"].upper(), []).append(entry)
        else:
            others.append(entry)
    return by_case, others


def _listed(names: Set[str]) -> set[str]:
    return {match["case"].upper() for name in names if (match := _CASE.fullmatch(name))}


def _case(
    name: str,
    folder: Path,
    images: list[Entry],
    labels: list[Entry],
    channels: Mapping[Modality, int],
    *,
    listed: bool,
) -> Case:
    problems: list[str] = []
    label_problems: list[str] = []
    image = only_one(called(name, images), problems, below=folder.parent)
    if not images:
        problems.append(f"the images are missing: expected {name}.nii.gz in {folder}.")
    if listed and not labels:
        label_problems.append(
            f"the segmentation is missing: {DATASET_FILE} lists it; expected {name}.nii.gz in "
            f"{folder.parent / 'labelsTr'}. Copy it from the source, or take it off the list."
        )
    return Case(
        case=name,
        patient=name,
        grade=None,
        images={} if image is None else dict.fromkeys(MODALITIES, image),
        label=only_one(called(name, labels), label_problems, below=folder.parent),
        problems=tuple(problems),
        channels=channels,
        label_problems=tuple(label_problems),
    )
