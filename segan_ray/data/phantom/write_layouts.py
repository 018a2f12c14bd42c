"""The folders and file names of each BRATS year, for writing phantoms."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from segan_ray.brats import CODE_MSD, MODALITIES, Modality
from segan_ray.data.layouts.layout import Grade
from segan_ray.data.layouts.msd_layout import DATASET_FILE, MSD_CHANNELS
from segan_ray.data.layouts.nifti_layout import NIFTI_LAYOUTS
from segan_ray.data.layouts.vsd_layout import VSD_KINDS, VSD_TRUTH

SEGMENTATION: Final = "seg"
IMAGES: Final = "images"  # all modalities in one file


@dataclass(frozen=True)
class Session:
    """The number of a patient and of one of their scans, both from 0."""

    patient: int
    time_point: int


@dataclass(frozen=True)
class SessionFiles:
    """The name of a case, and the paths of its parts below the folder of all cases.

    A part is a modality, ``IMAGES`` or ``SEGMENTATION``. ``entries`` are the files or folders
    that appear one after the other, in this order.
    """

    case: str
    files: Mapping[str, str]
    entries: tuple[str, ...]


def _no_documents(out: Path) -> Mapping[str, str]:  # noqa: ARG001
    return {}


@dataclass(frozen=True)
class PhantomLayout:
    """How one year names its folders and files.

    ``case``, ``folder`` and ``files`` are templates: ``{patient}`` and ``{time_point}`` count
    from ``first_patient`` and ``first_time_point``, ``{grade}`` is the name that ``grades``
    has for it, ``{case}`` is the case's name and ``{number}`` differs from file to file. With
    an empty ``folder`` all cases share one folder. ``documents`` gives the text of files beside
    the cases, made when all cases exist.
    """

    case: str
    files: Mapping[str, str]
    folder: str = "{case}"
    grades: Mapping[Grade, str] | None = None
    first_patient: int = 0
    first_time_point: int = 0
    time_points: bool = False
    documents: Callable[[Path], Mapping[str, str]] = _no_documents

    def session(self, index: int) -> Session:
        """Return the session of case ``index``; with time points, every third patient has two."""
        if not self.time_points:
            return Session(index, 0)
        group, rank = divmod(index, 4)
        return Session(3 * group + max(rank - 1, 0), int(rank == 1))

    def session_files(self, session: Session, grade: Grade) -> SessionFiles:
        """Return the paths of that session's files."""
        names = {
            "patient": session.patient + self.first_patient,
            "time_point": session.time_point + self.first_time_point,
            "grade": self.grades[grade] if self.grades else grade,
        }
        case = self.case.format(**names)
        folder = self.folder.format(case=case, **names)
        first_number = 54512 + (2 * session.patient + session.time_point) * len(self.files)
        files = {
            part: str(PurePosixPath(folder, file.format(case=case, number=first_number + rank)))
            for rank, (part, file) in enumerate(self.files.items())
        }
        return SessionFiles(case, files, (folder,) if folder else tuple(files.values()))


def _vsd(truth: str, number: str) -> dict[str, str]:
    """Return a folder and file for each part; ``number`` ends the folder's name."""
    stems: dict[str, str] = {part: f"VSD.Brain.XX.O.{kind}" for part, kind in VSD_KINDS.items()}
    stems[SEGMENTATION] = f"{truth}.{VSD_TRUTH}"
    return {part: f"{stem}{number}/{stem}.{{number}}.mha" for part, stem in stems.items()}


def _nifti(separator: str, suffixes: Mapping[Modality, str]) -> dict[str, str]:
    kinds: dict[str, str] = {modality: suffixes[modality] for modality in MODALITIES}
    kinds[SEGMENTATION] = "seg"
    return {part: f"{{case}}{separator}{kind}.nii.gz" for part, kind in kinds.items()}


def _decathlon_documents(out: Path) -> Mapping[str, str]:
    """Return ``dataset.json`` for the cases that exist."""
    names = sorted(path.name for path in (out / "imagesTr").glob("BRATS_*.nii.gz"))
    document = {
        "name": "BRATS",
        "description": "Synthetic gliomas in the layout of the Decathlon's Task01",
        "tensorImageSize": "4D",
        "modality": {str(channel): name for channel, name in enumerate(MSD_CHANNELS)},
        "labels": {str(value): name for value, name in {0: "background", **CODE_MSD.names}.items()},
        "numTraining": len(names),
        "numTest": 0,
        "training": [
            {"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names
        ],
        "test": [],
    }
    return {DATASET_FILE: json.dumps(document, indent=2) + "\n"}


_NIFTI_FILES: Final = {
    layout.name: _nifti(layout.separator, layout.suffixes) for layout in NIFTI_LAYOUTS
}
_HGG_LGG: Final[Mapping[Grade, str]] = {"HGG": "HGG", "LGG": "LGG"}


def _graded(name: str, case: str) -> PhantomLayout:
    return PhantomLayout(
        case, _NIFTI_FILES[name], "{grade}/{case}", grades=_HGG_LGG, first_patient=1
    )


def _follow_up(name: str, first_time_point: int) -> PhantomLayout:
    return PhantomLayout(
        "BraTS-GLI-{patient:05d}-{time_point:03d}",
        _NIFTI_FILES[name],
        first_time_point=first_time_point,
        time_points=True,
    )


PHANTOM_LAYOUTS: Final[Mapping[str, PhantomLayout]] = {
    "brats2013": PhantomLayout(
        "{grade}_{patient:04d}",
        _vsd("VSD.Brain_3more.XX.XX", number=""),
        "{grade}/{patient:04d}",
        grades={"HGG": "HG", "LGG": "LG"},
        first_patient=1,
    ),
    "brats2015": PhantomLayout(
        "brats_tcia_pat{patient:03d}_{time_point:04d}",
        _vsd("VSD.Brain_3more.XX.O", number=".{number}"),
        "{grade}/{case}",
        grades=_HGG_LGG,
        first_patient=101,
        first_time_point=1,
        time_points=True,
    ),
    "brats2017": _graded("brats2017", "Brats17_TCIA_{patient:03d}_1"),
    "brats2018": _graded("brats2018", "Brats18_TCIA01_{patient:03d}_1"),
    "brats2019": _graded("brats2019", "BraTS19_TCIA01_{patient:03d}_1"),
    "brats2020": PhantomLayout(
        "BraTS20_Training_{patient:03d}", _NIFTI_FILES["brats2020"], first_patient=1
    ),
    "brats2021": PhantomLayout("BraTS2021_{patient:05d}", _NIFTI_FILES["brats2021"]),
    "brats2023": _follow_up("brats2023", first_time_point=0),
    "brats2024": _follow_up("brats2024", first_time_point=100),
    "msd": PhantomLayout(
        "BRATS_{patient:03d}",
        # Truth first: an image without it would pass for a case that has none.
        {SEGMENTATION: "labelsTr/{case}.nii.gz", IMAGES: "imagesTr/{case}.nii.gz"},
        folder="",
        first_patient=1,
        documents=_decathlon_documents,
    ),
}
