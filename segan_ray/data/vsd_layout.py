"""BRATS 2013 and 2015, as the Virtual Skeleton Database gave them out.

Every volume is a MetaImage in a folder of its own: ``VSD.Brain.XX.O.MR_T1c.54514`` holds
``VSD.Brain.XX.O.MR_T1c.54514.mha``, and the folder of the truth ends in ``OT`` instead of
``MR_…``. In 2013 the folders lack the number. The truth of 2013's synthetic cases is called
``VSD.Gray_matter…OT``; it has codes of its own and is not read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from segan_ray.brats import CODE_UNTIL_2015, MODALITIES, Modality
from segan_ray.data.layouts import Case, Layout, grade_of, only_one, visible_files

VSD_KINDS: Final[Mapping[Modality, str]] = {
    "t1": "MR_T1",
    "t1ce": "MR_T1c",
    "t2": "MR_T2",
    "flair": "MR_Flair",
}
VSD_TRUTH: Final = "OT"

_VOLUME: Final = re.compile(r"VSD\.Brain.*\.(?P<kind>MR_T1|MR_T1c|MR_T2|MR_Flair|OT)(?:\.\d+)?")

_NUMBER: Final = re.compile(r"(\.\d+)\.mha$")


@dataclass(frozen=True)
class VsdLayout(Layout):
    """A folder a case, in it a folder a volume.

    ``case`` matches the last two parts of the path of a case folder, ``HGG/brats_…``. Its
    group ``case`` is the case's name (without it, both parts joined by ``_``), its group
    ``patient`` what the time points of one patient share (without it, the case's name).
    """

    case: re.Pattern[str]

    def holds(self, folder: Path) -> bool:
        """Tell by its name, and that of the folder around it, whether ``folder`` is a case."""
        return self._match(folder) is not None

    def read(self, folder: Path) -> tuple[Case, ...]:
        """Return the one case of ``folder``."""
        match = self._match(folder)
        groups = match.groupdict() if match else {}
        name = groups.get("case") or "_".join(folder.absolute().parts[-2:])
        problems: list[str] = []
        volumes = {
            kind: only_one(paths, problems, below=folder)
            for kind, paths in _volumes(folder, problems).items()
        }
        images: dict[Modality, Path] = {}
        for modality in MODALITIES:
            kind = VSD_KINDS[modality]
            if path := volumes.get(kind):
                images[modality] = path
            else:
                problems.append(
                    f"the {modality} volume is missing: expected an .mha file in a folder "
                    f"VSD.Brain*.{kind}* in {folder}."
                )
        case = Case(
            case=name,
            patient=groups.get("patient") or name,
            grade=grade_of(folder),
            images=images,
            label=volumes.get(VSD_TRUTH),
            problems=tuple(problems),
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


def _volumes(folder: Path, problems: list[str]) -> dict[str, list[Path]]:
    """Return the images of each kind; a truth folder without any is a problem."""
    volumes: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        match = _VOLUME.fullmatch(path.name)
        if match is None or not path.is_dir():
            continue
        found = [file for file in visible_files(path) if file.suffix == ".mha"]
        if not found and match["kind"] == VSD_TRUTH:
            problems.append(f"{path.name} holds no .mha file. Copy it again from the source.")
        volumes.setdefault(match["kind"], []).extend(found)
    return volumes


VSD_LAYOUTS: Final[tuple[VsdLayout, ...]] = (
    # HG/0001 and LG/0001 are two patients, so the grade is part of the name.
    VsdLayout("brats2013", CODE_UNTIL_2015, re.compile(r"(?:HGG?|LGG?)/\d{4}")),
    VsdLayout(
        "brats2015",
        CODE_UNTIL_2015,
        re.compile(r"[^/]*/(?P<case>(?P<patient>brats_\w+_pat\d+)_\d+)"),
    ),
)
