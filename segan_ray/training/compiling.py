"""Whether, from which epoch on, and how the passes of a training step are compiled."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch

from segan_ray.config import Experiment, TrainingSettings
from segan_ray.training.step import EAGER, Passes

PAYS_AFTER_STEPS: Final = 1000
"""Compiling takes about as long as it saves in this many steps; see docs/performance.md."""
LEAST_CAPABILITY: Final = (7, 0)
"""The compute capability that Triton needs."""


@dataclass(frozen=True)
class CompilePlan:
    """From which epoch on steps are compiled (None: never), and why not, if they should be."""

    first: int | None
    obstacle: str | None = None

    @classmethod
    def of(
        cls, settings: TrainingSettings, steps_per_epoch: int, device: torch.device
    ) -> CompilePlan:
        """Return the plan of a run in this process."""
        first = compiled_from(settings, steps_per_epoch, device)
        why = None if first is None else obstacle(device)
        return cls(first if why is None else None, why)

    def compiles(self, epoch: int) -> bool:
        """Tell whether the steps of ``epoch`` are compiled."""
        return self.first is not None and epoch >= self.first


def compiled_from(
    settings: TrainingSettings, steps_per_epoch: int, device: torch.device
) -> int | None:
    """Return the epoch from which on steps are compiled, counted from 1; None is never.

    At ``auto`` that is on CUDA alone, after ``PAYS_AFTER_STEPS`` and if as many are left: a trial
    that is stopped early never compiles, and none loses more than what compiling takes. The epoch
    depends on the settings alone, so that a resumed run computes what the whole one does.
    """
    if settings.compile != "auto":
        return 1 if settings.compile else None
    first = 1 + -(-PAYS_AFTER_STEPS // steps_per_epoch)
    left = (settings.epochs - first + 1) * steps_per_epoch
    return first if device.type == "cuda" and left >= PAYS_AFTER_STEPS else None


def obstacle(device: torch.device) -> str | None:
    """Return why nothing can be compiled for ``device`` in this process, or None."""
    if device.type != "cuda":
        return None if _compiler("CXX", "g++", "clang++") else "there is no C++ compiler"
    capability = torch.cuda.get_device_capability(device)
    if capability < LEAST_CAPABILITY:
        return f"{torch.cuda.get_device_name(device)} has compute capability " + (
            "{}.{}, and Triton needs {}.{}".format(*capability, *LEAST_CAPABILITY)
        )
    if find_spec("triton") is None:
        return "Triton is not installed"
    if not _compiler("CC", "gcc", "clang"):
        return "there is no C compiler, which Triton needs (Debian: apt install gcc)"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        version = "{}.{}".format(*sys.version_info)
        return f"Python's headers are missing (Debian: apt install python{version}-dev)"
    return None


@cache
def compiled_passes() -> Passes:
    """Return the passes of a step, each compiled when it is first called with new shapes."""
    return Passes(
        segment=_compiled(EAGER.segment),
        raised_distance=_compiled(EAGER.raised_distance),
        lowered_distance=_compiled(EAGER.lowered_distance),
        loss_of_maps=_compiled(EAGER.loss_of_maps),
    )


@contextmanager
def compiler_flags(settings: TrainingSettings) -> Iterator[None]:
    """Have kernels repeat if ``deterministic`` asks for it; compile in as many processes as cores.

    The cores are those of this worker. The compiler would start a process for each of the machine.
    """
    from torch._inductor import config  # takes seconds, and most runs on a CPU do not compile

    with config.patch(
        deterministic=settings.deterministic, compile_threads=torch.get_num_threads()
    ):
        yield


class GraphsOfOneArchitecture:
    """Forgets compiled graphs when a process comes to train another architecture.

    PyTorch keeps eight graphs of a function. After that the function runs as if not compiled, for
    good. Learning rates and weights of losses are no part of a graph.
    """

    def __init__(self) -> None:
        self._last: Any = None

    def come_to(self, experiment: Experiment) -> None:
        """Note what is trained next."""
        coming = _architecture(experiment)
        if self._last not in (None, coming):
            torch.compiler.reset()
        self._last = coming


def _architecture(experiment: Experiment) -> dict[str, Any]:
    rates = {"lr", "optimizer", "beta1"}
    return experiment.model_dump(
        include={
            "variant": True,
            "segmentor": set(type(experiment.segmentor).model_fields) - rates,
            "critic": set(type(experiment.critic).model_fields) - {*rates, "steps", "clamp"},
            "loss": {"reduction", "class_weights", "dice_power"},
            "training": {"batch_size", "accumulate", "crop", "brain_mask", "precision"},
            "data": {"neighbours", "fold"},
            "resources": {"workers"},
        }
    )


def _compiler(variable: str, *names: str) -> bool:
    named = os.environ.get(variable)
    return any(shutil.which(name) for name in ([named.split()[0]] if named else names))


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    compiled: Callable[..., Any] = torch.compile(function)
    return compiled
