"""Many raw cases → their regions, one after another, reading ahead.

One thread reads and prepares the next case, another segments the current one, and the caller
writes the maps of the last in its own. Decompression, most of preparation, networks and
compression release Python's lock, so the three run at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32

from segan_ray.brats import LabelCode
from segan_ray.data.io.geometry import spacing_of
from segan_ray.data.io.volumes import read_volume
from segan_ray.data.layouts.cases import Case
from segan_ray.data.store.arrays import Boxed, boxed_arrays
from segan_ray.data.store.manifest import PrepareSettings
from segan_ray.errors import CaseError, DataError
from segan_ray.evaluation.inference.packaged_model import Model
from segan_ray.evaluation.inference.segment_volume import segment_boxed

AHEAD: Final = 2
"""Cases in work beside the one that was yielded: one is read, one is segmented."""


@dataclass(frozen=True, eq=False)
class Segmented:
    """A case and its regions over the grid that ``affine`` maps to mm, or its error.

    Axes run left × posterior × superior, as those of a ``Volume``. ``probabilities`` is None
    unless it was asked for.
    """

    case: Case
    regions: Bool[np.ndarray, "region x y z"] | None = None
    probabilities: Float32[np.ndarray, "region x y z"] | None = None
    affine: Float[np.ndarray, "4 4"] | None = None
    error: Exception | None = None


@dataclass(frozen=True, eq=False)
class _Read:
    boxed: Boxed
    affine: Float[np.ndarray, "4 4"]


def segment_stream(
    model: Model,
    cases: Iterable[Case],
    code: LabelCode,
    *,
    device: torch.device | None = None,
    probabilities: bool = False,
) -> Generator[Segmented]:
    """Yield every case in its order; a bad case comes with its error and stops no other.

    ``code`` is that of the cases' layout. Truth is not read. At most ``AHEAD`` + 1 cases are
    in memory, however many there are, as long as the caller keeps none.
    """
    settings = model.origin.preparation
    with (
        ThreadPoolExecutor(1, thread_name_prefix="reads") as reader,
        ThreadPoolExecutor(1, thread_name_prefix="segments") as segmenter,
    ):

        def start(case: Case) -> Future[Segmented]:
            reading = reader.submit(_read, case, code, settings)
            return segmenter.submit(_segment_or_error, model, case, reading, device, probabilities)

        coming = iter(cases)
        waiting = deque(start(case) for case in islice(coming, AHEAD))
        try:
            while waiting:
                segmented = waiting.popleft().result()
                waiting.extend(start(case) for case in islice(coming, 1))
                yield segmented
                del segmented
        finally:
            for future in waiting:
                future.cancel()


def _read(case: Case, code: LabelCode, settings: PrepareSettings) -> _Read:
    volume = read_volume(case.without_truth(), code)
    try:
        return _Read(boxed_arrays(volume, settings), volume.affine)
    except DataError as error:
        raise CaseError(case.case, str(error)) from None


def _segment_or_error(
    model: Model,
    case: Case,
    reading: Future[_Read],
    device: torch.device | None,
    probabilities: bool,
) -> Segmented:
    try:
        return _segment(model, case, reading.result(), device, probabilities)
    except Exception as error:  # any error concerns this case alone
        return Segmented(case, error=error)


def _segment(
    model: Model,
    case: Case,
    read: _Read,
    device: torch.device | None,
    probabilities: bool,
) -> Segmented:
    maps = segment_boxed(
        model, read.boxed, spacing_of(read.affine), device, keep_probabilities=probabilities
    )
    return Segmented(case, maps.regions, maps.probabilities, read.affine)
