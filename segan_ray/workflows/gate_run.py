"""A gate run: the candidate of a sweep is judged against champions on the gate's patients."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from segan_ray.data.store.opened_store import PreparedCase, open_for_tuning
from segan_ray.data.store.prepare import OnCase
from segan_ray.errors import CheckpointError, RegistryError, RunError, cut
from segan_ray.evaluation.inference.packaged_model import Model, load_model
from segan_ray.evaluation.metrics.intervals import MINIMUM_PATIENTS
from segan_ray.evaluation.metrics.scores import CaseScores
from segan_ray.evaluation.scoring.gate import Verdict, first_champion, judge
from segan_ray.evaluation.scoring.score_cases import model_predictor, score_cases
from segan_ray.home import Home
from segan_ray.search.results.ranking import SweepRecord, TrialRecord
from segan_ray.tracking import tag_names
from segan_ray.tracking.reading.run_tags import NUMBER
from segan_ray.tracking.registry.model_versions import MODEL, fetched
from segan_ray.tracking.registry.tries import count_try
from segan_ray.workflows.candidate import folds_of

POSTPROCESSING: Final = "segan.postprocessing"
"""The tag of a version that holds its postprocessing: thresholds, smallest pieces, mirroring."""


@dataclass(frozen=True)
class GateRun:
    """The candidate of a sweep, and how it is judged; no model is scored twice.

    Of several ``trials``, the best first, the candidate is their mean. It is registered with the
    run of the best.
    """

    home: Home
    client: MlflowClient
    record: SweepRecord
    trials: tuple[TrialRecord, ...]
    model: Model
    store: Path
    gate: tuple[PreparedCase, ...]
    margin: float | None
    on_case: OnCase
    scored: dict[str, list[CaseScores]] = field(default_factory=dict)

    @property
    def candidate(self) -> TrialRecord:
        """The best of the candidate's trials."""
        return self.trials[0]

    @property
    def ensemble(self) -> dict[str, str]:
        """The tag that lists the candidate's trials; nothing of a single one."""
        names = [trial.trial for trial in self.trials]
        return {tag_names.ENSEMBLE: json.dumps(names)} if len(names) > 1 else {}

    def judge(self, champion: ModelVersion | None) -> Verdict:
        """Return the verdict on the candidate against ``champion``."""
        if champion is None:
            return first_champion()
        reason = self._apart(champion)
        if reason:
            return Verdict("kept", reason)
        ours = self.ours()
        if champion.run_id == self.candidate.mlflow_run and self.same_use(champion):
            there = f"It is the champion already, as version {champion.version}."
            return Verdict("kept", there, judge(ours, ours).difference)
        try:
            theirs = self._theirs(f"models:/{MODEL}/{champion.version}")
        except (CheckpointError, RegistryError) as error:
            return Verdict(
                "kept",
                f"The champion cannot be used: {error} Nothing was compared; --force promotes all "
                "the same.",
            )
        # The try is counted before the verdict is known, so that a killed process cannot skip it.
        return judge(ours, theirs, margin=self.margin, tries=self._count(champion))

    def _count(self, champion: ModelVersion) -> int:
        """Return the number of this try on these patients.

        Too few patients promote nothing, so no try on them is counted.
        """
        cases = self._cases()
        if len({case.record.patient for case in cases}) < MINIMUM_PATIENTS:
            return 1
        question = {
            "candidate": self.candidate.mlflow_run,
            "postprocessing": self.model.postprocessing.model_dump(),
            "champion": str(champion.version),
            **self.ensemble,
        }
        return count_try(self.home, self.client, cases, question)

    def same_use(self, version: ModelVersion) -> bool:
        """Whether ``version``, of the candidate's run, is the candidate with its postprocessing."""
        return version.tags.get(
            POSTPROCESSING
        ) == self.model.postprocessing.model_dump_json() and version.tags.get(
            tag_names.ENSEMBLE
        ) == self.ensemble.get(tag_names.ENSEMBLE)

    def _apart(self, champion: ModelVersion) -> str | None:
        """Return why ``champion`` cannot be compared with the candidate, or None."""
        store = champion.tags.get(tag_names.STORE)
        if store is None:
            return (
                f"The champion, version {champion.version}, does not say which store it was "
                "trained on, so nobody can tell which patients it has seen."
            )
        if store != self.record.store:
            return (
                f"The champion was trained on store {store}, this sweep on {self.record.store}: "
                "their patients or their splits differ, so they cannot be compared."
            )
        (fold, *others) = folds_of(self.model)
        assert self.gate or not others, "folds that are averaged are judged by a gate"
        if self.gate or _fold_if_known(self.client, champion.run_id) == (fold,):
            return None
        ours = "the single split" if fold is None else f"fold {fold}"
        return (
            "The store has no gate, so models are judged on the patients that chose them; the "
            f"champion was not trained on {ours}, so it may have trained on those patients."
        )

    def ours(self) -> list[CaseScores]:
        """Return the candidate's scores on the patients that it is judged on."""
        return self._score("", self.model)

    def _theirs(self, champion: str) -> list[CaseScores]:
        if champion not in self.scored:
            with fetched(self.home, champion) as source:
                self._score(champion, load_model(source.folder))
        return self.scored[champion]

    def _score(self, name: str, model: Model) -> list[CaseScores]:
        if name not in self.scored:
            self.scored[name] = score_cases(model_predictor(model), self._cases(), self.on_case)
        return self.scored[name]

    def _cases(self) -> tuple[PreparedCase, ...]:
        """Return the cases of the gate, or of validation where the store has no gate."""
        if self.gate:
            return self.gate
        (fold,) = folds_of(self.model)
        return open_for_tuning(self.store, fold).val


def fold_of(client: MlflowClient, run: str) -> int | None:
    """Return the fold of the store that a run trained on, or None for the single split.

    Raises:
        RunError: if its parameter is neither a number nor None.
    """
    fold = client.get_run(run).data.params.get("data.fold", "None")
    if fold != "None" and not NUMBER.fullmatch(fold):
        raise RunError(run, f"its parameter data.fold is '{cut(fold)}', expected a number or None")
    return None if fold == "None" else int(fold)


def _fold_if_known(client: MlflowClient, run: str | None) -> tuple[int | None] | None:
    """Return the fold of a run, in a tuple since it may be None, or None if the run is gone."""
    try:
        return (fold_of(client, str(run)),)
    except (MlflowException, RunError):
        return None
