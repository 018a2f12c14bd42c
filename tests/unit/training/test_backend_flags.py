from __future__ import annotations

import pytest
import torch

from segan_ray.config import TrainingSettings
from segan_ray.training.backend_flags import training_flags, validation_flags

CUDA = torch.device("cuda")


def flags() -> tuple[bool, bool]:
    return torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark


@pytest.mark.parametrize("deterministic", [True, False])
def test_flags_are_those_of_the_run_and_put_back(deterministic: bool) -> None:
    settings, before = TrainingSettings(deterministic=deterministic), flags()
    with training_flags(settings, CUDA):
        assert flags() == (deterministic, not deterministic)
        with validation_flags(settings, CUDA):
            # Every volume has a grid of its own, for which all kernels would be timed.
            assert flags() == (deterministic, False)
        assert flags() == (deterministic, not deterministic)
    assert flags() == before
    with pytest.raises(KeyError), training_flags(settings, CUDA):
        raise KeyError
    assert flags() == before


def test_on_a_cpu_no_flag_is_touched() -> None:
    before = flags()
    with training_flags(TrainingSettings(deterministic=True), torch.device("cpu")):
        assert flags() == before
