"""Promotion: the best checkpoint of a sweep, through the gate, into the registry.

Judging takes minutes and holds no lock. If another process has moved the alias meanwhile, the
candidate is judged again, against the new champion. Registering a version and moving the alias
hold a lock, so that one process at a time does so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from mlflow.entities import RunTag
from mlflow.entities.model_registry import ModelVersion

from segan_ray.data.store.cache import local_store
from segan_ray.data.store.opened_store import PreparedCase, open_gate, read_manifest
from segan_ray.data.store.prepare import OnCase, ignore_case
from segan_ray.errors import RegistryError, StoreError
from segan_ray.evaluation.inference.packaged_model import Model
from segan_ray.evaluation.scoring.gate import Verdict
from segan_ray.evaluation.scoring.model_card import Judged, model_card
from segan_ray.home import Home
from segan_ray.search.results.ranking import SweepRecord, TrialRecord
from segan_ray.tracking import tag_names
from segan_ray.tracking.client.connection import connect
from segan_ray.tracking.client.retries import said_in_words
from segan_ray.tracking.reading.sweeps import Note, ignore_note, read_sweep, store_location
from segan_ray.tracking.registry.aliases import check_movable, move_alias, registry_lock
from segan_ray.tracking.registry.model_versions import (
    MODEL,
    SHA256,
    find_alias,
    register,
    retag,
    versions_of,
)
from segan_ray.tracking.registry.package import package_model
from segan_ray.workflows.candidate import best_trials, candidate_model, folds_of
from segan_ray.workflows.gate_run import POSTPROCESSING, GateRun

GATE: Final = "segan.gate"
"""How the tags of a trial's run begin that hold the gate's last verdict on it."""


@dataclass(frozen=True)
class Promotion:
    """The outcome; ``version`` is the candidate's, or None if it was not registered.

    The candidate is the best of ``trials``, or their mean if there are several. ``forced``,
    ``dry_run`` and ``margin`` are as they were asked for.
    """

    trials: tuple[TrialRecord, ...]
    champion: dict[str, Any] | None
    """The version that it was compared with, or None."""
    verdict: Verdict
    optimistic: bool
    """Whether it was judged on the patients that chose it, since the store has no gate."""
    forced: bool
    dry_run: bool
    version: str | None
    margin: float | None = None

    @property
    def candidate(self) -> TrialRecord:
        """The best of the candidate's trials."""
        return self.trials[0]

    def document(self) -> dict[str, Any]:
        """Return the ``promote`` document.

        Where the patients are too few the ``ci95`` of ``difference`` is None. ``tries`` is the
        number of this try on these patients, and ``interval``, at ``level``, decided.
        ``failed_regions`` counts regions with Dice below 0.1. All are None where nothing was
        compared.
        """
        verdict = self.verdict
        return {
            "candidate": self.candidate.document(),
            "ensemble": [trial.trial for trial in self.trials],
            "champion": self.champion,
            "difference": _difference(verdict),
            "verdict": verdict.verdict,
            "reason": verdict.reason,
            "optimistic": self.optimistic,
            "forced": self.forced,
            "dry_run": self.dry_run,
            "version": self.version,
            "margin": self.margin,
            "tries": verdict.tries,
            "level": verdict.level,
            "interval": None if verdict.interval is None else list(verdict.interval),
            "failed_regions": _failed(verdict),
        }


def promote(
    home: Home,
    sweep: str,
    *,
    alias: str,
    ensemble: int = 1,
    non_inferior: float | None = None,
    flips: bool = False,
    dry_run: bool = False,
    force: bool = False,
    on_case: OnCase = ignore_case,
    on_note: Note = ignore_note,
) -> Promotion:
    """Judge the best checkpoint of ``sweep`` against ``alias`` and move it there if better.

    With ``ensemble`` above 1 the mean of so many trials is judged; of a trial that was trained on
    all folds it is always their mean. With ``non_inferior``, a margin in Dice, it is enough not to
    be worse by more than that. With ``flips`` the model averages over mirrored slices, at the gate
    and in every later use. The verdict is written to the trial's run, and to the version that is
    promoted. A ``dry_run`` records the try on these patients and nothing else. ``on_note`` is told
    of trials that are left out, since their runs are not as the recorder writes them.

    Raises:
        SweepError: if the sweep is unknown or has too few scored trials.
        StoreError: if the sweep's store is gone or is another now, or has no patient to judge on.
        RegistryError: if the alias or the margin is not allowed.
        TrackingError: if the registry does not answer.
    """
    check_movable(alias)
    check_margin(non_inferior)
    record = read_sweep(home, sweep, on_note)
    trials = best_trials(record, ensemble)
    store = sweep_store(home, record)
    client = connect(home)
    gate = open_gate(store)
    model = candidate_model(home, trials, store, flips=flips, on_case=on_case)
    _check_judgeable(model, gate, store)
    gate_run = GateRun(home, client, record, trials, model, store, gate, non_inferior, on_case)
    while True:
        held = find_alias(client, alias)
        decided = _decide(gate_run, held, force=force, dry_run=dry_run)
        if dry_run:
            return decided
        with said_in_words(client):
            done = _carry_out(gate_run, decided, alias, held)
        if done is not None:
            return done


def check_margin(margin: float | None) -> None:
    """Make sure that ``margin`` is a margin of Dice.

    Raises:
        RegistryError: if ``margin`` is not between 0 and 1.
    """
    if margin is not None and not 0 < margin < 1:
        raise RegistryError(
            f"--non-inferior {margin:g} is no margin of Dice. Give a number between 0 and 1, "
            "such as 0.02."
        )


def sweep_store(home: Home, record: SweepRecord) -> Path:
    """Return the store a sweep was trained on, as a folder of this machine.

    Raises:
        StoreError: if the store has moved or changed.
    """
    location = store_location(home, record.sweep)
    store = local_store(location)
    fingerprint = read_manifest(store).fingerprint
    if fingerprint != record.store:
        raise StoreError(
            f"The store {location} has fingerprint {fingerprint}; the sweep '{record.sweep}' was "
            f"trained on {record.store}. Restore that store."
        )
    return store


def _check_judgeable(model: Model, gate: tuple[PreparedCase, ...], store: Path) -> None:
    """Make sure that there are patients to judge on which no member was trained."""
    if not gate and len(folds_of(model)) > 1:
        raise StoreError(
            f"The store {store} has no gate, and the folds of this model trained on all of its "
            "other patients: nobody is left to judge it on. Prepare a store with a gate."
        )


def _decide(
    gate_run: GateRun, held: ModelVersion | None, *, force: bool, dry_run: bool
) -> Promotion:
    """Return the decision while ``held`` has the alias; only the try is recorded."""
    verdict = gate_run.judge(held)
    forced = force and verdict.verdict == "kept"
    if forced:
        verdict = replace(verdict, verdict="promoted", reason=f"Forced. {verdict.reason}")
    champion = None if held is None else _champion_facts(held)
    return Promotion(
        gate_run.trials,
        champion,
        verdict,
        not gate_run.gate,
        forced,
        dry_run,
        None,
        gate_run.margin,
    )


def _carry_out(
    gate_run: GateRun, decided: Promotion, alias: str, held: ModelVersion | None
) -> Promotion | None:
    """Carry a decision out, or return None if ``held`` no longer has the alias.

    MLflow has no compare-and-set for aliases, so the alias is read again right before it moves.
    """
    client, run = gate_run.client, gate_run.candidate.mlflow_run
    tags = _gate_tags(decided, alias)
    on_run = [RunTag(f"{GATE}.{name}", value) for name, value in tags.items()]
    if decided.verdict.verdict == "kept":
        client.log_batch(run, tags=on_run)
        return decided
    card = _card(gate_run, decided, alias)  # scores the candidate, which takes minutes
    with registry_lock(gate_run.home):
        now = find_alias(client, alias)
        if (now and now.version) != (held and held.version):
            return None
        version = _version(gate_run, _version_tags(gate_run, decided, tags), card)
        move_alias(client, alias, version)
        client.log_batch(run, tags=on_run)
    return replace(decided, version=version)


def _card(gate_run: GateRun, decided: Promotion, alias: str) -> str:
    judged = Judged(
        gate_run.ours(), decided.verdict.reason, decided.optimistic, decided.verdict.tries
    )
    names = ", ".join(trial.trial for trial in decided.trials)
    trained = f"From the sweep {gate_run.record.sweep}, trial {names}."
    return model_card(MODEL, gate_run.model, trained, judged, f"models:/{MODEL}@{alias}")


def _version(gate_run: GateRun, tags: Mapping[str, str], card: str) -> str:
    """Return the candidate's version with these tags, registered with its ``card`` if need be.

    An earlier promotion of the run, or one that was cut off, has registered it already.
    """
    client, run = gate_run.client, gate_run.candidate.mlflow_run
    registered = [
        each
        for each in versions_of(client, run)
        if each.status == "READY" and SHA256 in each.tags and gate_run.same_use(each)
    ]
    if not registered:
        package = package_model(client, run, gate_run.model, card)
        return register(client, run, tags, package, card)
    version = str(max(int(each.version) for each in registered))
    retag(client, version, tags)
    return version


def _champion_facts(held: ModelVersion) -> dict[str, str]:
    wanted = {"sweep": tag_names.SWEEP, "trial": tag_names.TRIAL, "store": tag_names.STORE}
    facts = {key: held.tags[tag] for key, tag in wanted.items() if tag in held.tags}
    return {"version": str(held.version), **facts}


def _difference(verdict: Verdict) -> dict[str, Any] | None:
    return None if verdict.difference is None else verdict.difference.as_document()


def _failed(verdict: Verdict) -> dict[str, int] | None:
    if verdict.failed is None:
        return None
    return dict(zip(("candidate", "champion"), verdict.failed, strict=True))


def _gate_tags(decided: Promotion, alias: str) -> dict[str, str]:
    """Return the verdict as tags, those of every rule included, so that no old tag remains."""
    return {
        "verdict": decided.verdict.verdict,
        "reason": f"{decided.verdict.reason}{' (optimistic)' if decided.optimistic else ''}",
        "difference": json.dumps(_difference(decided.verdict)),
        "margin": json.dumps(decided.margin),
        "forced": json.dumps(decided.forced),
        "optimistic": json.dumps(decided.optimistic),
        "alias": alias,
        "champion": json.dumps(decided.champion and decided.champion["version"]),
    }


def _version_tags(gate_run: GateRun, decided: Promotion, gate: Mapping[str, str]) -> dict[str, str]:
    record, trial = gate_run.record, decided.candidate
    return {
        tag_names.SWEEP: record.sweep,
        tag_names.TRIAL: trial.trial,
        tag_names.STORE: record.store,
        f"segan.{record.metric}": repr(trial.score),
        **gate_run.ensemble,
        "segan.flips": json.dumps(gate_run.model.postprocessing.flips),
        POSTPROCESSING: gate_run.model.postprocessing.model_dump_json(),
        "segan.verdict": gate["reason"],
        **{f"segan.{name}": gate[name] for name in gate if name not in ("verdict", "reason")},
    }
