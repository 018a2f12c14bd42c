"""The driver of one trial: a Ray Tune function that runs a Ray Train worker group.

Imports stay light: each trial starts this in a process of its own, and every second spent
importing here comes before the first training step.
"""

from __future__ import annotations

from typing import Any

from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.tune.integration.ray_train import TuneReportCallback


def run_trial(config: dict[str, Any]) -> None:
    """Train one trial's experiment to its end.

    ``config`` holds the trial's name, the nested experiment, where the store is, the folder
    checkpoints go to, and the objective that tells the best of them.
    """
    from ray.train.torch import TorchTrainer

    from segan_ray.orchestration.worker import train_worker

    resources = config["experiment"]["resources"]
    TorchTrainer(
        train_worker,
        train_loop_config={key: config[key] for key in ("experiment", "store", "metric", "mode")},
        scaling_config=ScalingConfig(
            num_workers=resources["workers"],
            use_gpu=resources["gpus_per_worker"] > 0,
            resources_per_worker={
                "CPU": resources["cpus_per_worker"],
                **({"GPU": resources["gpus_per_worker"]} if resources["gpus_per_worker"] else {}),
            },
        ),
        run_config=RunConfig(
            # Named after the trial, so that a trial started again finds its own checkpoints.
            name=config["trial"],
            storage_path=config["checkpoints"],
            callbacks=[TuneReportCallback()],  # type: ignore[list-item]
            failure_config=FailureConfig(max_failures=config["max_failures"]),
            checkpoint_config=CheckpointConfig(
                num_to_keep=2,
                checkpoint_score_attribute=config["metric"],
                checkpoint_score_order=config["mode"],
            ),
        ),
    ).fit()
