"""The facts about a sweep itself, with which each of its runs is tagged."""

from __future__ import annotations

import contextlib
import getpass
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag

from segan_ray.filesystem.locations import absolute, is_url, location_name
from segan_ray.tracking import tag_names
from segan_ray.tracking.client.connection import version_tags
from segan_ray.tracking.description.card import StoreCard
from segan_ray.training.epoch_record import Mode


@dataclass(frozen=True)
class SweepFacts:
    """What the runs of a sweep record about it."""

    name: str
    card: StoreCard
    metric: str
    mode: Mode
    objectives: tuple[tuple[str, Mode], ...] = ()

    def document(self) -> dict[str, Any]:
        """Return the facts as the outbox keeps them."""
        return {
            "name": self.name,
            "store": absolute(self.card.path),
            "fingerprint": self.card.fingerprint,
            "patients": dict(self.card.patients),
            "metric": self.metric,
            "mode": self.mode,
            "objectives": [list(each) for each in self.objectives],
        }

    @classmethod
    def of_document(cls, document: dict[str, Any]) -> SweepFacts:
        """Read back what ``document`` returned."""
        card = StoreCard(document["store"], document["fingerprint"], document["patients"])
        objectives = tuple((metric, mode) for metric, mode in document["objectives"])
        return cls(document["name"], card, document["metric"], document["mode"], objectives)

    def tags(self) -> dict[str, str]:
        """Return the tags of every run of the sweep."""
        tags = {
            tag_names.SWEEP: self.name,
            tag_names.STORE: self.card.fingerprint,
            "mlflow.source.name": "segan-ray",
            **version_tags(),
        }
        with contextlib.suppress(OSError, KeyError):
            tags["mlflow.user"] = getpass.getuser()
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            here = Path(__file__).parent
            commit = subprocess.run(
                ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
            )
            tags["mlflow.source.git.commit"] = commit.stdout.strip()
        return tags

    def parent_tags(self) -> dict[str, str]:
        """Return the tags of the sweep's own run."""
        tags = {
            **self.tags(),
            tag_names.KIND: "sweep",
            tag_names.STATUS: "running",
            tag_names.METRIC: self.metric,
            tag_names.MODE: self.mode,
        }
        if self.objectives:
            tags[tag_names.OBJECTIVES] = json.dumps(self.objectives)
        return tags

    def dataset(self) -> DatasetInput:
        """Return the store as an input of a run that trains."""
        return dataset_input(self.card, "training")


def dataset_input(card: StoreCard, context: str) -> DatasetInput:
    """Return a store as an input of a run; ``context`` is MLflow's word for its purpose."""
    where = absolute(card.path)
    dataset = Dataset(
        name=location_name(where),
        digest=card.fingerprint,
        source_type=where.partition("://")[0] if is_url(where) else "local",
        source=json.dumps({"uri": where}),
        profile=json.dumps({f"{split}_patients": n for split, n in card.patients.items()}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])
