"""The registered model as MLflow runs it; this file is copied into every version as its code.

MLflow executes the copy when it loads a version, with the ``segan_ray`` beside it first on the
path. Nothing is unpickled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from segan_ray.evaluation.inference.checksums import compare_checksums
from segan_ray.evaluation.inference.packaged_model import load_model
from segan_ray.evaluation.inference.raw_cases import SPACING_MM, predict_arrays


class SeganModel(PythonModel):
    """Raw arrays of cases → label maps or probabilities."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the model after checking that its files are the packaged ones."""
        folder = Path(context.artifacts["model"])
        compare_checksums(folder)
        self.model = load_model(folder)

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002 - MLflow's signature
        model_input: np.ndarray,
        params: dict[str, Any] | None = None,
    ) -> np.ndarray:
        """Return the result of ``predict_arrays``, which documents the arguments."""
        options = params or {}
        return predict_arrays(
            self.model,
            model_input,
            output=options.get("output", "labels"),
            spacing_mm=options.get("spacing_mm", SPACING_MM),
        )


set_model(SeganModel())
