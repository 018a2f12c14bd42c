"""Our scores against those that the code of BraTS 2023 itself gave to the same files.

``tests/data/official_brats2023`` holds 58 generated pairs of label maps and what the challenge's
public evaluation (github.com/rachitsaluja/BraTS-2023-Metrics, for glioma) printed of them.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from segan_ray.brats import CODE_2023
from segan_ray.evaluation.metrics.lesions import score_case_lesions
from segan_ray.evaluation.metrics.region_metrics import score_case

FOLDER = Path(__file__).parents[3] / "data" / "official_brats2023"
REGION_NAMES = {"WT": "whole", "TC": "core", "ET": "enhancing"}
OFFICIAL = pd.read_csv(FOLDER / "official.csv")
CLOSE = 1e-6


def regions_of(path: Path) -> tuple[np.ndarray, tuple[float, float, float]]:
    image = nib.load(path)
    x, y, z = (float(size) for size in image.header.get_zooms())
    return CODE_2023.regions(np.asarray(image.dataobj).astype(np.uint8)), (x, y, z)


@pytest.mark.parametrize(
    ("pair", "rows"), [(int(n), rows) for n, rows in OFFICIAL.groupby("n")], ids=str
)
def test_scores_equal_those_of_the_official_code(pair: int, rows: pd.DataFrame) -> None:
    truth, spacing_mm = regions_of(FOLDER / "pairs" / f"{pair:04}_gt.nii.gz")
    prediction, _ = regions_of(FOLDER / "pairs" / f"{pair:04}_pr.nii.gz")
    scores = score_case(prediction, truth, spacing_mm)
    lesions = score_case_lesions(prediction, truth, spacing_mm)
    assert set(rows.Labels) == set(REGION_NAMES)
    for row in rows.itertuples():
        region = REGION_NAMES[row.Labels]
        volume, by_lesion = scores[region], lesions[region]
        found = (volume.dice, volume.sensitivity, volume.specificity, volume.hd95)
        expected = (row.Legacy_Dice, row.Sensitivity, row.Specificity, row.Legacy_HD95)
        assert found == pytest.approx(expected, rel=CLOSE, abs=CLOSE), region
        assert (by_lesion.dice, by_lesion.hd95) == pytest.approx(
            (row.LesionWise_Score_Dice, row.LesionWise_Score_HD95), rel=CLOSE, abs=CLOSE
        ), region
        assert (by_lesion.missed, by_lesion.false_positives) == (row.Num_FN, row.Num_FP), region
