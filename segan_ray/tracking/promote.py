"""Promotion: the best checkpoint of a sweep, through the gate, into the registry."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from segan_ray.data.cache import local_store
from segan_ray.data.prepare import OnCase, ignore_case
from segan_ray.data.store import PreparedCase, open_for_tuning, open_gate, read_manifest
from segan_ray.errors import StoreError, SweepError
from segan_ray.evaluation.gate import Verdict, first_champion, judge
from segan_ray.evaluation.scores import CaseScores
from segan_ray.evaluation.scoring import checkpoint_predictor, score_cases
from segan_ray.home import Home
from segan_ray.search.ranking import SweepRecord, TrialRecord, winner
from segan_ray.tracking import client as names
from segan_ray.tracking.candidate import candidate_model
from segan_ray.tracking.client import connect
from segan_ray.tracking.package import package_model
from segan_ray.tracking.registry import check_alias, fetched, find_alias, move_alias, register
from segan_ray.tracking.sweeps import read_sweep, store_place


@dataclass(frozen=True)
class Promotion:
    """What came of it; ``version`` is the candidate's, or None if it was not registered."""

    candidate: TrialRecord
    champion: dict[str, Any] | None
    verdict: Verdict
    optimistic: bool
    forced: bool
    dry_run: bool
    version: str | None

    def document(self) -> dict[str, Any]:
        """Return the ``promote`` document."""
        difference = self.verdict.difference
        return {
            "candidate": self.candidate.document(),
            "champion": self.champion,
            "difference": None if difference is None else difference.as_document(),
            "verdict": self.verdict.verdict,
            "reason": self.verdict.reason,
            "optimistic": self.optimistic,
            "forced": self.forced,
            "dry_run": self.dry_run,
            "version": self.version,
        }


def promote(
    home: Home,
    sweep: str,
    *,
    alias: str,
    dry_run: bool = False,
    force: bool = False,
    on_case: OnCase = ignore_case,
) -> Promotion:
    """Judge the best checkpoint of ``sweep`` against ``alias`` and move it there if better.

    Raises:
        SweepError: if the sweep is unknown or has no scored trial.
        StoreError: if the sweep's store is gone or is another now.
    """
    check_alias(alias)
    record = read_sweep(home, sweep)
    candidate = _best_ended(record)
    store = sweep_store(home, record)
    cases = open_gate(store)
    optimistic = not cases
    client = connect(home)
    held = find_alias(client, alias)
    champion = None
    if held is None:
        verdict = first_champion()
    else:
        champion = {"version": str(held.version), **_champion_facts(held.tags)}
        fold = fold_of(client, candidate.mlflow_run)
        if optimistic and fold_of(client, str(held.run_id)) != fold:
            verdict = _other_fold(fold)
        else:
            verdict = _compare(
                home, record, candidate, held.tags, f"models:/segan/{held.version}",
                cases or open_for_tuning(store, fold).val, on_case,
            )  # fmt: skip
    forced = force and verdict.verdict == "kept"
    if forced:
        verdict = Verdict("promoted", f"Forced. {verdict.reason}", verdict.difference)
    version = None
    if not dry_run and verdict.verdict == "promoted":
        model = candidate_model(home, record, candidate)
        tags = _version_tags(record, candidate, verdict, optimistic=optimistic, forced=forced)
        package = package_model(client, candidate.mlflow_run, model)
        version = register(client, candidate.mlflow_run, tags, package)
        move_alias(client, alias, version)
    return Promotion(candidate, champion, verdict, optimistic, forced, dry_run, version)


def fold_of(client: MlflowClient, run: str) -> int | None:
    """Return the fold of the store that a run trained on, or None for the single split."""
    fold = client.get_run(run).data.params.get("data.fold", "None")
    return None if fold == "None" else int(fold)


def _best_ended(record: SweepRecord) -> TrialRecord:
    """Return the winner of those that have ended: only then is its checkpoint with the records."""
    ended = [trial for trial in record.trials if trial.status in ("completed", "stopped")]
    best = winner(ended, record.mode)
    if best is None:
        raise SweepError(f"The sweep '{record.sweep}' has no ended trial with a score to promote.")
    return best


def sweep_store(home: Home, record: SweepRecord) -> Path:
    """Return the store a sweep was trained on, as a folder of this machine.

    Raises:
        StoreError: if it is not where it was, or is not what it was.
    """
    where = store_place(home, record.sweep)
    store = local_store(where)
    found = read_manifest(store).fingerprint
    if found != record.store:
        raise StoreError(
            f"The store {where} has fingerprint {found}; the sweep '{record.sweep}' was trained "
            f"on {record.store}. Restore that store."
        )
    return store


def _other_fold(fold: int | None) -> Verdict:
    ours = "the single split" if fold is None else f"fold {fold}"
    return Verdict(
        "kept",
        "The store has no gate, so models are judged on the patients that chose them; the "
        f"champion was not trained on {ours}, so it may have trained on those patients.",
    )


def _compare(
    home: Home,
    record: SweepRecord,
    candidate: TrialRecord,
    champion_tags: dict[str, str],
    champion: str,
    cases: Sequence[PreparedCase],
    on_case: OnCase,
) -> Verdict:
    if champion_tags.get(names.STORE) != record.store:
        return Verdict(
            "kept",
            f"The champion was trained on store {champion_tags.get(names.STORE)}, this sweep on "
            f"{record.store}: their patients differ, so they cannot be compared.",
        )
    ours = _score(home, _checkpoint_uri(candidate), cases, on_case)
    theirs = _score(home, champion, cases, on_case)
    return judge(ours, theirs)


def _checkpoint_uri(trial: TrialRecord) -> str:
    return f"runs:/{trial.mlflow_run}/checkpoint"


def _score(
    home: Home, model: str, cases: Sequence[PreparedCase], on_case: OnCase
) -> list[CaseScores]:
    with fetched(home, model) as found:
        return score_cases(checkpoint_predictor(found.folder), cases, on_case)


def _champion_facts(tags: dict[str, str]) -> dict[str, str]:
    wanted = {"sweep": names.SWEEP, "trial": names.TRIAL, "store": names.STORE}
    return {key: tags[tag] for key, tag in wanted.items() if tag in tags}


def _version_tags(
    record: SweepRecord,
    trial: TrialRecord,
    verdict: Verdict,
    *,
    optimistic: bool,
    forced: bool,
) -> dict[str, str]:
    difference = None if verdict.difference is None else verdict.difference.as_document()
    return {
        names.SWEEP: record.sweep,
        names.TRIAL: trial.trial,
        names.STORE: record.store,
        f"segan.{record.metric}": repr(trial.score),
        "segan.verdict": f"{verdict.reason}{' (optimistic)' if optimistic else ''}",
        "segan.difference": json.dumps(difference),
        "segan.forced": str(forced).lower(),
        "segan.optimistic": str(optimistic).lower(),
    }
