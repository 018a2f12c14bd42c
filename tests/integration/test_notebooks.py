"""The notebooks of ``examples/`` in a real kernel of Jupyter, and what its user relies on."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "site"))

from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook
from notebooks import EXAMPLES, ORDER, client, environment, read

from segan_ray.home import Home
from segan_ray.tracking.reading.sweeps import read_sweep

pytestmark = pytest.mark.full

SMALL = {
    "first_sweep": {
        "CASES": 12, "SPACING_MM": 8.0, "TRIALS": 2, "EPOCHS": 2, "STEPS": 3, "CROP": 32,
        "WIDTH": 4,
    },
    "own_brats_folder": {"STAND_INS": 8, "SPACING_MM": 8.0, "FOLDS": 2},
    "read_a_sweep": {},
    "compare_arms": {
        "TRIALS": 1, "SEEDS": 1, "EPOCHS": 1, "STEPS": 2, "CROP": 32, "WIDTH": 4,
    },
    "raw_arrays": {},
}  # fmt: skip


@dataclass
class Ran:
    """A notebook that was run, and the messages that each of its cells sent by kind."""

    notebook: NotebookNode
    sent: dict[int, Counter[str]] = field(default_factory=dict)

    def cell(self, source: str) -> tuple[int, NotebookNode]:
        """The cell that holds this text, and its position."""
        ((at, cell),) = [
            (at, cell)
            for at, cell in enumerate(self.notebook.cells)
            if cell.cell_type == "code" and source in cell.source
        ]
        return at, cell

    def text(self, source: str) -> str:
        """The text that the cell puts out, of displays too."""
        return "".join(text_of(output) for output in self.cell(source)[1].outputs)


def text_of(output: NotebookNode) -> str:
    if output.output_type == "stream":
        return str(output.text)
    return str(output.get("data", {}).get("text/plain", ""))


def ran(notebook: NotebookNode, folder: Path, **options: Any) -> Ran:
    """Run a notebook in a kernel, and count what its cells send."""
    told = Ran(notebook)
    kernel: NotebookClient = client(notebook, folder, **options)
    take = kernel.process_message

    def count(message: dict[str, Any], cell: NotebookNode, at: int) -> Any:
        told.sent.setdefault(at, Counter())[message["msg_type"]] += 1
        return take(message, cell, at)

    kernel.process_message = count
    kernel.execute(env=environment(100))
    return told


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notebooks")


@pytest.fixture(scope="module")
def examples(folder: Path) -> dict[str, Ran]:
    """Every notebook of ``examples/``, run with small settings in one folder."""
    return {name: ran(read(EXAMPLES / f"{name}.py", SMALL[name]), folder) for name in ORDER}


def test_a_first_sweep_ends_with_a_champion(examples: dict[str, Ran], folder: Path) -> None:
    first = examples["first_sweep"]
    assert first.text("sweep.best.trial").startswith("finished with 2 trials")
    record = read_sweep(Home.at(folder / "segan-ray-home"), "first")
    assert (record.status, len(record.trials)) == ("finished", 2)
    assert "promoted as version 1" in first.text('api.promote("first")')
    _, cell = first.cell("draw_overlay(")
    assert "image/png" in cell.outputs[-1].data


def test_progress_is_one_output_that_is_drawn_again_and_stays(examples: dict[str, Ran]) -> None:
    first = examples["first_sweep"]
    at, cell = first.cell("sweep = api.tune(")
    (view,) = cell.outputs
    assert view.output_type == "display_data"
    assert "first · 2 of 2 done" in view.data["text/plain"]
    assert "2/2" in view.data["text/html"]
    assert first.sent[at]["update_display_data"] > 2
    assert first.sent[at]["stream"] == first.sent[at]["clear_output"] == 0
    # Bars go when all is done.
    at, cell = first.cell("api.phantom(")
    assert [text_of(output) for output in cell.outputs[:1]] == [""]
    assert first.sent[at]["update_display_data"] > 0


def test_cells_say_nothing_on_stderr(examples: dict[str, Ran]) -> None:
    said = [
        (name, text_of(output))
        for name, each in examples.items()
        for cell in each.notebook.cells
        for output in cell.get("outputs", ())
        if output.get("name") == "stderr"
    ]
    assert said == []


def test_a_spoilt_case_of_a_folder_is_left_out(examples: dict[str, Ran]) -> None:
    own = examples["own_brats_folder"]
    assert "7 good, 1 bad" in own.text("report = inspect_cases(")
    assert "left out: BraTS2021_00003: the t2 volume is missing" in own.text("api.prepare(")


def test_a_sweep_is_read_with_its_curves(examples: dict[str, Ran]) -> None:
    reading = examples["read_a_sweep"]
    assert "2 trials, all at epoch" in reading.text("common = ")
    _, cell = reading.cell("px.line(")
    (figure,) = cell.outputs
    curves = figure.data["application/vnd.plotly.v1+json"]["data"]
    assert sorted(curve["name"] for curve in curves) == ["000", "001"]


def test_arms_are_compared(examples: dict[str, Ran], folder: Path) -> None:
    home = Home.at(folder / "segan-ray-home")
    for arm in ("without-critic", "with-critic"):
        assert read_sweep(home, f"critic-or-not-{arm}").status == "finished"
    assert "without-critic less with-critic: " in examples["compare_arms"].text("holds 0")


def test_mlflow_predicts_what_the_model_in_memory_does(examples: dict[str, Ran]) -> None:
    assert "the same labels: True" in examples["raw_arrays"].text("mlflow.pyfunc.load_model")


@pytest.mark.endurance
def test_an_interrupt_ends_a_sweep_and_leaves_the_kernel_alive(store: Path, tmp_path: Path) -> None:
    sources = [
        "from segan_ray import api\nkept = 42",
        f'api.tune({str(store)!r}, "smoke", name="cut", trials=1)',
        'print(kept, *api.read_sweep("cut")["status"])',
        f'api.tune({str(store)!r}, "smoke", name="cut", trials=1, resume=True).status',
    ]
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    kernel: NotebookClient = client(notebook, tmp_path, allow_errors=True)
    take = kernel.process_message
    asked: list[asyncio.Task[None]] = []

    def interrupt_once_it_runs(message: dict[str, Any], cell: NotebookNode, at: int) -> Any:
        shown = message["content"].get("data", {}).get("text/plain", "")
        if at == 1 and " running" in shown and not asked:
            asked.append(asyncio.ensure_future(kernel.km.interrupt_kernel()))
        return take(message, cell, at)

    kernel.process_message = interrupt_once_it_runs
    kernel.execute(env=environment(100))

    assert asked
    _, cut, after, resumed = notebook.cells
    (error,) = [output for output in cut.outputs if output.output_type == "error"]
    assert error.ename == "Interrupted"
    assert "…, name='cut', resume=True)" in error.evalue
    assert text_of(after.outputs[0]).startswith("42 pending")
    assert text_of(resumed.outputs[-1]) == "'finished'", resumed.outputs[-1]
