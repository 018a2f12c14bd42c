"""Best, median and worst case as pictures: four modalities with true and predicted outlines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw, ImageFont

from segan_ray.brats import MODALITIES, REGIONS
from segan_ray.data.store.opened_store import BRAIN_BIT, PreparedCase
from segan_ray.evaluation.figures.contours import Line, contours, dashes
from segan_ray.evaluation.figures.palette import COLOURS
from segan_ray.evaluation.metrics.scores import CaseScores, patient_scores

if TYPE_CHECKING:
    from segan_ray.evaluation.scoring.score_cases import Predict

Rank = Literal["best", "median", "worst"]

RANKS: Final[tuple[Rank, ...]] = ("best", "median", "worst")
PANEL: Final = 300
HEAD: Final = 30
FOOT: Final = 30
DASH: Final = 5
FINE: Final = 2  # drawn at twice the size and shrunk, so that slanted lines are smooth

_PAPER: Final = (16, 16, 16)
_INK: Final = (228, 228, 228)
_FAINT: Final = (170, 170, 170)


@dataclass(frozen=True)
class Slice:
    """One axial slice as it is stored, left × back: z-scored image, brain, and both outlines."""

    image: Float[np.ndarray, "modality left back"]
    brain: Bool[np.ndarray, "left back"]
    truth: Bool[np.ndarray, "region left back"]
    predicted: Bool[np.ndarray, "region left back"]
    spacing_mm: tuple[float, float]


def pick_cases(scores: Sequence[CaseScores]) -> dict[Rank, CaseScores]:
    """Return the case of the best, the median and the worst patient by mean Dice.

    Of a patient with several cases it is the one whose mean Dice is nearest the patient's. The
    lower of two middle patients is the median; one of few patients has more than one rank.
    """
    of_patients = patient_scores(scores, "dice")
    ranked = sorted(of_patients, key=lambda patient: (-of_patients[patient], patient))
    chosen = {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}
    return {rank: _typical(scores, chosen[rank], of_patients[chosen[rank]]) for rank in RANKS}


def _typical(scores: Sequence[CaseScores], patient: str, dice: float) -> CaseScores:
    cases = [case for case in scores if case.patient == patient]
    return min(cases, key=lambda case: (abs(_mean_dice(case) - dice), case.case))


def _mean_dice(scores: CaseScores) -> float:
    return float(np.mean([scores.regions[region].dice for region in REGIONS]))


def draw_showcase(
    predict: Predict, cases: Sequence[PreparedCase], scores: Sequence[CaseScores]
) -> Iterator[tuple[Rank, Image.Image]]:
    """Yield the picture of each rank; ``scores`` are those of ``cases``."""
    by_name = {case.record.case: case for case in cases}
    drawn: dict[str, Image.Image] = {}
    for rank, chosen in pick_cases(scores).items():
        case = by_name[chosen.case]
        if chosen.case not in drawn:
            predicted = predict(case)
            position = fullest_slice(_truth(case), predicted)
            drawn[chosen.case] = draw_slice(
                _slice_of(case, predicted, position),
                f"{chosen.case}, slice {position + case.record.origin[2]}",
                {region: chosen.regions[region].dice for region in REGIONS},
            )
        yield rank, drawn[chosen.case]


def fullest_slice(
    truth: Bool[np.ndarray, "region slice left back"],
    predicted: Bool[np.ndarray, "region slice left back"],
) -> int:
    """Return the slice with most tumour, true or predicted, so that errors of both kinds show."""
    return int(np.argmax((truth[0] | predicted[0]).sum(axis=(1, 2))))


def _truth(case: PreparedCase) -> Bool[np.ndarray, "region slice left back"]:
    mask = case.mask()
    return np.stack([mask & (1 << bit) != 0 for bit in range(len(REGIONS))])


def _slice_of(
    case: PreparedCase, predicted: Bool[np.ndarray, "region slice left back"], position: int
) -> Slice:
    return Slice(
        image=case.image()[position].astype(np.float32),
        brain=case.mask()[position] & BRAIN_BIT != 0,
        truth=_truth(case)[:, position],
        predicted=predicted[:, position],
        spacing_mm=case.record.spacing_mm[:2],
    )


def draw_slice(shown: Slice, name: str, dice: Mapping[str, float]) -> Image.Image:
    """Return the four modalities in a row, labelled with the case's name and its Dice.

    Truth is outlined solid, the prediction dashed, each region in its colour. The picture can be
    cut in the middle: no word and no panel crosses it. It has 256 colours, to stay small.
    """
    width = PANEL * len(MODALITIES)
    sheet = Image.new("RGB", (width, HEAD + PANEL + FOOT), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    draw.text((8, 6), _fitted(draw, name, width // 2 - 16, font), fill=_INK, font=font)
    draw.text((width // 2 + 8, 6), "Dice", fill=_INK, font=font)
    left = width // 2 + 52.0
    for region in REGIONS:
        text = f"{region} {dice[region]:.3f}"
        draw.text((left, 6), text, fill=COLOURS[region], font=font)
        left += draw.textlength(text, font=font) + 18
    for column, modality in enumerate(MODALITIES):
        corner = (column * PANEL, HEAD)
        sheet.paste(_panel(shown, shown.image[column]), corner)
        draw.text((corner[0] + 8, HEAD + 4), modality, fill=_FAINT, font=font)
    _legend(draw, HEAD + PANEL + 6, font)
    return sheet.quantize(palette=_palette(), dither=Image.Dither.NONE)


@lru_cache(maxsize=1)
def _palette() -> Image.Image:
    """Return 136 greys, and each region's colour laid over 8 greys in 5 strengths: 256 colours.

    A palette fitted to the picture would have more greys and lose the thin outlines.
    """
    greys = np.repeat(np.linspace(0, 255, 136)[:, None], 3, axis=1)
    under = np.repeat(np.linspace(0, 255, 8)[:, None], 3, axis=1)
    mixed = [
        strength * np.array(COLOURS[region]) + (1 - strength) * under
        for region in REGIONS
        for strength in (0.25, 0.45, 0.65, 0.85, 1.0)
    ]
    holder = Image.new("P", (1, 1))
    holder.putpalette(np.concatenate([greys, *mixed]).round().astype(np.uint8).tobytes())
    return holder


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _fitted(draw: ImageDraw.ImageDraw, text: str, width: int, font: Font) -> str:
    while draw.textlength(text, font=font) > width:
        text = f"{text[:-2]}…"
    return text


def _legend(draw: ImageDraw.ImageDraw, top: int, font: Font) -> None:
    left = 8.0
    for region in REGIONS:
        draw.text((left, top), region, fill=COLOURS[region], font=font)
        left += draw.textlength(region, font=font) + 18
    middle = top + 9
    left += 14
    for name, solid in (("truth", True), ("prediction", False)):
        for start in (0, 2 * DASH, 4 * DASH):
            end = start + (2 * DASH if solid else DASH)
            draw.line([(left + start, middle), (left + end, middle)], fill=_INK, width=2)
        left += 6 * DASH + 8
        draw.text((left, top), name, fill=_INK, font=font)
        left += draw.textlength(name, font=font) + 22


def _panel(shown: Slice, image: Float[np.ndarray, "left back"]) -> Image.Image:
    """Return one modality upright in a square, cropped to the brain and true to mm."""
    box = _box(shown)
    # Stored slices run left × back; on the page that is across × down, as radiologists look.
    grey = np.where(shown.brain, np.clip((image + 2.5) / 6, 0, 1) * 255, 0)[box].T
    height, width = grey.shape
    scale = FINE * PANEL / max(width * shown.spacing_mm[0], height * shown.spacing_mm[1])
    across, down = (scale * step for step in shown.spacing_mm)
    size = (max(1, round(width * across)), max(1, round(height * down)))
    upright = Image.fromarray(grey.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    square = Image.new("RGB", (FINE * PANEL, FINE * PANEL), _PAPER)
    corner = ((FINE * PANEL - size[0]) // 2, (FINE * PANEL - size[1]) // 2)
    square.paste(upright.convert("RGB"), corner)
    draw = ImageDraw.Draw(square)
    for regions, solid in ((shown.truth, True), (shown.predicted, False)):
        for name, region in zip(REGIONS, regions, strict=True):
            for line in contours(region[box].T):
                placed = _smooth(line) * (across, down) + corner
                _trace(draw, placed, COLOURS[name], solid=solid)
    return square.resize((PANEL, PANEL), Image.Resampling.LANCZOS)


def _box(shown: Slice) -> tuple[slice, slice]:
    """Return the smallest box of the brain and all outlines, or the whole slice if it is empty."""
    seen = shown.brain | shown.truth.any(axis=0) | shown.predicted.any(axis=0)
    if not seen.any():
        return slice(None), slice(None)
    spans = [np.flatnonzero(seen.any(axis=axis)) for axis in (1, 0)]
    x, y = (slice(int(span[0]), int(span[-1]) + 1) for span in spans)
    return x, y


def _smooth(line: Line) -> Line:
    """Smooth the steps of pixels on a closed line; a short line stays as it is."""
    if len(line) < 12:
        return line
    smooth: Line = (np.roll(line, 1, axis=0) + 2 * line + np.roll(line, -1, axis=0)) / 4
    return smooth


def _trace(
    draw: ImageDraw.ImageDraw, line: Line, colour: tuple[int, int, int], *, solid: bool
) -> None:
    pieces = [np.concatenate([line, line[:2]])] if solid else list(dashes(line, FINE * DASH))
    for piece in pieces:
        points = [(float(x), float(y)) for x, y in piece]
        draw.line(points, fill=colour, width=3 if solid else 5, joint="curve")
