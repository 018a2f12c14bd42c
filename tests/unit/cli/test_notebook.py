"""What is drawn below a notebook's cell: one output, drawn again in place."""

from __future__ import annotations

from threading import Event

import pytest
from rich.text import Text

from segan_ray.search.results.trial_state import TrialState
from segan_ray.terminal import live, notebook, show
from segan_ray.terminal.live import live_view
from segan_ray.terminal.notebook import drawn_below


class Output:
    """An output of a cell, as IPython's handle of it."""

    def __init__(self, first: dict[str, str]) -> None:
        self.shown = [first]
        self.drawn_again = Event()

    def update(self, frame: dict[str, str], *, raw: bool) -> None:
        assert raw
        self.shown.append(frame)
        self.drawn_again.set()

    @property
    def text(self) -> str:
        return self.shown[-1]["text/plain"]


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> list[Output]:
    """The outputs of a notebook's cell, which redraws without a pause."""
    outputs: list[Output] = []

    def display(frame: dict[str, str], *, raw: bool, display_id: bool) -> Output:
        assert raw
        assert display_id
        outputs.append(Output(frame))
        return outputs[-1]

    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr(notebook, "REDRAWN_EVERY_S", 0.001)
    for module in (live, show):
        monkeypatch.setattr(module, "in_notebook", lambda: True)
    return outputs


def test_a_view_is_one_output_that_is_drawn_again(cell: list[Output]) -> None:
    words = iter(["first", *["later"] * 10**6])
    with drawn_below(lambda: Text(next(words), style="bold"), stays=True):
        (output,) = cell
        assert output.text == "first"
        assert output.drawn_again.wait(30)
    assert output.text == "later"
    assert "font-weight: bold" in output.shown[-1]["text/html"]


def test_a_view_that_does_not_stay_leaves_nothing(cell: list[Output]) -> None:
    def failed() -> None:
        with drawn_below(lambda: "here", stays=False):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failed()
    assert cell[0].shown[-1] == {"text/plain": "", "text/html": ""}


def test_a_bar_counts_below_the_cell_and_goes(
    cell: list[Output], capsys: pytest.CaptureFixture[str]
) -> None:
    with show.progress("Reading", 2) as done:
        done("one")
        cell[0].drawn_again.clear()
        assert cell[0].drawn_again.wait(30)
        assert any("1/2" in frame["text/plain"] for frame in cell[0].shown)
    assert cell[0].text == ""
    with show.progress("Reading", 2, drawn=False) as done:
        done("one")
    assert len(cell) == 1
    assert capsys.readouterr() == ("", "")


def test_a_sweep_stays_below_its_cell_and_stderr_has_what_went_wrong_alone(
    cell: list[Output], capsys: pytest.CaptureFixture[str]
) -> None:
    with live_view("first", "val/dice_mean", "max", 2, clock=lambda: 0.0) as take:
        for epoch in range(3):
            take(TrialState("000", "running", epoch, 2, 0.5))
        take(TrialState("000", "completed", 2, 2, 0.5))
        take(TrialState("001", "running", 0, 2, None))
        take(TrialState("001", "failed", 0, 2, None, reason="no memory"))
    assert "2 of 2 done" in cell[0].text
    assert capsys.readouterr() == ("", "trial 001 failed at epoch 0/2 (no memory)\n")
