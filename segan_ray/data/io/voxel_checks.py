"""Checks of voxels in plain arrays, which return problems in words.

Each check returns every problem it finds, without naming the file. ``read_volume`` raises the
first problem of ``intensity_problems`` and ``label_problems``. ``inspect`` lists them all and
adds problems that reading does not refuse (``truth_problems``, ``stripping_problems``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from jaxtyping import Bool, Float32, Real, UInt8

from segan_ray.brats import CODE_2017_TO_2021, CODE_2023, CODE_MSD, LabelCode, Modality
from segan_ray.data.io.background import foreground

STRIPPING_RATIO: Final = 1.3
STRIPPING_OUTSIDE: Final = 0.1
OUTER_RATIO: Final = 2
_LABEL_TOLERANCE: Final = 0.02
_LABEL_ROUNDING: Final = 1e-3
_LISTED: Final = 5


def intensity_problems(voxels: Float32[np.ndarray, "x y z"]) -> tuple[str, ...]:
    """Return why a scan is useless: its voxels are no numbers, or all the same."""
    if not voxels.size:
        return ("holds no voxel at all; expected a scan. Re-export it or exclude the case.",)
    numbers, problems = voxels, []
    low, high = voxels.min(), voxels.max()
    if not np.isfinite([low, high]).all():
        finite = np.isfinite(voxels)
        problems.append(
            f"holds NaN or infinite voxels ({_share(~finite)}); expected numbers alone. "
            "Re-export the volume or exclude the case."
        )
        numbers = voxels[finite]
        if numbers.size:
            low, high = numbers.min(), numbers.max()
    if numbers.size and low == high:
        problems.append(
            f"every voxel is {numbers.flat[0]:g}; expected a scan. "
            "Re-export it or exclude the case."
        )
    return tuple(problems)


def label_problems(voxels: Real[np.ndarray, "*axes"], code: LabelCode) -> tuple[str, ...]:
    """Return why ``voxels`` cannot be a segmentation in ``code``: no numbers, fractions, codes.

    Fractions come from interpolation, which also makes whole numbers of no meaning (3 between
    2 and 4): where there are fractions, values outside the code are not reported as well.
    Whole numbers that a header's scale or rounding moved a little are no fractions: see
    ``as_labels``.
    """
    finite = np.isfinite(voxels)
    problems = []
    if not finite.all():
        problems.append(
            f"holds NaN or infinite labels ({_share(~finite)}); expected whole numbers. "
            "Export the segmentation again."
        )
        voxels = voxels[finite]
    fractional = voxels != np.rint(voxels)
    values = np.unique(voxels[fractional])
    if not _is_moved(values, voxels):
        problems.append(
            f"holds labels that are no whole numbers ({_listed(values)}; "
            f"{_share(fractional)}), as interpolation makes them. "
            "Resample the original segmentation with nearest neighbour."
        )
        return tuple(problems)
    if values.size:
        voxels = np.rint(voxels)
    present = np.unique(voxels)
    unknown = present[~np.isin(present, [0, *code.names])]
    if unknown.size:
        expected = ", ".join(f"{value} {name}" for value, name in code.names.items())
        mend = _mend(code, voxels, {int(value) for value in present})
        problems.append(f"holds label {_listed(unknown)}; this layout knows 0, {expected}.{mend}")
    return tuple(problems)


def as_labels(voxels: Real[np.ndarray, "x y z"]) -> UInt8[np.ndarray, "x y z"]:
    """Return the labels that ``voxels`` stand for; ``label_problems`` must have found no problem.

    Labels are often stored through a scale that does not give them back exactly: 0, 64, 127 and
    255 times 4/255 are 0, 1.00392, 1.99216 and 4. The rule: each value lies within
    ``_LABEL_TOLERANCE`` of a whole number, and all values near one whole number are equal but
    for ``_LABEL_ROUNDING``. Interpolation makes values between, or several near one number.
    """
    whole = voxels if voxels.dtype.kind in "iu" else np.rint(voxels)
    return whole.astype(np.uint8)


def _is_moved(fractions: Real[np.ndarray, "value"], voxels: Real[np.ndarray, "..."]) -> bool:
    """Tell whether ``fractions``, sorted, are whole numbers that a scale moved a little."""
    whole = np.rint(fractions)
    if (np.abs(fractions - whole) > _LABEL_TOLERANCE).any():
        return False
    for number in np.unique(whole):
        near = fractions[whole == number]
        ends = [near[0], near[-1], *([number] if (voxels == number).any() else [])]
        if max(ends) - min(ends) > _LABEL_ROUNDING:
            return False
    return True


def _mend(code: LabelCode, voxels: Real[np.ndarray, "..."], present: set[int]) -> str:
    """Say which other code explains the labels ``present``, and what to do then."""
    if code == CODE_2023 and 4 in present:
        if 3 in present:
            return " 4 beside 3 is the resection cavity of 2024: say --layout brats2024."
        return (
            " 4 without any 3 is the resection cavity of 2024 (then say --layout brats2024) or "
            "the enhancing tumour of 2017 to 2021 (then write 3 in its place)."
        )
    if code == CODE_2017_TO_2021 and 3 in present:
        if 4 in present:
            return " 3 beside 4 is non-enhancing tumour until 2015: write 1 in its place."
        return (
            " 3 without any 4 may be the enhancing tumour of nnU-Net and the Decathlon, where 1 is "
            "edema and 2 core (then write 2 for 1, 1 for 2, 4 for 3), the enhancing tumour since "
            "2023, where 1 is core and 2 edema (then write 4 for 3), or the non-enhancing tumour "
            f"until 2015 (then write 1 for 3). Edema surrounds the core.{_outer(voxels)}"
        )
    if code == CODE_MSD and 4 in present:
        beside, year, rest = (
            ("beside", "until 2015", "2 for 3 and 3 for 4")
            if 3 in present
            else ("without any", "of 2017 to 2021", "3 for 4")
        )
        return (
            f" 4 {beside} 3 may be the enhancing tumour of BRATS {year}, where 1 is core and 2 "
            f"edema (then write 2 for 1, 1 for 2, {rest})."
        )
    return " Look up what it means where the segmentation comes from, or exclude the case."


def _outer(voxels: Real[np.ndarray, "..."]) -> str:
    """Say which of labels 1 and 2 lies around the other, if one clearly does."""
    touching = {1: 0, 2: 0}  # faces that the label shares with background
    for axis in range(voxels.ndim):
        low = np.take(voxels, range(voxels.shape[axis] - 1), axis=axis)
        high = np.take(voxels, range(1, voxels.shape[axis]), axis=axis)
        for label in touching:
            faces = ((low == label) & (high == 0)) | ((low == 0) & (high == label))
            touching[label] += int(np.count_nonzero(faces))
    inner, outer = sorted(touching, key=lambda label: touching[label])
    if touching[outer] < OUTER_RATIO * max(touching[inner], 1):
        return " Here neither 1 nor 2 clearly surrounds the other: look at the images."
    explained = "nnU-Net and the Decathlon have" if outer == 1 else "BRATS itself has"
    return f" Here {outer} lies outside, as {explained} it."


def truth_problems(label: UInt8[np.ndarray, "x y z"], code: LabelCode) -> tuple[str, ...]:
    """Return why a segmentation in ``code`` is useless as truth: it has no voxel of any region."""
    if np.isin(label, sorted(code.whole)).any():
        return ()
    return ("holds no voxel of any region; expected a tumour. Segment it or exclude the case.",)


def stripping_problems(
    images: Mapping[Modality, Float32[np.ndarray, "x y z"]],
) -> dict[Modality, str]:
    """Return the modalities that still show the skull while the others do not.

    The rule: a modality shows more than ``STRIPPING_RATIO`` times the median number of voxels
    of the others, and voxels that are background in all others make up more than
    ``STRIPPING_OUTSIDE`` of that median. The second half spares a modality whose neighbours
    were scanned in part. ``background`` finds skulls in several modalities.
    All arrays share one shape; fewer than three are too few to compare.
    """
    if len(images) < 3:
        return {}
    shown = {modality: foreground(voxels) for modality, voxels in images.items()}
    counts = {modality: int(np.count_nonzero(mask)) for modality, mask in shown.items()}
    problems: dict[Modality, str] = {}
    for modality, mask in shown.items():
        others = [name for name in shown if name != modality]
        usual = float(np.median([counts[name] for name in others]))
        if usual == 0 or counts[modality] <= STRIPPING_RATIO * usual:
            continue
        union = np.logical_or.reduce([shown[name] for name in others])
        outside = int(np.count_nonzero(mask & ~union))
        if outside > STRIPPING_OUTSIDE * usual:
            problems[modality] = (
                f"has {counts[modality] / usual:.1f} times the non-zero voxels of the other "
                f"modalities, {outside:,} of them where all others are 0; expected one "
                "skull-stripped brain on a background of 0 in all four. "
                "Strip the skull as in the others or exclude the case."
            )
    return problems


def _share(wrong: Bool[np.ndarray, "..."]) -> str:
    return f"{np.count_nonzero(wrong):,} of {wrong.size:,} voxels"


def _listed(values: Real[np.ndarray, "value"]) -> str:
    listed = ", ".join(f"{value:g}" for value in values[:_LISTED])
    return f"{listed}, …" if len(values) > _LISTED else listed
