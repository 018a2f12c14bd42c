"""Stored cases whose voxels hold their own positions, for tests of positions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mlflow import MlflowClient

from segan_ray.data.store.opened_store import BRAIN_BIT, CaseRecord, PreparedCase, PrepareSettings
from segan_ray.data.store.origin import Origin
from segan_ray.data.store.prepare_case import sha256
from segan_ray.tracking.registry.model_versions import MODEL

ORIGIN = Origin(store="0" * 16, layout="brats2021", preparation=PrepareSettings(), seen={})


def stored_case(
    folder: Path, size: tuple[int, int, int], origin: tuple[int, int, int] = (0, 0, 0)
) -> PreparedCase:
    """Write a case of ``size`` whose modalities are each voxel's row, column, slice and sum.

    They count from 1. All is brain; the whole tumour fills the even slices.
    """
    height, width, slices = size
    row, column, position = np.meshgrid(*(np.arange(1, side + 1) for side in size), indexing="ij")
    image = np.stack([row, column, position, row + column + position]).astype(np.float16)
    mask = np.full((slices, height, width), BRAIN_BIT, dtype=np.uint8)
    mask[::2] |= 1
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "image.npy", np.ascontiguousarray(np.moveaxis(image, -1, 0)))
    np.save(folder / "mask.npy", mask)
    record = CaseRecord(
        case="here",
        patient="here",
        grade=None,
        shape=tuple(start + length + 2 for start, length in zip(origin, size, strict=True)),
        origin=origin,
        size=size,
        affine=tuple(tuple(map(float, row)) for row in np.eye(4)),
        spacing_mm=(1.0, 1.0, 1.0),
        has_truth=True,
        tumour_voxels=tuple(int((slice_ & 1).sum()) for slice_ in mask),
        region_voxels={},
        checksums={name: sha256(folder / name) for name in ("image.npy", "mask.npy")},
        voxels_sha256="",
        sources={},
    )
    return PreparedCase(record, folder)


def bare_version(client: MlflowClient, run: str) -> str:
    """Register the checkpoint of a run as it is, not packaged; return the version."""
    client.create_registered_model(MODEL)
    source = f"{client.get_run(run).info.artifact_uri}/checkpoint"
    return str(client.create_model_version(MODEL, source, run_id=run).version)
