"""Several segmentors used as one."""

from __future__ import annotations

import torch

from segan_ray.config import load_experiment
from segan_ray.models.build import build_segmentor
from segan_ray.models.ensemble import MeanOfSegmentors

SMALL = ["segmentor.network=segan", "segmentor.base_width=4", "segmentor.depth=2"]


def segmentor(neighbours: int) -> torch.nn.Module:
    experiment = load_experiment(None, [*SMALL, f"data.neighbours={neighbours}"])
    return build_segmentor(experiment).eval()


def test_it_is_the_mean_of_what_each_says_of_the_slices_that_it_sees() -> None:
    torch.manual_seed(0)
    near, far = segmentor(0), segmentor(2)
    image = torch.randn(3, 4 * 5, 16, 24)
    with torch.no_grad():
        found = MeanOfSegmentors([near, far], [0, 2])(image)
        expected = (near(image[:, 8:12]) + far(image)) / 2
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)
    assert (near(image[:, 8:12]) - far(image)).abs().max() > 0.01


def test_it_adds_in_single_precision() -> None:
    torch.manual_seed(0)
    members = [segmentor(0) for _ in range(3)]
    image = torch.randn(2, 4, 16, 16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = MeanOfSegmentors(members, [0, 0, 0])(image)
        expected = torch.stack([each(image).float() for each in members]).mean(0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
