"""The phantom's scanners: four contrasts of one patient's tissues and tumour.

Tissue intensities are relative to white matter in T1 (0.85). Every scanner has protocols of its
own: contrasts, thickness of slices, noise and shading. Each scan then gets its own bias field,
blur, Rician noise and arbitrary scale, as MRI has no unit.
Healthy findings that a reader must not take for tumour are drawn here too: white matter
hyperintensities, bright cortex, unsuppressed fluid in FLAIR, vessels and choroid plexus.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage  # type: ignore[import-untyped, unused-ignore]

from segan_ray.brats import MODALITIES
from segan_ray.data.phantom.anatomy import random_field

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float32, Float64, Int16

    from segan_ray.brats import Modality
    from segan_ray.data.phantom.anatomy import Axes, Tissues
    from segan_ray.data.phantom.tumour import Tumour

    Map = Float32[np.ndarray, "x y z"]


@dataclass(frozen=True)
class _Contrast:
    """Mean intensities of one modality, and how much other properties change them."""

    grey: float
    white: float
    csf: float
    edema: float
    necrotic: float
    enhancing: float
    solid: float  # tumour that does not enhance
    aged: float  # added where white matter is damaged by age
    texture: float  # of the template's T1 contrast within a tissue
    swelling_varies: float  # relative, per standard deviation between patients
    fluid_varies: float  # the same, of the fluid in the necrosis
    uptake_varies: float  # the same, of contrast agent
    thickness_mm: float  # of the slices before they were resampled


_CONTRASTS: Final[Mapping[Modality, _Contrast]] = {
    "t1": _Contrast(
        grey=0.62,
        white=0.85,
        csf=0.22,
        edema=0.58,
        necrotic=0.40,
        enhancing=0.60,
        solid=0.49,
        aged=-0.05,
        texture=0.10,
        thickness_mm=1.0,
        swelling_varies=-0.05,
        fluid_varies=0.06,
        uptake_varies=0.0,
    ),
    "t1ce": _Contrast(
        grey=0.63,
        white=0.85,
        csf=0.23,
        edema=0.58,
        necrotic=0.38,
        enhancing=1.18,
        solid=0.50,
        aged=-0.05,
        texture=0.10,
        thickness_mm=1.0,
        swelling_varies=-0.05,
        fluid_varies=0.06,
        uptake_varies=0.13,
    ),
    "t2": _Contrast(
        grey=0.52,
        white=0.36,
        csf=1.00,
        edema=0.75,
        necrotic=0.92,
        enhancing=0.66,
        solid=0.86,
        aged=0.12,
        texture=-0.06,
        thickness_mm=2.0,
        swelling_varies=0.05,
        fluid_varies=0.06,
        uptake_varies=0.0,
    ),
    "flair": _Contrast(
        grey=0.58,
        white=0.45,
        csf=0.12,
        edema=0.87,
        necrotic=0.52,
        enhancing=0.75,
        solid=0.77,
        aged=0.41,
        texture=-0.05,
        thickness_mm=2.5,
        swelling_varies=0.10,
        fluid_varies=0.28,
        uptake_varies=0.0,
    ),
}


@dataclass(frozen=True)
class Scanner:
    """How one scanner images: its contrasts, and the ranges that its sessions are drawn from.

    ``noise`` is the standard deviation relative to white matter in T1, ``shading`` that of the
    logarithm of the bias field, and ``gamma`` the exponent of intensities.
    """

    contrasts: Mapping[Modality, _Contrast]
    noise: float
    shading: float
    gamma: float


def draw_scanner(rng: np.random.Generator) -> Scanner:
    """Draw the protocols of one scanner.

    Tissues differ from the mean contrast by 6% of their intensity (one standard deviation), and
    slices are up to twice as thick.
    """
    return Scanner(
        contrasts={name: _draw_contrast(rng, mean) for name, mean in _CONTRASTS.items()},
        noise=rng.uniform(0.014, 0.04),
        shading=rng.uniform(0.05, 0.14),
        gamma=rng.uniform(0.85, 1.15),
    )


def _draw_contrast(rng: np.random.Generator, mean: _Contrast) -> _Contrast:
    parts = ("grey", "white", "csf", "edema", "necrotic", "enhancing", "solid")
    factors = 1 + 0.06 * np.clip(rng.standard_normal(len(parts)), -1.5, 1.5)
    return replace(
        mean,
        thickness_mm=mean.thickness_mm * rng.uniform(1, 2),
        **{
            part: getattr(mean, part) * float(factor)
            for part, factor in zip(parts, factors, strict=True)
        },
    )


@dataclass(frozen=True)
class _Lesions:
    """The findings that stay with the patient between sessions, on the grid.

    Healthy findings are weights from 0 to 1. ``uptake`` is how much of the contrast agent
    enhancing tumour takes up, about 1; ``mottle`` is the tumour's grain, a unit normal field.
    """

    aged: Map
    cortex: Map
    fluid: Map
    vessels: Map
    uptake: Map
    mottle: Map


def scan(
    rng: np.random.Generator,
    finding_rng: np.random.Generator,
    scanner: Scanner,
    tissues: Tissues,
    tumour: Tumour,
    axes_mm: Axes,
    *,
    spacing_mm: float,
) -> Int16[np.ndarray, "modality x y z"]:
    """Return the four scans in the order of ``MODALITIES``; 0 outside the brain, else >= 1.

    ``finding_rng`` draws the findings that stay with the patient, ``rng`` all that is new in
    each session.
    """
    findings = _draw_findings(finding_rng, tissues, axes_mm)
    character = finding_rng.standard_normal(4)
    scans = []
    for modality in MODALITIES:
        contrast = _vary(rng, scanner.contrasts[modality], character)
        clean = _paint(contrast, modality, tissues, tumour, findings)
        blurred = _blur(clean, contrast.thickness_mm, spacing_mm=spacing_mm)
        scans.append(_acquire(rng, scanner, blurred, tissues, axes_mm))
    return np.stack(scans)


def _draw_findings(rng: np.random.Generator, tissues: Tissues, axes_mm: Axes) -> _Lesions:
    broad, patchy, fine = (random_field(rng, axes_mm, step_mm=step) for step in (28.0, 14.0, 5.5))
    shell = np.exp(-np.clip(tissues.depth_mm, 0, None) / 4)
    ventricles = tissues.ventricle_mm < 2
    # Flow in ventricles and cisterns, and oxygen or motion at the surface, defeat inversion.
    fluid = np.where(ventricles, _step(patchy - 1.0, 0.3), _step(broad - 0.9, 0.4) * shell)
    return _Lesions(
        aged=_leukoaraiosis(rng, tissues, patchy, fine),
        cortex=np.clip(0.5 + 0.5 * broad, 0, 1.5) * tissues.grey,
        fluid=(fluid * tissues.csf).astype(np.float32),
        vessels=_vessels(rng, tissues, axes_mm, fine),
        uptake=np.clip(0.85 + 0.3 * random_field(rng, axes_mm, step_mm=11), 0.2, 1.3),
        mottle=random_field(rng, axes_mm, step_mm=6),
    )


def _leukoaraiosis(rng: np.random.Generator, tissues: Tissues, patchy: Map, fine: Map) -> Map:
    """Return caps around the ventricles and scattered spots, which increase with age."""
    severity = rng.beta(1.3, 2.0)
    reach_mm = (1.5 + 6 * severity) * np.clip(1 + 0.6 * patchy, 0.2, None)
    caps = _step(reach_mm - tissues.ventricle_mm, 0.8)
    spots = _step(fine - (3.3 - 1.1 * severity), 0.15) * (tissues.depth_mm > 9)
    patches = _step(patchy - (3.0 - 1.3 * severity), 0.15) * (tissues.ventricle_mm < 14)
    grade = np.clip(0.6 + 0.5 * severity, 0, 1)
    return np.asarray(grade * np.maximum.reduce([caps, spots, patches]) * tissues.white)


def _vessels(rng: np.random.Generator, tissues: Tissues, axes_mm: Axes, fine: Map) -> Map:
    """Return vessels (curves on which two fields are both zero), choroid plexus and dura."""
    first, second = (random_field(rng, axes_mm, step_mm=14) for _ in range(2))
    curves = np.exp(-(first**2 + second**2) / 0.02) * np.clip(3 * tissues.csf + 0.25, 0, 1)
    sinus = (np.abs(tissues.midline_mm) < 3) * np.exp(-np.clip(tissues.depth_mm, 0, None) / 3)
    choroid = _step(fine - 0.7, 0.3) * (tissues.ventricle_mm < 1.5) * (tissues.height < 105)
    dura = 0.25 * np.exp(-np.clip(tissues.depth_mm, 0, None) / 1.5)
    vessels = np.maximum.reduce([curves, 0.8 * sinus, 0.8 * choroid, dura])
    return np.asarray(vessels, dtype=np.float32)


def _step(field: Map, width: float) -> Map:
    return np.asarray(1 / (1 + np.exp(-np.clip(field / width, -30, 30))), dtype=np.float32)


def _vary(
    rng: np.random.Generator, contrast: _Contrast, character: Float64[np.ndarray, " varying"]
) -> _Contrast:
    """Return ``contrast``, changed by this session's settings and this patient's tumour."""
    swelling, fluid, uptake, cells = np.clip(character, -1.6, 1.6)
    grey, white, csf = 1 + 0.03 * np.clip(rng.standard_normal(3), -2, 2)
    return replace(
        contrast,
        grey=contrast.grey * grey,
        white=contrast.white * white,
        csf=contrast.csf * csf,
        edema=contrast.edema * (1 + contrast.swelling_varies * swelling),
        necrotic=contrast.necrotic * (1 + contrast.fluid_varies * fluid),
        enhancing=contrast.enhancing * (1 + contrast.uptake_varies * uptake),
        solid=contrast.solid * (1 + 0.07 * cells),
    )


def _paint(
    contrast: _Contrast,
    modality: Modality,
    tissues: Tissues,
    tumour: Tumour,
    findings: _Lesions,
) -> Map:
    """Return the image before the scanner's blur, bias and noise."""
    image = (
        contrast.grey * tissues.grey
        + contrast.white * tissues.white
        + contrast.csf * tissues.csf
        + contrast.texture * tissues.texture * (1 - tissues.csf)
        + contrast.aged * findings.aged
    )
    if modality == "flair":
        image += 0.12 * findings.cortex + 0.55 * findings.fluid
    if modality == "t1ce":
        image += 0.75 * findings.vessels
    image += 0.9 * tumour.edema * (contrast.edema * (1 + 0.07 * findings.mottle) - image)
    enhancing = contrast.solid + (contrast.enhancing - contrast.solid) * findings.uptake
    for part, level in (
        (tumour.necrotic, contrast.necrotic),
        (tumour.enhancing, enhancing),
        (tumour.solid, contrast.solid),
    ):
        image = np.where(part, level * (1 + 0.10 * findings.mottle), image)
    return np.asarray(image, dtype=np.float32)


def _blur(clean: Map, thickness_mm: float, *, spacing_mm: float) -> Map:
    in_plane, through_plane = 0.45 / spacing_mm, 0.4 * thickness_mm / spacing_mm
    image = ndimage.gaussian_filter(clean, (in_plane, in_plane, through_plane), truncate=3)
    return np.asarray(image, dtype=np.float32)


def _acquire(
    rng: np.random.Generator, scanner: Scanner, image: Map, tissues: Tissues, axes_mm: Axes
) -> Int16[np.ndarray, "x y z"]:
    """Shade, add noise and scale, as one scan does; then strip the skull."""
    shading = scanner.shading * rng.uniform(0.7, 1.3) * random_field(rng, axes_mm, step_mm=95)
    shading += 0.03 * random_field(rng, axes_mm, step_mm=45)
    image = image * np.exp(shading)
    noise = scanner.noise * rng.uniform(0.8, 1.2)
    real = image + noise * rng.standard_normal(image.shape, dtype=np.float32)
    imaginary = noise * rng.standard_normal(image.shape, dtype=np.float32)
    magnitude = np.sqrt(real**2 + imaginary**2) ** scanner.gamma
    scale = np.exp(rng.uniform(np.log(250), np.log(2500)))
    stripped = np.where(tissues.brain, np.clip(scale * magnitude, 1, 32767), 0)
    return np.asarray(stripped, dtype=np.int16)
