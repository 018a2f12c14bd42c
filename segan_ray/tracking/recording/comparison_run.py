"""The MLflow runs of a comparison: its own, and under it one for each arm.

The trials of an arm are under the run of its sweep, which the arm's run names. An arm's run has a
table of all its scores, so that a comparison that goes on need not score the arm again.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from segan_ray.brats import REGIONS
from segan_ray.errors import SweepError
from segan_ray.evaluation.scoring.arms import ScoredArm, arm_table, seeds_of
from segan_ray.evaluation.scoring.case_files import ENDINGS, encode_table
from segan_ray.home import Home
from segan_ray.tracking import tag_names
from segan_ray.tracking.client.connection import connect, experiment_id, search, version_tags
from segan_ray.tracking.client.retries import said_in_words
from segan_ray.tracking.description.card import StoreCard
from segan_ray.tracking.description.facts import dataset_input
from segan_ray.tracking.description.notes import NOTE, comparison_note
from segan_ray.tracking.recording.evaluation_run import Summary, summary_means

COMPARISON: Final = "segan.comparison"
ARM: Final = "segan.arm"
ARM_SWEEP: Final = "segan.arm.sweep"
ASKED: Final = "segan.comparison.asked"
ARMS_FILE: Final = "arms.yaml"
DOCUMENT: Final = "comparison.json"
PAGE: Final = "comparison.html"
TABLE: Final = "cases.parquet"
SCORED: Final = "segan.arm.scored"


@dataclass(frozen=True)
class ComparisonRun:
    """The open run of a comparison."""

    client: MlflowClient
    experiment: str
    name: str
    card: StoreCard
    id: str
    is_new: bool

    def recorded(self, arm: ScoredArm, trials: Sequence[str]) -> ScoredArm | None:
        """Return ``arm`` with the seeds of ``trials``, or None unless all were scored before."""
        with said_in_words(self.client):
            run = self._arm_run(arm.arm)
            if run is None or SCORED not in run.data.tags:
                return None
            seeds = seeds_of(_read_table(self.client, run))
        whole = [seed.trial for seed in seeds] == [*trials]
        return replace(arm, seeds=seeds) if whole else None

    def record_arm(self, arm: ScoredArm) -> None:
        """Record the scores of one arm as a run below this one."""
        document = arm.document()
        regions: Summary = {region: document["summary"][region] for region in REGIONS}
        means = {
            **summary_means(regions),
            "model/parameters": float(arm.params),
            "time/epoch_s": arm.seconds_per_epoch,
        }
        with said_in_words(self.client):
            found = self._arm_run(arm.arm)
            run = self._create_arm(arm) if found is None else str(found.info.run_id)
            self._describe_arm(run, arm)
            now = int(time.time() * 1000)
            self.client.log_batch(
                run, metrics=[Metric(name, value, now, 0) for name, value in means.items()]
            )
            with tempfile.TemporaryDirectory() as folder:
                for ending in ENDINGS:
                    path = Path(folder) / f"cases{ending}"
                    path.write_bytes(encode_table(arm_table(arm), ending))
                    self.client.log_artifact(run, str(path))
            self.client.set_terminated(run)
            self.client.set_tag(run, SCORED, "true")

    @contextlib.contextmanager
    def ended_with(self) -> Iterator[None]:
        """End the run as killed where the block is left by an error or a signal."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(MlflowException, SQLAlchemyError, OSError):
                self.client.set_terminated(self.id, "KILLED")
            raise

    def finish(self, document: Mapping[str, Any], page: str) -> None:
        """Log the ``compare`` document and its page, and end the run."""
        with said_in_words(self.client):
            self.client.log_text(self.id, json.dumps(document, indent=1), DOCUMENT)
            self.client.log_text(self.id, page, PAGE)
            self.client.set_tag(self.id, NOTE, comparison_note(document))
            self.client.set_terminated(self.id)

    def _arm_run(self, arm: str) -> Run | None:
        query = f"tags.`{tag_names.PARENT}` = '{self.id}' and tags.`{ARM}` = '{arm}'"
        return next(iter(search(self.client, query)), None)

    def _create_arm(self, arm: ScoredArm) -> str:
        tags = {
            tag_names.KIND: "arm",
            tag_names.PARENT: self.id,
            tag_names.STORE: self.card.fingerprint,
            COMPARISON: self.name,
            ARM: arm.arm,
            ARM_SWEEP: arm.sweep,
            **version_tags(),
        }
        return str(self.client.create_run(self.experiment, run_name=arm.arm, tags=tags).info.run_id)

    def _describe_arm(self, run: str, arm: ScoredArm) -> None:
        settings = {**arm.settings, "training.epochs": arm.epochs}
        params = [Param(name, str(value)) for name, value in settings.items()]
        self.client.log_batch(run, params=params)
        self.client.log_inputs(run, datasets=[dataset_input(self.card, "testing")])


def open_comparison(
    home: Home,
    name: str,
    card: StoreCard,
    arms_text: str,
    asked: Mapping[str, Any],
    *,
    resume: bool,
) -> ComparisonRun:
    """Make the run of a comparison, or find the one that ``resume`` goes on with.

    ``asked`` is what must be the same when it goes on, by what it is called.

    Raises:
        SweepError: if the name is taken, or the comparison began with another store or otherwise.
        TrackingError: if MLflow cannot be reached.
    """
    client = connect(home)
    with said_in_words(client):
        experiment = experiment_id(client, home)
        query = f"tags.`{tag_names.KIND}` = 'comparison' and tags.`{COMPARISON}` = '{name}'"
        found = next(iter(search(client, query)), None)
        wanted = {"store": card.fingerprint, **asked}
        if found is not None:
            if not resume:
                raise SweepError(
                    f"A comparison named '{name}' exists already. Choose another --name, or "
                    "--resume it."
                )
            _check_same(name, found, wanted)
            run = str(found.info.run_id)
            client.update_run(run, status="RUNNING")
        else:
            tags = {
                tag_names.KIND: "comparison",
                tag_names.STORE: card.fingerprint,
                COMPARISON: name,
                ASKED: json.dumps(wanted, sort_keys=True),
                **version_tags(),
            }
            run = str(client.create_run(experiment, run_name=name, tags=tags).info.run_id)
        client.log_text(run, arms_text, ARMS_FILE)
        client.log_inputs(run, datasets=[dataset_input(card, "testing")])
    return ComparisonRun(client, experiment, name, card, run, is_new=found is None)


def _check_same(name: str, run: Run, wanted: Mapping[str, Any]) -> None:
    before = json.loads(run.data.tags.get(ASKED, "{}"))
    changed = [
        f"{key} was {before.get(key)!r}, is {value!r}"
        for key, value in wanted.items()
        if before.get(key) != value
    ]
    if changed:
        raise SweepError(
            f"The comparison '{name}' began otherwise: {'; '.join(changed)}. Resume it as it "
            "began, or choose another --name."
        )


def _read_table(client: MlflowClient, run: Run) -> pd.DataFrame:
    with tempfile.TemporaryDirectory() as into:
        path = mlflow.artifacts.download_artifacts(
            f"{run.info.artifact_uri}/{TABLE}", dst_path=into, tracking_uri=client.tracking_uri
        )
        return pd.read_parquet(path)
