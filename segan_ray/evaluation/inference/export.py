"""Exporting the network of a model to run without segan-ray: ONNX, or a ``torch.export`` program.

::

    segmentor.onnx | segmentor.pt2   the network: z-scored slices → probabilities
    model.json                       preparation before it and postprocessing after it

Neither file is TorchScript or holds a pickle. The exported network computes in single precision.
It takes any batch of slices whose height and width are multiples of ``multiple_of`` in
``model.json``, and at least ``at_least``.
"""

from __future__ import annotations

import copy
import json
import logging
import warnings
from pathlib import Path
from typing import Any, Final, Literal, get_args

import torch
from torch.export import Dim, ExportedProgram

from segan_ray.brats import MODALITIES, REGIONS
from segan_ray.data.layouts.cases import layout_named
from segan_ray.errors import ExportError
from segan_ray.evaluation.inference.packaged_model import Model
from segan_ray.extras import check_installed

Format = Literal["onnx", "torch"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
FILES: Final = {"onnx": "segmentor.onnx", "torch": "segmentor.pt2"}
SIDECAR: Final = "model.json"
FEWEST: Final = 2
"""Height and width are at least this many times the unit they are multiples of."""
NEEDED: Final = ("onnx", "onnxscript")


def export_model(model: Model, out: Path, kind: str) -> dict[str, Any]:
    """Write the network of ``model`` and ``model.json`` into ``out``, made if need be.

    Returns the content of ``model.json``.

    Raises:
        ExportError: if the format is unknown, a package that writes it is not installed, or
            ``out`` cannot be written.
    """
    check_format(kind)
    document = describe(model, kind)
    program = trace(model)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (_write_onnx if kind == "onnx" else _write_torch)(program, out / FILES[kind])
        (out / SIDECAR).write_text(json.dumps(document, indent=1), encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise ExportError(f"{out}: the model cannot be written there ({reason}).") from None
    return document


def check_format(kind: str) -> None:
    """Make sure that ``kind`` is a format and that the packages that write it are installed.

    Raises:
        ExportError: naming the formats.
        NotInstalledError: naming the packages to install.
    """
    if kind not in FORMATS:
        raise ExportError(f"'{kind}' is no format to export to; expected {' or '.join(FORMATS)}.")
    if kind == "onnx":
        check_installed("Exporting to ONNX", "export", *NEEDED)


def trace(model: Model) -> ExportedProgram:
    """Return the network as a program for every batch, height and width it can take."""
    unit = _unit(model)
    image = torch.zeros(2, len(channels(model)), 2 * unit, 3 * unit)
    # Features of one row or column at the deepest level would broadcast: another program.
    rows, columns = Dim("rows", min=FEWEST), Dim("columns", min=FEWEST)
    shapes = ({0: Dim("batch", min=1), 2: unit * rows, 3: unit * columns},)
    # PyTorch saves weights that lie channels last with a warning.
    plain = copy.deepcopy(model.segmentor)
    for weights in plain.parameters():
        weights.data = weights.data.contiguous()
    with torch.no_grad():
        return torch.export.export(plain.eval(), (image,), dynamic_shapes=shapes)


def describe(model: Model, kind: str) -> dict[str, Any]:
    """Return the content of ``model.json``: input, output, preparation, postprocessing, labels."""
    origin, settings = model.origin, model.inference_settings()
    code, unit = layout_named(origin.layout).code, _unit(model)
    return {
        "file": FILES[kind],
        "format": kind,
        "variant": model.variant,
        "members": len(model.members),
        "store": origin.store,
        "input": {
            "name": "image",
            "type": "float32",
            "shape": ["batch", len(channels(model)), "height", "width"],
            "channels": channels(model),
            "multiple_of": unit,
            "at_least": FEWEST * unit,
            "plane": "axial; height runs to the left, width to the back",
        },
        "output": {
            "name": "probability",
            "type": "float32",
            "shape": ["batch", len(REGIONS), "height", "width"],
            "channels": list(REGIONS),
            "zero_outside_brain": settings.brain_mask,
        },
        "preparation": origin.preparation.model_dump(mode="json"),
        "postprocessing": model.postprocessing.model_dump(mode="json"),
        "labels": {
            "layout": origin.layout,
            "names": {str(value): name for value, name in code.names.items()},
            "regions": {region: sorted(getattr(code, region)) for region in REGIONS},
            "of_several_regions_decides": list(reversed(REGIONS)),
        },
    }


def channels(model: Model) -> list[str]:
    """Return the names of the input's channels: the modalities of each slice of a stack.

    ``t1-1`` is the T1 of the slice below, ``t1+1`` that of the slice above.
    """
    reach = model.inference_settings().context_slices
    return [
        f"{modality}{step:+d}" if step else modality
        for step in range(-reach, reach + 1)
        for modality in MODALITIES
    ]


def _unit(model: Model) -> int:
    return 1 << model.inference_settings().downsampling_levels


def _write_torch(program: ExportedProgram, path: Path) -> None:
    # PyTorch would store the inputs as a pickle, and unpickle them on loading.
    program.example_inputs = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.export.save(program, path)


def _write_onnx(program: ExportedProgram, path: Path) -> None:
    # The exporter logs its progress, and warns of the dynamic shapes that it was given.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.onnx.export(
            program,
            (),
            path,
            dynamo=True,
            input_names=["image"],
            output_names=["probability"],
            external_data=False,
            verbose=False,
        )
