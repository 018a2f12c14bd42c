"""The text of the page: what it says and holds, and what it must not."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files

import nibabel as nib
import numpy as np
import pytest

from segan_ray.brats import CODE_2017_TO_2021, MODALITIES
from segan_ray.data.io.volumes import Volume
from segan_ray.evaluation.viewer.case_page import render_case
from segan_ray.evaluation.viewer.shown_case import shown_case
from tests.unit.evaluation.viewer.pages import facts, volumes
from tests.unit.evaluation.viewer.test_shown_case import at, shown

VIEWER = files("segan_ray.evaluation.viewer")


def test_it_holds_the_scans_and_maps_of_the_case() -> None:
    case = shown(at((5, 6, 4), 4), at((6, 6, 4), 1))
    held = volumes(render_case("A", "brats2021", case))
    assert list(held) == [*MODALITIES, "truth", "prediction"]
    for name, voxels in {**case.scans, **case.maps}.items():
        assert held[name].get_data_dtype() == np.uint8
        np.testing.assert_array_equal(np.asarray(held[name].dataobj), voxels)
        np.testing.assert_allclose(held[name].affine, case.affine, atol=1e-5)
        assert nib.aff2axcodes(held[name].affine) == ("L", "P", "S")


def test_it_says_what_it_shows_and_whose_images_it_holds() -> None:
    page = render_case("A", "brats2021", shown(at((5, 6, 4), 4), at((6, 6, 4), 1)))
    assert "This page holds the patient's images." in page
    assert "brats2021, 12×14×10 voxels of 1×2×3 mm, cut to the 6×7×6 that show anything" in page
    assert "rgb(230, 159, 0)" in page
    assert facts(page)["colours"] == [[230, 159, 0], [86, 180, 233], [204, 121, 167]]
    assert facts(page)["maps"] == ["truth", "prediction"]
    assert "truth, ml" in page
    assert "prediction, ml" in page


def test_a_page_without_truth_or_prediction_offers_neither() -> None:
    page = render_case("A", "brats2021", shown(prediction=at((6, 6, 4), 1)))
    assert 'value="prediction"' in page
    assert 'value="truth"' not in page
    assert "truth, ml" not in page
    bare = render_case("A", "brats2021", shown())
    assert list(volumes(bare)) == list(MODALITIES)
    assert "the scans alone" in bare
    assert 'name="outline" value' not in bare


def test_names_are_text_and_no_markup() -> None:
    page = render_case("<script>boom()</script>&$title", "<b>", shown())
    assert "boom()</script>" not in page
    assert "<b>" not in page.partition("<script>")[0]
    assert page.count("&lt;script&gt;boom()&lt;/script&gt;&amp;$title") == 2


def test_it_asks_for_nothing_and_no_script_ends_early() -> None:
    page = render_case("A", "brats2021", shown(at((5, 6, 4), 4)))
    head, _, body = page.partition("</style>")
    assert "url(" not in head
    assert not re.search(r"<(?:link|img|iframe|script)[^>]*(?:src|href)=", page)
    assert len(re.findall(r"</script", body)) == 1 + len(volumes(page)) + 2


def test_the_viewer_is_the_one_that_its_licence_is_for() -> None:
    said = VIEWER.joinpath("niivue.txt").read_text()
    digest = hashlib.sha256(VIEWER.joinpath("niivue.js").read_bytes()).hexdigest()
    assert f"SHA-256: {digest}" in said
    (version,) = re.findall(r"^NiiVue (\S+)$", said, re.MULTILINE)
    assert f'"{version}"' in VIEWER.joinpath("niivue.js").read_text()
    assert "Redistributions in binary form must reproduce" in said
    assert "Copyright (c) 2021, Niivue" in render_case("A", "brats2021", shown())


@pytest.mark.slow
def test_a_full_size_case_of_noise_can_be_mailed() -> None:
    """Noise packs worst, so no skull-stripped case of this size makes a larger page."""
    grid = np.ogrid[-120:120, -120:120, -77:78]
    inside = sum((axis / half) ** 2 for axis, half in zip(grid, (72, 92, 72), strict=True)) < 1
    assert np.count_nonzero(inside) > 1.9e6  # voxels of 1 mm: the largest of brains
    rng = np.random.default_rng(0)
    image = np.zeros((4, *inside.shape), np.float32)
    image[:, inside] = rng.uniform(1, 4000, (4, np.count_nonzero(inside)))
    case = shown_case(Volume(image, None, np.eye(4)), None, CODE_2017_TO_2021)
    assert len(render_case("A", "brats2021", case)) < 25e6
