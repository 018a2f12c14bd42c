"""What our records are called in MLflow: the experiment, and the tags of its runs."""

from __future__ import annotations

from typing import Final

EXPERIMENT: Final = "segan-ray"
PARENT: Final = "mlflow.parentRunId"
KIND: Final = "segan.kind"
SWEEP: Final = "segan.sweep"
TRIAL: Final = "segan.trial"
STORE: Final = "segan.store"
STATUS: Final = "segan.status"
ENDED_BY: Final = "segan.ended_by"
EPOCHS: Final = "segan.epochs"
SCORE: Final = "segan.score"
BEST_EPOCH: Final = "segan.best_epoch"
PARAMS: Final = "segan.params"
REPEAT_OF: Final = "segan.repeat_of"
OBJECTIVES: Final = "segan.objectives"
REASON: Final = "segan.reason"
INFEASIBLE: Final = "segan.infeasible"
METRIC: Final = "segan.metric"
MODE: Final = "segan.mode"
ENSEMBLE: Final = "segan.ensemble"
"""Of a version that averages several trials: their names, the best first."""
OUTBOX: Final = "segan.outbox"
"""Of a sweep's own run: the outbox that it was recorded from last."""
