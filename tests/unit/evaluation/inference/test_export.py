"""An exported network says what the segmentor says, on any batch and grid it may be given."""

from __future__ import annotations

import importlib.util
import json
import warnings
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from segan_ray.config import Experiment
from segan_ray.data.store.opened_store import PrepareSettings
from segan_ray.data.store.origin import Origin
from segan_ray.errors import ExportError, NotInstalledError
from segan_ray.evaluation.inference import export
from segan_ray.evaluation.inference.export import export_model
from segan_ray.evaluation.inference.inference_settings import Postprocessing
from segan_ray.evaluation.inference.packaged_model import Model, TrainedSegmentor
from segan_ray.models.build import build_segmentor, downsampling_levels
from segan_ray.models.numerics import move_to_device

# In units: the smallest grid, others, and one slice.
SHAPES = [(2, 2, 2), (1, 3, 5), (5, 6, 2)]
TOLERANCE = 1e-6
"""Of probabilities: a few units in the last place of single precision."""
DEEP_TOLERANCE = 1e-3
"""Of the authors' network, whose untrained residual blocks make logits of up to 240."""


def make(variant: str, neighbours: int = 0, network: str | None = None) -> Model:
    """Return a model with random weights and statistics, as if it had been trained."""
    named = {} if network is None else {"network": network}
    experiment = Experiment.model_validate(
        {
            "variant": variant,
            "segmentor": {"base_width": 4, "depth": 2, **named},
            "critic": {"base_width": 4, "depth": 1},
            "data": {"neighbours": neighbours},
        }
    )
    torch.manual_seed(0)
    segmentor = build_segmentor(experiment).train()
    with torch.no_grad():
        segmentor(torch.randn(4, 4 * (2 * neighbours + 1), 64, 64))
    origin = Origin(store="f", layout="brats2021", preparation=PrepareSettings(), seen={})
    return Model(
        (TrainedSegmentor(segmentor.eval(), experiment),), origin, Postprocessing(flips=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "neighbours", "network"),
    [
        ("s1-3c", 0, None),
        ("s1-3c", 1, None),
        ("s3-3c", 0, None),
        ("unet", 0, None),
        ("s1-3c", 0, "authors"),
        ("s1-3c", 0, "residual-unet"),
        ("s1-3c", 0, "segresnet"),
    ],
)
def test_exports_equal_the_segmentor(
    variant: str, neighbours: int, network: str | None, tmp_path: Path
) -> None:
    model = make(variant, neighbours, network)
    unit = 2 ** downsampling_levels(model.experiments[0])
    tolerance = DEEP_TOLERANCE if network == "authors" else TOLERANCE
    channels = 4 * (2 * neighbours + 1)
    document = export_model(model, tmp_path, "onnx")
    assert len(document["input"]["channels"]) == channels
    export_model(model, tmp_path, "torch")
    assert {path.name for path in tmp_path.iterdir()} == {
        "segmentor.onnx", "segmentor.pt2", "model.json",
    }  # fmt: skip
    program = torch.export.load(tmp_path / "segmentor.pt2").module()
    session = onnxruntime.InferenceSession(
        tmp_path / "segmentor.onnx", providers=["CPUExecutionProvider"]
    )
    for batch, height, width in SHAPES:
        image = torch.randn(batch, channels, height * unit, width * unit)
        with torch.no_grad():
            expected = model.segmentor(image).numpy()
            exported = program(image).numpy()
        (through_onnx,) = session.run(["probability"], {"image": image.numpy()})
        np.testing.assert_allclose(exported, expected, atol=tolerance)
        np.testing.assert_allclose(through_onnx, expected, atol=tolerance)
        assert np.ptp(expected) > 0.02


@pytest.mark.slow
def test_an_ensemble_is_exported_as_one_network(tmp_path: Path) -> None:
    near, far = make("s1-3c"), make("s1-3c", 1, "segan")
    both = Model((*near.members, *far.members), near.origin)
    document = export_model(both, tmp_path, "onnx")
    assert (document["members"], len(document["input"]["channels"])) == (2, 12)
    session = onnxruntime.InferenceSession(
        tmp_path / "segmentor.onnx", providers=["CPUExecutionProvider"]
    )
    image = torch.randn(3, 12, 16, 24)
    with torch.no_grad():
        expected = (near.segmentor(image[:, 4:8]) + far.segmentor(image)) / 2
    (found,) = session.run(["probability"], {"image": image.numpy()})
    np.testing.assert_allclose(found, expected.numpy(), atol=TOLERANCE)


@pytest.mark.slow
def test_a_torch_program_is_no_torchscript_and_holds_no_pickle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make("s1-3c")
    # As a trained one is loaded.
    move_to_device([model.segmentor], torch.device("cpu"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        export_model(model, tmp_path, "torch")
    with zipfile.ZipFile(tmp_path / "segmentor.pt2") as archive:
        full = {item.filename for item in archive.infolist() if item.file_size}
    assert not [name for name in full if Path(name).suffix in {".pkl", ".pt", ".py"}]
    assert not [name for name in full if "/code/" in name]

    def refuse(*args: object, **more: object) -> None:
        raise AssertionError("unpickled or run as TorchScript")

    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr(torch.jit, "load", refuse)
    torch.export.load(tmp_path / "segmentor.pt2")


@pytest.mark.slow
def test_what_surrounds_the_network_is_said(tmp_path: Path) -> None:
    model = make("s1-3c", neighbours=1)
    export_model(model, tmp_path, "torch")
    said = json.loads((tmp_path / "model.json").read_text())
    assert said["input"]["channels"][:5] == ["t1-1", "t1ce-1", "t2-1", "flair-1", "t1"]
    assert said["input"]["channels"][-1] == "flair+1"
    assert (said["input"]["multiple_of"], said["input"]["at_least"]) == (4, 8)
    assert said["output"] == {
        "name": "probability", "type": "float32", "shape": ["batch", 3, "height", "width"],
        "channels": ["whole", "core", "enhancing"], "zero_outside_brain": True,
    }  # fmt: skip
    assert said["preparation"] == model.origin.preparation.model_dump(mode="json")
    assert Postprocessing.model_validate(said["postprocessing"]) == model.postprocessing
    assert said["labels"]["regions"] == {"whole": [1, 2, 4], "core": [1, 4], "enhancing": [4]}
    assert said["labels"]["of_several_regions_decides"] == ["enhancing", "core", "whole"]


@pytest.mark.slow
def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExportError, match="'keras' is no format"):
        export_model(make("s1-3c"), tmp_path, "keras")
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="file: the model cannot be written there"):
        export_model(make("s1-3c"), tmp_path / "file", "torch")
    monkeypatch.setattr(export, "NEEDED", ("onnx", "not_installed"))
    assert importlib.util.find_spec("not_installed") is None
    with pytest.raises(NotInstalledError, match=r"needs not_installed.*segan-ray\[export\]"):
        export_model(make("s1-3c"), tmp_path, "onnx")
