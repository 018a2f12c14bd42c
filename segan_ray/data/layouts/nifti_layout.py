"""BRATS 2017 and later: a folder of NIfTI files a case, named after it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from segan_ray.brats import CODE_2017_TO_2021, CODE_2023, CODE_2024, MODALITIES, Modality
from segan_ray.data.layouts.entries import (
    ARCHIVES,
    NIFTI_ENDINGS,
    Entry,
    called,
    count_dicom,
    images_in,
    is_folder,
    is_image_name,
    only_one,
    plain,
    visible,
)
from segan_ray.data.layouts.layout import Case, Layout, grade_of, unreadable

# Words in the names of truth files.
_TRUTH: Final = re.compile(
    r"(?i)(?<![a-z])(segm?|segmentation|labels?|mask|gt|truth|groundtruth|annotation|ot)(?![a-z])"
)


@dataclass(frozen=True)
class NiftiLayout(Layout):
    """A folder a case; its files are called case, separator, suffix, ``.nii`` or ``.nii.gz``.

    ``case`` matches the name of a case folder; its optional group ``patient`` is the part that
    the time points of one patient share. ``example`` is such a name. Files are recognised with
    any capitals and separators, and inside a folder of their name.
    """

    case: re.Pattern[str]
    example: str
    separator: str
    suffixes: Mapping[Modality, str]
    label_suffix: str = "seg"

    def holds(self, folder: Path) -> bool:
        """Tell whether ``folder`` is named like a case and is no folder around cases."""
        return self.case.fullmatch(folder.name) is not None and not self._surrounds(folder)

    def read(self, folder: Path) -> tuple[Case, ...]:
        """Return the one case of ``folder``."""
        patient = self.patient(folder.name)
        try:
            entries = images_in(folder)
            files = visible(folder)
        except OSError as error:
            return (unreadable(folder, folder.name, patient, error),)
        others = [path for path in files if not is_image_name(path.name, NIFTI_ENDINGS)]
        scans = {modality: called(self._stem(folder, modality), entries) for modality in MODALITIES}
        labels = self._labels(folder, entries)
        taken = {entry.path for group in (*scans.values(), labels) for entry in group}
        spare = [entry for entry in entries if entry.path not in taken]
        problems: list[str] = []
        label_problems: list[str] = []
        complete = all(scans.values())
        images: dict[Modality, Path] = {}
        for modality, candidates in scans.items():
            if path := only_one(candidates, problems, below=folder):
                images[modality] = path
            elif not candidates:
                problems.append(self._missing(folder, modality, spare, others))
        case = Case(
            case=folder.name,
            patient=patient,
            grade=grade_of(folder),
            images=images,
            label=only_one(labels, label_problems, below=folder),
            problems=tuple(problems),
            label_problems=tuple(label_problems),
            warnings=tuple(self._unread(folder, labels, spare, others)) if complete else (),
        )
        return (case,)

    def patient(self, case: str) -> str:
        """Return the patient of ``case``: the time points of one patient share it."""
        match = self.case.fullmatch(case)
        groups = match.groupdict() if match else {}
        return groups.get("patient") or case

    def _stem(self, folder: Path, modality: Modality | None) -> str:
        suffix = self.label_suffix if modality is None else self.suffixes[modality]
        return f"{folder.name}{self.separator}{suffix}"

    def _surrounds(self, folder: Path) -> bool:
        """Tell whether ``folder`` holds case folders and no image, like an unpacked archive."""
        try:
            inside = visible(folder)
        except OSError:
            return False
        parts = {plain(self._stem(folder, modality)) for modality in (*MODALITIES, None)}
        return not any(is_image_name(path.name) for path in inside) and any(
            self.case.fullmatch(path.name) and plain(path.name) not in parts and is_folder(path)
            for path in inside
        )

    def _labels(self, folder: Path, entries: Sequence[Entry]) -> list[Entry]:
        # BraTS20_Training_355 ships its mask as W39_1998.09.19_Segm.nii.
        return called(self._stem(folder, None), entries) or [
            entry for entry in entries if plain(entry.name).endswith("-segm")
        ]

    def _missing(
        self, folder: Path, modality: Modality, spare: Sequence[Entry], others: Sequence[Path]
    ) -> str:
        candidates = [entry.name for entry in spare]
        if count := count_dicom(others):
            candidates.append(f"{count} DICOM files (convert them to NIfTI)")
        stem = self._stem(folder, modality)
        # Packed files, and the remains of broken downloads.
        like = re.compile(rf"{re.escape(plain(stem))}(?![a-z0-9])")
        candidates += [
            path.name
            for path in others
            if path.name.casefold().endswith(ARCHIVES) or like.search(plain(path.name))
        ]
        hint = f" Found instead: {_listed(candidates)}." if candidates else ""
        return f"the {modality} volume is missing: expected {stem}.nii.gz in {folder}.{hint}"

    def _unread(
        self,
        folder: Path,
        labels: Sequence[Entry],
        spare: Sequence[Entry],
        others: Sequence[Path],
    ) -> Iterator[str]:
        """Yield warnings of unread files in the folder of a case, where they may matter."""
        for entry in labels:
            if entry.problem and any(not other.problem for other in labels):
                yield f"{entry.path}: not read: {entry.problem}"
        if not labels:
            stem = self._stem(folder, None)
            spare_names = [entry.name for entry in spare if not entry.problem]
            spare_names += [
                path.name
                for path in others
                if not is_folder(path)
                and (_TRUTH.search(path.name) or plain(stem) in plain(path.name))
            ]
            if spare_names:
                yield (
                    f"{folder}: no {stem}.nii.gz, but {_listed(spare_names)}, which is not read. "
                    "If it is the segmentation, make it a NIfTI file of that name."
                )
            spare = [entry for entry in spare if entry.problem]
        for entry in spare:
            if entry.wrapped or (entry.problem and not labels):
                yield f"{entry.path}: not read: {entry.problem or 'a folder of another name.'}"


def _listed(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


_CLASSIC: Final[Mapping[Modality, str]] = {modality: modality for modality in MODALITIES}
_SINCE_2023: Final[Mapping[Modality, str]] = {
    "t1": "t1n",
    "t1ce": "t1c",
    "t2": "t2w",
    "flair": "t2f",
}
# Adult glioma, and the challenges beside it whose labels mean the same: Africa (SSA), meningioma
# (MEN), metastases (MET) and all of them mixed (GoAT, which has no time points).
_SINCE_2023_CASE: Final = re.compile(
    r"(?P<patient>BraTS-(?:(?:GLI|SSA|MEN|MET)-\d{5}(?=-\d{3})|GoAT-\d{5}))(?:-\d{3})?"
)


def _classic(name: str, case: str, example: str) -> NiftiLayout:
    return NiftiLayout(name, CODE_2017_TO_2021, re.compile(case), example, "_", _CLASSIC)


_EXAMPLE_2023: Final = "BraTS-GLI-00005-000"
NIFTI_LAYOUTS: Final[tuple[NiftiLayout, ...]] = (
    _classic("brats2017", r"Brats17_\w+", "Brats17_TCIA_167_1"),
    _classic("brats2018", r"Brats18_\w+", "Brats18_TCIA01_131_1"),
    _classic("brats2019", r"BraTS19_\w+", "BraTS19_TCIA01_131_1"),
    _classic("brats2020", r"BraTS20_\w+", "BraTS20_Training_001"),
    _classic("brats2021", r"BraTS2021_\d{5}", "BraTS2021_00000"),
    NiftiLayout("brats2023", CODE_2023, _SINCE_2023_CASE, _EXAMPLE_2023, "-", _SINCE_2023),
    # Named like 2023, so only ``--layout`` tells it apart: label 4 changed its meaning.
    NiftiLayout("brats2024", CODE_2024, _SINCE_2023_CASE, _EXAMPLE_2023, "-", _SINCE_2023),
)
