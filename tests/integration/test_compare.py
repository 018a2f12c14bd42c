"""A comparison: killed while its second arm trains, resumed, and what is then recorded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from segan_ray.brats import REGIONS
from segan_ray.tracking.client.connection import connect, search
from segan_ray.tracking.reading.sweeps import list_sweeps, read_sweep
from tests.integration.killing import Killable
from tests.unit.command_line import refused, segan

pytestmark = [pytest.mark.endurance, pytest.mark.timeout(2400)]

ARMS: dict[str, Any] = {
    "name": "methods",
    "base": {
        "segmentor": {"base_width": 4, "depth": 2},
        "critic": {"base_width": 4, "depth": 1},
        "training": {"epochs": 2, "steps_per_epoch": 4, "batch_size": 4, "crop": 48},
    },
    "scheduler": {"type": "none"},
    "budget": {"trials": 1},
    "arms": {
        "segan": {"parameters": {"segmentor.lr": {"type": "float", "low": 1e-4, "high": 1e-2}}},
        "unet": {"base": {"variant": "unet"}},
    },
}


@dataclass
class Comparison(Killable):
    """A comparison, started and started again as a user would; its sweep is that of one arm."""

    @property
    def words(self) -> list[str]:
        return [
            "compare", str(self.store), "--arms", str(self.folder / "arms.yaml"), "--name", "m",
            "--seeds", "2", "--home", str(self.home.folder), "--resume",
            "--output", str(self.folder / "m.json"), "--page", str(self.folder / "m.html"),
        ]  # fmt: skip

    def start(self, *more: str) -> subprocess.Popen[str]:
        """Start ``segan-ray compare --resume`` as a process of its own."""
        (self.folder / "arms.yaml").write_text(yaml.safe_dump(ARMS, sort_keys=False))
        log = (self.folder / f"{self.name}.log").open("a")
        process = subprocess.Popen(
            [sys.executable, *self.program, *self.words, *more],
            stdout=log, stderr=log, text=True, env=dict(os.environ),
        )  # fmt: skip
        self.started.append(process)
        return process


@pytest.fixture
def comparison(tmp_path: Path, store: Path) -> Iterator[Comparison]:
    made = Comparison(tmp_path, store, name="m-unet")
    yield made
    made.end_all()


def test_a_killed_comparison_goes_on_with_what_is_not_done(comparison: Comparison) -> None:
    first = comparison.start()
    comparison.wait_for_epochs(1, first, limit_s=600)
    comparison.end(first, signal.SIGKILL)
    done = {trial.mlflow_run for trial in read_sweep(comparison.home, "m-segan").trials}

    assert comparison.start().wait(900) == 0, comparison.log
    document = json.loads((comparison.folder / "m.json").read_text())
    assert {trial.mlflow_run for trial in read_sweep(comparison.home, "m-segan").trials} == done
    check_document(document)
    check_records(comparison, document)
    # Nothing is left to do: the same scores again, without training or scoring.
    again = segan(*comparison.words, "--json", cwd=comparison.folder)
    assert json.loads(again.stdout) == document
    other = [word if word != "2" else "3" for word in comparison.words]
    refused(segan(*other, cwd=comparison.folder), "began otherwise: seeds was 2, is 3.")


def check_document(document: dict[str, Any]) -> None:
    assert document["equal"] == "epochs"
    segan_arm, unet = document["arms"]
    assert [segan_arm["arm"], unet["arm"]] == ["segan", "unet"]
    assert segan_arm["epochs"] == unet["epochs"] == 2
    assert unet["params"] > segan_arm["params"]
    for arm in (segan_arm, unet):
        assert (arm["seeds"], arm["failed_seeds"], len(arm["runs"])) == (2, 0, 2)
        assert len({run["seed"] for run in arm["runs"]}) == 2
        for region in REGIONS:
            assert 0 <= arm["summary"][region]["dice"]["mean"] <= 1
    (pair,) = document["differences"]
    assert pair["arms"] == ["segan", "unet"]
    means = [arm["summary"]["core"]["dice"]["mean"] for arm in (segan_arm, unet)]
    assert pair["core"]["dice"]["mean"] == pytest.approx(means[0] - means[1])


def check_records(comparison: Comparison, document: dict[str, Any]) -> None:
    sweeps = {sweep.sweep: sweep for sweep in list_sweeps(comparison.home)}
    assert set(sweeps) == {"m-segan", "m-unet"}
    assert {sweep.status for sweep in sweeps.values()} == {"finished"}
    # A trial, or one experiment, and two seeds.
    assert [len(sweeps[name].trials) for name in ("m-segan", "m-unet")] == [3, 3]
    client = connect(comparison.home)
    (parent,) = search(client, "tags.`segan.kind` = 'comparison'")
    assert parent.info.status == "FINISHED"
    files = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert files == {"arms.yaml", "comparison.json", "comparison.html"}
    arms = search(client, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert {run.info.run_name: run.info.status for run in arms} == {
        "segan": "FINISHED", "unet": "FINISHED",
    }  # fmt: skip
    for run in arms:
        (arm,) = (each for each in document["arms"] if each["arm"] == run.info.run_name)
        wanted = arm["summary"]["whole"]["dice"]["mean"]
        assert run.data.metrics["test/dice_whole"] == pytest.approx(wanted)
    assert (comparison.folder / "m.html").read_text().startswith("<!DOCTYPE html>")
