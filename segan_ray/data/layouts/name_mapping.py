"""``name_mapping.csv``, which BraTS 2018 to 2020 ship beside the cases: the grade of each."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

from segan_ray.data.layouts.entries import reason
from segan_ray.data.layouts.layout import Case, Grade, grade_named
from segan_ray.documents import LIST_BYTES, BoundsError, read_text
from segan_ray.errors import said

_NAME: Final = "name_mapping.csv"
_ID_COLUMN: Final = re.compile(r"brats_?\d{2,4}_subject_?id", re.IGNORECASE)
_GRADE_COLUMN: Final = "grade"


def is_name_mapping(name: str) -> bool:
    """Tell whether a file of that name gives grades."""
    return name.casefold() == _NAME


def with_grades(
    cases: Iterable[Case], tables: Iterable[Path]
) -> tuple[tuple[Case, ...], list[str]]:
    """Return the cases with the grades of ``tables``, and notes on rows that were not read.

    A grade from the folder around a case takes precedence.
    """
    notes: list[str] = []
    grades: dict[str, Grade] = {}
    for table in tables:
        for case, grade in _read(table, notes).items():
            if grades.setdefault(case, grade) != grade:
                notes.append(f"{table}: gives {case} another grade than the table read before.")
    return tuple(
        case if case.grade else replace(case, grade=grades.get(case.case.casefold()))
        for case in cases
    ), notes


def _read(table: Path, notes: list[str]) -> dict[str, Grade]:
    try:
        text = read_text(table, LIST_BYTES, encoding="utf-8-sig")
    except BoundsError as error:
        notes.append(f"{table}: {error}; no grade comes from it.")
        return {}
    except OSError as error:
        notes.append(f"{table}: cannot be read ({reason(error)}); no grade comes from it.")
        return {}
    except UnicodeDecodeError:
        notes.append(f"{table}: is no text in UTF-8; no grade comes from it.")
        return {}
    try:
        rows = list(csv.reader(text.splitlines(), delimiter=_delimiter(text)))
    except csv.Error as error:
        notes.append(f"{table}: is no table ({said(error)}); no grade comes from it.")
        return {}
    return _grades(table, rows, notes)


def _delimiter(text: str) -> str:
    first = text.split("\n", 1)[0]
    return max(",;\t", key=first.count)


def _grades(table: Path, rows: list[list[str]], notes: list[str]) -> dict[str, Grade]:
    header = [cell.strip() for cell in rows[0]] if rows else []
    columns = [index for index, name in enumerate(header) if _ID_COLUMN.fullmatch(name)]
    grade_columns = [index for index, name in enumerate(header) if name.casefold() == _GRADE_COLUMN]
    if not columns or len(grade_columns) != 1:
        notes.append(
            f"{table}: no grade comes from it; expected columns Grade and BraTS_20dd_subject_ID, "
            f"found {', '.join(header)[:80] or 'nothing'}."
        )
        return {}
    grades: dict[str, Grade] = {}
    odd = 0
    for row in filter(any, rows[1:]):
        cells = dict(enumerate(cell.strip() for cell in row))
        grade = grade_named(cells.get(grade_columns[0], ""))
        names = {cells.get(index, "").casefold() for index in columns} - {"", "na", "nan"}
        if grade is None or any(grades.get(name, grade) != grade for name in names):
            odd += 1
        else:
            grades |= dict.fromkeys(names, grade)
    if odd:
        notes.append(f"{table}: {odd} rows say neither HGG nor LGG, or both of one case; not read.")
    return grades
