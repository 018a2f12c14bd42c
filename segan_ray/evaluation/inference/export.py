"""Exporting the network of a model to run without segan-ray: ONNX, or a ``torch.export`` program.

::

    segmentor.onnx | segmentor.pt2   the network: z-scored slices → probabilities
    model.json                       all that is done before and after it

Neither is TorchScript, nor holds a pickle. What is exported computes in single precision, on any
batch of slices whose height and width are multiples of what ``model.json`` says, twice that or
more.
"""

from __future__ import annotations

import importlib.util
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
from segan_ray.models.build import downsampling_levels

Format = Literal["onnx", "torch"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
FILES: Final = {"onnx": "segmentor.onnx", "torch": "segmentor.pt2"}
SIDECAR: Final = "model.json"
FEWEST: Final = 2
"""Of the unit that height and width are multiples of, how many there must be."""
NEEDED: Final = ("onnx", "onnxscript")


def export_model(model: Model, out: Path, kind: str) -> dict[str, Any]:
    """Write the network of ``model`` and what surrounds it into ``out``, made if need be.

    Returns what ``model.json`` holds.

    Raises:
        ExportError: if the format is unknown or what writes it is not installed, or ``out``
            cannot be written.
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
    """Make sure that ``kind`` is a format and that what writes it is installed.

    Raises:
        ExportError: saying which there are, or what to install.
    """
    if kind not in FORMATS:
        raise ExportError(f"'{kind}' is no format to export to; expected {' or '.join(FORMATS)}.")
    needed = NEEDED if kind == "onnx" else ()
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(
            f"Exporting to ONNX needs {' and '.join(missing)}, which is not installed. "
            "Install it: pip install 'segan-ray[export]'"
        )


def trace(model: Model) -> ExportedProgram:
    """Return the network as a program for any batch, height and width it can take."""
    unit = 2 ** downsampling_levels(model.experiment)
    image = torch.zeros(2, len(channels(model)), 2 * unit, 3 * unit)
    # At one row or column the deepest features would be broadcast, which is another program.
    rows, columns = Dim("rows", min=FEWEST), Dim("columns", min=FEWEST)
    shapes = ({0: Dim("batch", min=1), 2: unit * rows, 3: unit * columns},)
    with torch.no_grad():
        return torch.export.export(model.segmentor.eval(), (image,), dynamic_shapes=shapes)


def describe(model: Model, kind: str) -> dict[str, Any]:
    """Return what has to be known to use the network: what goes in, and what becomes of it."""
    experiment, origin = model.experiment, model.origin
    code = layout_named(origin.layout).code
    return {
        "file": FILES[kind],
        "format": kind,
        "variant": experiment.variant,
        "store": origin.store,
        "input": {
            "name": "image",
            "type": "float32",
            "shape": ["batch", len(channels(model)), "height", "width"],
            "channels": channels(model),
            "multiple_of": 2 ** downsampling_levels(experiment),
            "at_least": FEWEST * 2 ** downsampling_levels(experiment),
            "plane": "axial; height runs to the left, width to the back",
        },
        "output": {
            "name": "probability",
            "type": "float32",
            "shape": ["batch", len(REGIONS), "height", "width"],
            "channels": list(REGIONS),
            "zero_outside_brain": experiment.training.brain_mask,
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
    """Return what the input's channels are: the modalities of a slice, or of it amid others.

    ``t1-1`` is the T1 of the slice below, ``t1+1`` of that above.
    """
    reach = model.experiment.data.neighbours
    return [
        f"{modality}{step:+d}" if step else modality
        for step in range(-reach, reach + 1)
        for modality in MODALITIES
    ]


def _write_torch(program: ExportedProgram, path: Path) -> None:
    # They would be kept beside the program as a pickle, which loading then opens.
    program.example_inputs = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.export.save(program, path)


def _write_onnx(program: ExportedProgram, path: Path) -> None:
    # The exporter tells its progress, and warns of shapes it was told of.
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
