"""BRATS 2017 and later: a folder of NIfTI files a case, named after it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from segan_ray.brats import CODE_2017_TO_2021, CODE_2023, CODE_2024, MODALITIES, Modality
from segan_ray.data.layouts import Case, Layout, grade_of, only_one, visible_files


@dataclass(frozen=True)
class NiftiLayout(Layout):
    """A folder a case; its files are called case, separator, suffix, ``.nii`` or ``.nii.gz``.

    ``case`` matches the name of a case folder; its optional group ``patient`` holds what the
    time points of one patient share.
    """

    case: re.Pattern[str]
    separator: str
    suffixes: Mapping[Modality, str]
    label_suffix: str = "seg"

    def holds(self, folder: Path) -> bool:
        """Tell by its name whether ``folder`` is a case."""
        return self.case.fullmatch(folder.name) is not None

    def read(self, folder: Path) -> tuple[Case, ...]:
        """Return the one case of ``folder``."""
        problems: list[str] = []
        images: dict[Modality, Path] = {}
        files = visible_files(folder)
        for modality in MODALITIES:
            stem = f"{folder.name}{self.separator}{self.suffixes[modality]}"
            path = only_one(_endings(stem, files), problems, below=folder)
            if path is None:
                problems.append(
                    f"the {modality} volume is missing: expected {stem}.nii.gz in {folder}."
                )
            else:
                images[modality] = path
        labels = _endings(f"{folder.name}{self.separator}{self.label_suffix}", files)
        # BraTS20_Training_355 ships its mask as W39_1998.09.19_Segm.nii.
        labels = labels or [path for path in files if re.search(r"_Segm\.nii(\.gz)?$", path.name)]
        case = Case(
            case=folder.name,
            patient=self.patient(folder.name),
            grade=grade_of(folder),
            images=images,
            label=only_one(labels, problems, below=folder),
            problems=tuple(problems),
        )
        return (case,)

    def patient(self, case: str) -> str:
        """Return the patient of ``case``: the time points of one patient share it."""
        match = self.case.fullmatch(case)
        groups = match.groupdict() if match else {}
        return groups.get("patient") or case


def _endings(stem: str, files: list[Path]) -> list[Path]:
    return [path for path in files if path.name in {f"{stem}.nii.gz", f"{stem}.nii"}]


_CLASSIC: Final[Mapping[Modality, str]] = {modality: modality for modality in MODALITIES}
_SINCE_2023: Final[Mapping[Modality, str]] = {
    "t1": "t1n",
    "t1ce": "t1c",
    "t2": "t2w",
    "flair": "t2f",
}
_GLI: Final = re.compile(r"(?P<patient>BraTS-GLI-\d{5})-\d{3}")


def _classic(name: str, case: str) -> NiftiLayout:
    return NiftiLayout(name, CODE_2017_TO_2021, re.compile(case), "_", _CLASSIC)


NIFTI_LAYOUTS: Final[tuple[NiftiLayout, ...]] = (
    _classic("brats2017", r"Brats17_\w+"),
    _classic("brats2018", r"Brats18_\w+"),
    _classic("brats2019", r"BraTS19_\w+"),
    _classic("brats2020", r"BraTS20_\w+"),
    _classic("brats2021", r"BraTS2021_\d{5}"),
    NiftiLayout("brats2023", CODE_2023, _GLI, "-", _SINCE_2023),
    # Named like 2023, so only ``--layout`` tells it apart: label 4 changed its meaning.
    NiftiLayout("brats2024", CODE_2024, _GLI, "-", _SINCE_2023),
)
