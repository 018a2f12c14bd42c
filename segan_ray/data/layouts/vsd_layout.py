"""BRATS 2013 and 2015, as the Virtual Skeleton Database distributed them.

Every volume is a MetaImage in a folder of its own: ``VSD.Brain.XX.O.MR_T1c.54514`` holds
``VSD.Brain.XX.O.MR_T1c.54514.mha``, and the folder of the truth ends in ``OT`` instead of
``MR_…``. In 2013 the folders lack the number.

The truth of 2013's synthetic cases, ``VSD.Brain_1more.XX.O.OT`` (1 edema, 2 core) and
``VSD.Gray_matter…OT``, has codes of its own and is not read. Real cases of 2013 are called
``….XX.XX.OT``; in 2015 all are ``….XX.O.OT.<id>``. ``1more`` to ``3more`` count the labels that
a truth has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from segan_ray.brats import CODE_UNTIL_2015, MODALITIES, Modality
from segan_ray.data.layouts.entries import ENDINGS, NO_IMAGE, Entry, image_at, only_one, visible
from segan_ray.data.layouts.layout import Case, Layout, grade_of, unreadable

VSD_KINDS: Final[Mapping[Modality, str]] = {
    "t1": "MR_T1",
    "t1ce": "MR_T1c",
    "t2": "MR_T2",
    "flair": "MR_Flair",
}
VSD_TRUTH: Final = "OT"

_VOLUME: Final = re.compile(
    r"VSD\.Brain.*\.(?P<kind>MR_T1|MR_T1c|MR_T2|MR_Flair|OT)(?:\.\d+)?(?:\.mha)?", re.IGNORECASE
)
_ANY_TRUTH: Final = re.compile(r"VSD\..*\.OT(?:\.\d+)?(?:\.mha)?", re.IGNORECASE)
_SYNTHETIC: Final = re.compile(r"VSD\.Brain_1more\.XX\.O\.OT(?:\.\d+)?(?:\.mha)?", re.IGNORECASE)
_KINDS: Final = {kind.lower(): kind for kind in (*VSD_KINDS.values(), VSD_TRUTH)}
_ENDINGS: Final = (".mha",)

_NUMBER: Final = re.compile(r"(\.\d+)\.mha$")


@dataclass(frozen=True)
class VsdLayout(Layout):
    """A folder a case, in it a folder a volume.

    ``case`` matches the last two parts of the path of a case folder, ``HGG/brats_…``. Its
    group ``case`` is the case's name (without it, both parts joined by ``_``), its group
    ``patient`` the part that time points of one patient share (without it, the case's name).
    ``synthetic`` says that there are synthetic cases beside the real ones.
    """

    case: re.Pattern[str]
    synthetic: bool = False

    def holds(self, folder: Path) -> bool:
        """Tell by its name, and that of the folder around it, whether ``folder`` is a case."""
        return self._match(folder) is not None

    def read(self, folder: Path) -> tuple[Case, ...]:
        """Return the one case of ``folder``."""
        match = self._match(folder)
        groups = match.groupdict() if match else {}
        name = groups.get("case") or _joined(folder)
        patient = groups.get("patient") or name
        try:
            paths = visible(folder)
        except OSError as error:
            return (unreadable(folder, name, patient, error),)
        unread = [path for path in paths if self._is_foreign(path)]
        volumes = _volumes([path for path in paths if path not in unread])
        problems: list[str] = []
        images: dict[Modality, Path] = {}
        for modality in MODALITIES:
            kind = VSD_KINDS[modality]
            if path := only_one(volumes.get(kind, []), problems, below=folder):
                images[modality] = path
            elif not volumes.get(kind):
                problems.append(
                    f"the {modality} volume is missing: expected an .mha file in a folder "
                    f"VSD.Brain*.{kind}* in {folder}."
                )
        label_problems: list[str] = []
        truth = volumes.get(VSD_TRUTH, [])
        case = Case(
            case=name,
            patient=patient,
            grade=grade_of(folder),
            images=images,
            label=only_one(truth, label_problems, below=folder),
            problems=tuple(problems),
            label_problems=(*_empty_truths(paths, unread), *label_problems),
            warnings=(*map(_why_unread, unread), *(() if truth else _spare(folder, paths))),
        )
        return (case,)

    def upload_name(self, case: Case) -> str:
        """Return ``VSD.<description>.<id>.mha``, as the Virtual Skeleton Database wanted it.

        The id is the number of the FLAIR volume, by which the database found the truth to
        compare with (instructions for uploads, http://blog.smir.ch/BRATS/Start2014).
        """
        number = _NUMBER.search(case.images["flair"].name) if "flair" in case.images else None
        return f"VSD.Seg_{case.case}{number[1] if number else ''}.mha"

    def _match(self, folder: Path) -> re.Match[str] | None:
        return self.case.fullmatch("/".join(folder.absolute().parts[-2:]))

    def _is_foreign(self, path: Path) -> bool:
        """Tell whether ``path`` is a truth in another code than this layout's."""
        if not _ANY_TRUTH.fullmatch(path.name):
            return False
        made = any("synthetic" in part.lower() for part in path.absolute().parts[-5:-1])
        synthetic = self.synthetic and (made or _SYNTHETIC.fullmatch(path.name) is not None)
        return synthetic or _VOLUME.fullmatch(path.name) is None


def _joined(folder: Path) -> str:
    grade, number = folder.absolute().parts[-2:]
    return f"{grade.upper()}_{number}"


def _volumes(paths: Sequence[Path]) -> dict[str, list[Entry]]:
    """Return the images of each kind, in folders of their own or not."""
    volumes: dict[str, list[Entry]] = {}
    for path in paths:
        match = _VOLUME.fullmatch(path.name)
        if match is None:
            continue
        entry = image_at(path, _ENDINGS)
        if entry.problem != NO_IMAGE:
            volumes.setdefault(_KINDS[match["kind"].lower()], []).append(entry)
    return volumes


def _empty_truths(paths: Sequence[Path], unread: Sequence[Path]) -> Iterator[str]:
    for path in paths:
        if path in unread or not _ANY_TRUTH.fullmatch(path.name):
            continue
        if image_at(path, _ENDINGS).problem == NO_IMAGE:
            yield f"{path.name} holds no .mha file. Copy it again from the source."


def _spare(folder: Path, paths: Sequence[Path]) -> Iterator[str]:
    """Yield warnings of files that may be the missing truth of a case, under another name."""
    names = [path.name for path in paths if not _ANY_TRUTH.fullmatch(path.name)]
    for name in names:
        entry = image_at(folder / name, ENDINGS)
        if _VOLUME.fullmatch(name) is None and entry.problem != NO_IMAGE:
            yield (
                f"{folder / name}: not read. If it is the segmentation, make it an .mha file in a "
                "folder VSD.Brain_3more*.OT*."
            )


def _why_unread(path: Path) -> str:
    return (
        f"{path}: not read: a truth in a code of its own, as the synthetic cases of 2013 have it "
        "(VSD.Brain_1more.XX.O.OT: 1 edema, 2 core). The case counts as having no segmentation."
    )


VSD_LAYOUTS: Final[tuple[VsdLayout, ...]] = (
    # HG/0001 and LG/0001 are two patients, so the grade is part of the name.
    VsdLayout("brats2013", CODE_UNTIL_2015, re.compile(r"(?i:HGG?|LGG?)/\d{4}"), synthetic=True),
    VsdLayout(
        "brats2015",
        CODE_UNTIL_2015,
        re.compile(r"[^/]*/(?P<case>(?P<patient>brats_\w+_pat\d+)_\d+)"),
    ),
)
