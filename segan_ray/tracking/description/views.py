"""Saved views of the experiment in MLflow's UI: which runs, which columns, in which order.

MLflow keeps a view as a tag of the experiment, with the state of the page as JSON, and lists it
under *Views*; ``?viewStateShareKey=<its key>`` opens it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from mlflow import MlflowClient

from segan_ray.brats import REGIONS
from segan_ray.errors import RunError
from segan_ray.home import Home
from segan_ray.tracking import tag_names
from segan_ray.tracking.reading.reader import open_reader
from segan_ray.tracking.reading.run_tags import read_params

TAG: Final = "mlflow.sharedViewState."
MODEL_TRAINING: Final = {"workflowType": "machine_learning"}
"""Asks for the UI's pages of model training; MLflow shows its pages for chats by default."""
SCORE: Final = "val/dice_mean"
TEST_SCORE: Final = "test/dice_mean"
WIDTH: Final = 125
WIDTHS: Final = {"attributes.`Run Name`": 290, "runDateAndNestInfo": 120, "duration": 80}
FIRST: Final = ("attributes.`Run Name`", "runDateAndNestInfo")
"""Columns of every view, by MLflow's names; widths are in pixels."""
DATASET: Final = "attributes.`Dataset`"
MOST_PARAMS: Final = 8
"""More columns than this do not fit a screen."""


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


@dataclass(frozen=True)
class View:
    """One saved view: ``query`` selects its runs, ``metrics`` and ``tags`` are its columns."""

    key: str
    name: str
    query: str
    order: str
    metrics: Sequence[str]
    tags: Sequence[str]

    def tag(self, params: Iterable[str]) -> tuple[str, str]:
        """Return the experiment's tag that holds the view, with columns for ``params`` too."""
        columns = [_column("metrics", name) for name in self.metrics]
        columns += [_column("params", name) for name in params]
        columns += [_column("tags", name) for name in self.tags]
        columns.append(DATASET)
        state = {
            "searchFilter": self.query,
            "orderByKey": self.order,
            "orderByAsc": False,
            "selectedColumns": columns,
            "columnOrder": [*FIRST, *columns, "duration"],
            "columnWidths": {**dict.fromkeys(columns, WIDTH), **WIDTHS},
            "runsHiddenMode": "SHOW_ALL",
        }
        # The time is a constant, so that equal views are equal texts.
        envelope = {"name": self.name, "createdAt": 0, "state": json.dumps(state)}
        return f"{TAG}{self.key}", json.dumps(envelope)


def _dice(split: str) -> list[str]:
    return [f"{split}/dice_{region}" for region in REGIONS]


SWEEPS: Final = View(
    key="segan-sweeps",
    name="Sweeps and their trials",
    query="",
    # MLflow folds the runs of a sweep under it in this order only.
    order="attributes.start_time",
    # Evaluations are among the runs too.
    metrics=[SCORE, *_dice("val"), TEST_SCORE],
    tags=[tag_names.STATUS, tag_names.EPOCHS],
)
TRIALS: Final = View(
    key="segan-trials",
    name="All trials, best first",
    query=f"tags.`{tag_names.KIND}` = 'trial'",
    order=_column("metrics", SCORE),
    metrics=[SCORE, *_dice("val")],
    tags=[tag_names.SWEEP, tag_names.STATUS, tag_names.EPOCHS],
)
EVALUATIONS: Final = View(
    key="segan-evaluations",
    name="Evaluations on test patients",
    query=f"tags.`{tag_names.KIND}` = 'evaluation'",
    order="attributes.start_time",
    metrics=[TEST_SCORE, *_dice("test"), "test/hd95_whole"],
    tags=[tag_names.SWEEP, "segan.model_version"],
)


def save_views(client: MlflowClient, experiment: str, home: Home) -> None:
    """Write the views to the experiment, except those that are there already."""
    there = client.get_experiment(experiment).tags
    params = drawn_settings(client, home)
    for view, columns in ((SWEEPS, params), (TRIALS, params), (EVALUATIONS, ())):
        key, value = view.tag(columns)
        if there.get(key) != value:
            client.set_experiment_tag(experiment, key, value)


def drawn_settings(client: MlflowClient, home: Home) -> list[str]:
    """Return the settings that sweeps draw, the newest sweep's settings first.

    Reading thousands of trials is slow: only tags are read of all, and parameters of the first
    trial with each setting.
    """
    newest: dict[str, str] = {}
    for run in open_reader(home).runs(tag_names.KIND, "trial"):
        with contextlib.suppress(RunError):
            newest |= {name: run.run for name in read_params(run) if name not in newest}
    logged = {run: client.get_run(run).data.params for run in dict.fromkeys(newest.values())}
    return [name for name, run in newest.items() if name in logged[run]][:MOST_PARAMS]


def view_page(experiment: str, view: View) -> str:
    """Return the address of ``view`` in MLflow's UI, from the ``#`` on."""
    return _runs_page(experiment, viewStateShareKey=view.key)


def trials_page(experiment: str, sweep: str, *, charts: bool = False) -> str:
    """Return the address of a sweep's trials in the UI, a table or charts, from the ``#`` on."""
    query = f"tags.`{tag_names.KIND}` = 'trial' and tags.`{tag_names.SWEEP}` = '{sweep}'"
    shown = {"compareRunsMode": "CHART"} if charts else {}
    order = {"orderByKey": _column("metrics", SCORE), "orderByAsc": "false"}
    return _runs_page(experiment, searchFilter=query, **order, **shown)


def run_page(experiment: str, run: str) -> str:
    """Return the address of a run in the UI, from the ``#`` on."""
    return f"#/experiments/{experiment}/runs/{run}?{urlencode(MODEL_TRAINING)}"


def _runs_page(experiment: str, **query: str) -> str:
    return f"#/experiments/{experiment}/runs?{urlencode({**query, **MODEL_TRAINING})}"
