"""The MLflow runs of one sweep: found by their tags, made only where none is found."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

from mlflow import MlflowClient
from mlflow.entities import Run

from segan_ray.errors import TrackingError
from segan_ray.home import NAME, Home
from segan_ray.tracking import tag_names
from segan_ray.tracking.client.connection import (
    Check,
    always,
    checked,
    connect,
    experiment_id,
    search,
)
from segan_ray.tracking.client.retries import persistently, said_in_words
from segan_ray.tracking.description.facts import SweepFacts
from segan_ray.tracking.description.notes import NOTE, describe_experiment, sweep_note, trial_note
from segan_ray.tracking.outbox import Record
from segan_ray.tracking.reading.run_tags import epochs_if_told, tagged

SPACE: str = "space.yaml"


@dataclass(frozen=True)
class SweepRuns:
    """The runs of a sweep: ``parent``, which is its own, and exactly one per trial."""

    client: MlflowClient
    experiment: str
    facts: SweepFacts
    parent: str
    _known: dict[str, str] = field(default_factory=dict)

    def own(self, space_text: str | None) -> str:
        """Find or make the sweep's own run, and log the text of its space file."""
        parents = self._parents()
        if not parents:
            note = sweep_note(self.facts, space_text, self.experiment)
            tags = {**self.facts.parent_tags(), NOTE: note}
            self.client.create_run(self.experiment, run_name=self.facts.name, tags=tags)
            parents = self._parents()
        parent, *doubles = [str(run.info.run_id) for run in parents]
        for double in doubles:
            self.client.delete_run(double)
        if space_text is not None:
            if not any(item.path == SPACE for item in self.client.list_artifacts(parent)):
                self.client.log_text(parent, space_text, SPACE)
            self.client.log_inputs(parent, [self.facts.dataset()])
        return parent

    def outbox(self) -> str | None:
        """Return the name of the outbox that the sweep was recorded from last, if MLflow has it.

        Raises:
            TrackingError: if MLflow cannot be read.
        """
        with said_in_words(self.client):
            tags = persistently(lambda: self.client.get_run(self.parent)).data.tags
        return tags.get(tag_names.OUTBOX)

    def all(self, query: str) -> list[Run]:
        """Return the trials' runs that match ``query``."""
        return self._search(f"tags.`{tag_names.KIND}` = 'trial' and {query}")

    def know_trials(self) -> list[Run]:
        """Return the runs that trials have already, one per trial, and remember them.

        Raises:
            TrackingError: if MLflow cannot be read, or a run names no trial.
        """
        with said_in_words(self.client):
            runs = persistently(lambda: self.all("attributes.run_id != ''"))
        for run in runs:
            self._known.setdefault(self._trial_of(run), run.info.run_id)
        return [run for run in runs if run.info.run_id in self._known.values()]

    def _trial_of(self, run: Run) -> str:
        trial = str(run.data.tags.get(tag_names.TRIAL, ""))
        if not NAME.fullmatch(trial):
            raise TrackingError(
                f"MLflow's run {run.info.run_id} of '{self.facts.name}' says in "
                f"{tag_names.TRIAL} that it is trial '{trial}'; expected a number such as 007, "
                "since it names a folder. "
                "Find out who changed the run, and delete it in MLflow."
            )
        return trial

    def run_id(self, trial: str) -> str | None:
        """Return the remembered run of ``trial``, without asking MLflow."""
        return self._known.get(trial)

    def of(self, trial: str) -> str:
        """Return the run of ``trial``.

        Raises:
            ValueError: if MLflow refused to make it, or it was deleted.
        """
        if trial not in self._known and self.find(trial) is None:
            raise ValueError(f"Trial {trial} has no run.")
        return self._known[trial]

    def find(self, trial: str) -> Run | None:
        """Return the run of ``trial`` as MLflow has it now, or None."""
        runs = self._all_of(trial)
        remembered = [run for run in runs if run.info.run_id == self._known.get(trial)]
        run = next(iter(remembered or runs), None)
        if run is not None:
            self._known[trial] = run.info.run_id
        return run

    def create(self, trial: str, start: Record) -> str:
        """Make the run of ``trial`` from its ``start`` record and return its id."""
        tags = {
            **self.facts.tags(),
            tag_names.KIND: "trial",
            tag_names.TRIAL: trial,
            tag_names.STATUS: "running",
            tag_names.EPOCHS: "0",
            tag_names.PARAMS: json.dumps(start.facts["params"]),
        }
        repeat_of, params = start.facts["repeat_of"], start.facts["params"]
        tags[tag_names.PARENT] = self.parent
        tags[NOTE] = trial_note(self.facts, self.parent, self.experiment, params, repeat_of)
        if repeat_of is not None:
            tags[tag_names.REPEAT_OF] = repeat_of
        name = f"{self.facts.name}-{trial}"
        run = self.client.create_run(self.experiment, start.at, tags, run_name=name)
        self._known[trial] = run.info.run_id
        return self._known[trial]

    def delete_doubles(self, trial: str) -> None:
        """Delete all other runs of a trial: a slow server may have made two."""
        for other in self._all_of(trial):
            if other.info.run_id != self.of(trial):
                self.client.delete_run(other.info.run_id)

    def _all_of(self, trial: str) -> list[Run]:
        return self.all(f"tags.`{tag_names.TRIAL}` = '{trial}'")

    def _parents(self) -> list[Run]:
        return self._search(f"tags.`{tag_names.KIND}` = 'sweep'")

    def _search(self, query: str) -> list[Run]:
        """Return the runs of this sweep that match ``query``, those with most epochs first."""
        mine = f"tags.`{tag_names.SWEEP}` = '{self.facts.name}'"
        return sorted(search(self.client, f"{mine} and {query}"), key=_most_epochs)


def reach(
    home: Home, facts: SweepFacts, space_text: str | None, check: Check = always
) -> SweepRuns:
    """Return the runs of a sweep, its own made if need be; ``check`` runs before each request.

    Raises:
        TrackingError: if MLflow cannot be reached or written.
    """
    client = checked(connect(home), check)
    with said_in_words(client):
        experiment = experiment_id(client, home)
        # A database may refuse one of two sweeps that describe the experiment at once.
        persistently(lambda: describe_experiment(client, experiment))
        runs = SweepRuns(client, experiment, facts, "")
        return replace(runs, parent=persistently(lambda: runs.own(space_text)))


def _most_epochs(run: Run) -> tuple[int, str]:
    """Sort by epochs, most first, then by id, so that the order stays the same."""
    return -epochs_if_told(tagged(run)), run.info.run_id
