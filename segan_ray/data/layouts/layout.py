"""The base of every layout: names that tell which files of a folder are one case.

A layout makes a ``Case`` of such files. The layouts themselves are in ``nifti_layout`` (2017
and later), ``vsd_layout`` (2013 and 2015) and ``msd_layout`` (Decathlon).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from segan_ray.brats import LabelCode, Modality
from segan_ray.data.layouts.entries import reason

Grade = Literal["HGG", "LGG"]

_GRADES: Final[Mapping[str, Grade]] = {"HGG": "HGG", "HG": "HGG", "LGG": "LGG", "LG": "LGG"}


@dataclass(frozen=True)
class Case:
    """One scan session of one patient: ids and paths, no voxels.

    ``channels`` is empty when each modality has a file of its own; in layouts that keep all
    of them in one 4-D file, ``images`` names that file four times and ``channels`` says where
    on its last axis each modality lies. ``problems`` are the faults of the scans that file
    names alone show, ``label_problems`` the faults of the truth; a case with problems may lack
    entries in ``images``. ``warnings`` names the files that are not read.
    """

    case: str
    patient: str
    grade: Grade | None
    images: Mapping[Modality, Path]
    label: Path | None
    problems: tuple[str, ...] = field(default=())
    channels: Mapping[Modality, int] = field(default_factory=dict)
    label_problems: tuple[str, ...] = field(default=())
    warnings: tuple[str, ...] = field(default=())

    def without_truth(self) -> Case:
        """Return the case without its truth and without the truth's problems."""
        return replace(self, label=None, label_problems=())


@dataclass(frozen=True)
class Layout(ABC):
    """How one year names its folders and files, and which label values it uses."""

    name: str
    code: LabelCode

    @abstractmethod
    def holds(self, folder: Path) -> bool:
        """Tell by its name whether ``folder`` holds a case, or cases."""

    @abstractmethod
    def read(self, folder: Path) -> tuple[Case, ...]:
        """Return the cases of such a folder, opening no image.

        Raises:
            DataError: if the file that describes the folder contradicts this layout.
        """

    def notes(self, folder: Path) -> tuple[str, ...]:  # noqa: ARG002
        """Return notes for the user on such a folder."""
        return ()

    def upload_name(self, case: Case) -> str:
        """Return the name that the challenge requires for the label map of ``case``.

        Since 2017 it is the case's name, which the case's folder has and its files begin with.
        In the Decathlon it is the name of the image file, which is the case's name too.
        """
        return f"{case.case}.nii.gz"


def grade_named(text: str) -> Grade | None:
    """Return the grade that ``text`` names, in any capitals."""
    return _GRADES.get(text.strip().upper())


def grade_of(folder: Path) -> Grade | None:
    """Return the grade that the folder around a case's folder is named after."""
    return grade_named(folder.absolute().parent.name)


def unreadable(folder: Path, case: str, patient: str, error: OSError) -> Case:
    """Return the case of a folder that cannot be read."""
    problem = f"{folder}: cannot be read ({reason(error)}). Mend its permissions or exclude it."
    return Case(case, patient, grade_of(folder), {}, None, problems=(problem,))
