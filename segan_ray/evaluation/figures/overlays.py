"""Pictures of slices with the outlines of truth and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw
from scipy.ndimage import zoom
from torch import nn

from segan_ray.brats import MODALITIES, REGIONS
from segan_ray.data.store.opened_store import BRAIN_BIT, PreparedCase
from segan_ray.evaluation.figures.palette import COLOURS, draw_outlines
from segan_ray.evaluation.inference.inference_settings import InferenceSettings
from segan_ray.evaluation.inference.predict_box import BoxArrays, predict_slice

SHOWN: Final = ("flair", "t1ce")
PANEL: Final = 288
CAPTION: Final = 18
CASES: Final = 3


def draw_overlay(
    segmentor: nn.Module, cases: Sequence[PreparedCase], settings: InferenceSettings
) -> Image.Image:
    """Return a picture of the first cases' fullest slices: truth beside prediction.

    Each case is a row. Its columns are FLAIR and T1ce with the true outlines, then with the
    predicted. The slices depend on the truth alone, so the pictures of all trials compare.
    """
    rows = []
    for case in cases[:CASES]:
        position = int(np.argmax(case.record.tumour_voxels))
        predicted = predict_slice(segmentor, BoxArrays.of_case(case), settings, position)
        rows.append(_row(case, position, predicted))
    titles = [f"{name} {kind}" for kind in ("truth", "prediction") for name in SHOWN]
    return _sheet(rows, titles)


def _row(
    case: PreparedCase, position: int, predicted: Bool[np.ndarray, "region height width"]
) -> tuple[str, list[UInt8[np.ndarray, "height width rgb"]]]:
    mask = case.mask()[position]
    truth = np.stack([mask & (1 << bit) != 0 for bit in range(len(REGIONS))])
    image = case.image()[position].astype(np.float32)
    panels = [
        outlined(image[MODALITIES.index(name)], mask & BRAIN_BIT != 0, regions)
        for regions in (truth, predicted)
        for name in SHOWN
    ]
    return f"{case.record.case}, slice {position + case.record.origin[2]}", panels


def outlined(
    image: Float[np.ndarray, "left back"],
    brain: Bool[np.ndarray, "left back"],
    regions: Bool[np.ndarray, "region left back"],
) -> UInt8[np.ndarray, "height width rgb"]:
    """Return a z-scored slice as an upright RGB panel with each region's outline on it."""
    # Stored slices run left × back. On the page that is across × down, as radiologists look.
    shown = np.where(brain, np.clip((image + 2.5) / 6, 0, 1), 0)
    upright = np.moveaxis(shown, 0, 1)
    scale = PANEL / max(upright.shape)
    grey = np.clip(zoom(upright, scale, order=3), 0, 1) * 255
    panel = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    shapes = [
        zoom(np.moveaxis(region, 0, 1).astype(np.float32), scale, order=1) for region in regions
    ]
    draw_outlines(panel, np.stack(shapes) > 0.5)
    return _square(panel)


def _square(panel: UInt8[np.ndarray, "height width rgb"]) -> UInt8[np.ndarray, "side side rgb"]:
    square = np.zeros((PANEL, PANEL, 3), dtype=np.uint8)
    height, width = (min(size, PANEL) for size in panel.shape[:2])
    top, left = (PANEL - height) // 2, (PANEL - width) // 2
    square[top : top + height, left : left + width] = panel[:height, :width]
    return square


def _sheet(
    rows: Sequence[tuple[str, list[UInt8[np.ndarray, "side side rgb"]]]], titles: Sequence[str]
) -> Image.Image:
    row_height = PANEL + CAPTION
    height = CAPTION + row_height * len(rows) + CAPTION
    sheet = Image.new("RGB", (PANEL * len(titles), height), (16, 16, 16))
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        draw.text((column * PANEL + 6, 3), title, fill=(220, 220, 220))
    for index, (caption, panels) in enumerate(rows):
        top = CAPTION + index * row_height
        draw.text((6, top + 3), caption, fill=(160, 160, 160))
        for column, panel in enumerate(panels):
            sheet.paste(Image.fromarray(panel), (column * PANEL, top + CAPTION))
    for index, name in enumerate(REGIONS):
        draw.text((6 + index * 90, height - CAPTION + 3), name, fill=COLOURS[name])
    return sheet
