"""The recorded curves and the replay that `benchmarks/search.py` is made of."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

from recorded import (
    CURVES,
    HEADER,
    SPACE,
    Curves,
    Grid,
    Setting,
    read_curves,
    read_grid,
    read_rows,
    scale_weights,
    write_rows,
)
from replay import SLOTS, Drawn, GridSearch, Measure, Replay, measure, replay
from search import KINDS, play

from segan_ray.search.points.points import Verdict
from segan_ray.search.space.space_file import load_space

GRID = Grid((1, 2), (1e-3, 1e-2), (1e-4,), ("equal", "falling"), seeds=(0, 1), epochs=3)
RECORDED = read_grid()


def toy(bests: list[float], ended: Mapping[tuple[Setting, int], int] = {}) -> Curves:
    """Every setting climbs to its best in three even steps, whatever the seed."""
    return Curves(
        GRID,
        {
            setting: dict.fromkeys(GRID.seeds, (best / 3, best * 2 / 3, best))
            for setting, best in zip(GRID.settings(), bests, strict=True)
        },
        ended,
    )


def test_the_recorded_grid_has_no_holes() -> None:
    curves = read_curves()
    assert len(RECORDED.settings()) >= 96
    assert len(RECORDED.seeds) == 3
    assert set(curves.scores) == set(RECORDED.settings())
    runs = [curve for seeds in curves.scores.values() for curve in seeds.values()]
    assert {len(curve) for curve in runs} == {RECORDED.epochs}
    rows = read_rows(CURVES)
    assert len(rows) == len(runs) * RECORDED.epochs
    assert all(0 <= dice <= 1 for row in rows for dice in row.dice)
    assert CURVES.stat().st_size < 300_000


def test_what_broke_off_scores_nothing_from_there_on() -> None:
    curves = read_curves()
    for (setting, seed), epoch in curves.ended.items():
        assert set(curves.scores[setting][seed][epoch - 1 :]) == {0.0}


def test_the_same_rows_give_the_same_file(tmp_path: Path) -> None:
    rows = read_rows(CURVES)
    write_rows(tmp_path / "again.gz", reversed(rows))
    write_rows(tmp_path / "third.gz", rows)
    again = (tmp_path / "again.gz").read_bytes()
    assert (tmp_path / "third.gz").read_bytes() == again
    # Another Python packs the same otherwise.
    assert gzip.decompress(again) == gzip.decompress(CURVES.read_bytes())


def test_a_hole_is_named(tmp_path: Path) -> None:
    write_rows(tmp_path / "holed.gz", read_rows(CURVES)[:-1])
    with pytest.raises(ValueError, match=r"no row of .* Record the rest"):
        read_curves(tmp_path / "holed.gz")


def test_the_search_is_over_what_was_recorded() -> None:
    space = load_space(SPACE)
    assert space.base == json.loads(HEADER.read_text(encoding="utf-8"))["base"]
    assert space.most_epochs() == RECORDED.epochs
    for setting in RECORDED.settings():
        space.experiment(setting.params())
        for path, value in setting.params().items():
            drawn = space.parameters[path]
            for number in value if isinstance(value, list) else [value]:
                assert drawn.low <= number <= drawn.high


@given(
    st.sampled_from(RECORDED.settings()),
    st.floats(-0.49, 0.49),
    st.floats(-0.49, 0.49),
    st.floats(0.01, 100),
)
def test_a_point_around_one_of_the_grid_is_answered_by_it(
    setting: Setting, segmentor: float, critic: float, scale: float
) -> None:
    params = setting.params()
    params["segmentor.lr"] *= (RECORDED.segmentor_lrs[1] / RECORDED.segmentor_lrs[0]) ** segmentor
    params["critic.lr"] *= (RECORDED.critic_lrs[1] / RECORDED.critic_lrs[0]) ** critic
    params["loss.scale_weights"] = [scale * weight for weight in params["loss.scale_weights"]]
    assert RECORDED.nearest(params) == setting


def test_weights_are_answered_by_their_ratios() -> None:
    def profile(weights: list[float]) -> str:
        params = Setting(2, 1e-3, 1e-4, "equal").params()
        return RECORDED.nearest({**params, "loss.scale_weights": weights}).profile

    assert profile([0.1, 0.2, 1.0]) == "rising"
    assert profile([5.0, 3.0, 0.3]) == "falling"
    assert profile([1.0, 1.3, 1.1]) == "equal"


def test_a_depth_that_was_not_recorded_is_refused() -> None:
    params = {**Setting(1, 1e-3, 1e-4, "equal").params(), "critic.depth": 9}
    with pytest.raises(ValueError, match="9 was not recorded"):
        GRID.nearest(params)


def test_weights_of_a_profile_are_as_many_as_the_critic_has_scales() -> None:
    assert scale_weights("rising", 1) == (0.2, 4.0)
    assert scale_weights("falling", 2) == (4.0, 0.8944, 0.2)
    assert scale_weights("equal", 3) == (1.0,) * 4


def test_a_grid_finds_its_best_when_its_turn_has_come() -> None:
    curves = toy([0.1, 0.1, 0.1, 0.4, 0.1, 0.9, 0.1, 0.1])
    goal = measure(curves)
    assert (goal.best, goal.noise, goal.grid_epochs) == (0.9, 0, 24)
    found = replay(curves, GridSearch(GRID.settings()), goal.grid_epochs, seed=0)
    assert len(found.incumbents) == 24
    assert (found.trials, found.completed, found.stopped) == (8, 8, 0)
    # Three epochs each of the first four, one each of the next four, after which the sixth
    # setting is at 0.3 only; its second epoch is the second turn of the round after.
    assert goal.reached(found, 1.0) == (4 * 3 + 4 + 2) / 24


@dataclass
class Recorder(GridSearch):
    """Takes the settings in order, stops what it is told to, and notes what it hears."""

    settings: list[Setting]
    stop_at: int
    told: list[tuple[int, str]] = field(default_factory=list)
    heard: list[tuple[int, int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self.settings)

    def report(self, number: int, epoch: int, value: float) -> Verdict:
        self.heard.append((number, epoch, value))
        return "stop" if epoch >= self.stop_at else "continue"

    def tell(self, number: int, outcome: str, *, learn: bool) -> None:
        assert learn
        self.told.append((number, outcome))


def test_a_stopped_trial_makes_room_at_once() -> None:
    search = Recorder(GRID.settings(), stop_at=2)
    found = replay(toy([0.5] * 8), search, 24, seed=0)
    assert search.told == [(number, "stopped") for number in range(8)]
    assert len(found.incumbents) == 16
    assert [epoch for _, epoch, _ in search.heard[: SLOTS * 2]] == [1] * SLOTS + [2] * SLOTS


@dataclass
class Pausing(Recorder):
    """Lets each trial wait after its first epoch, and go on when all have begun."""

    def promote(self) -> Drawn | None:
        """Return the first that waits."""
        waiting = [number for number, epoch, _ in self.heard if epoch == 1]
        gone_on = {number for number, _ in self.begun_again}
        left = [number for number in waiting if number not in gone_on]
        if len(waiting) < len(self.settings) or not left:
            return None
        self.begun_again.append((left[0], len(self.heard)))
        return Drawn(left[0], self.settings[left[0]].params())

    def report(self, number: int, epoch: int, value: float) -> Verdict:
        super().report(number, epoch, value)
        return "pause" if epoch == 1 else "continue"

    begun_again: list[tuple[int, int]] = field(default_factory=list)


def test_a_paused_trial_goes_on_where_it_was() -> None:
    search = Pausing(GRID.settings(), stop_at=9)
    found = replay(toy([0.5] * 8), search, 24, seed=0, slots=2)
    assert (found.trials, found.completed, found.stopped) == (8, 8, 0)
    assert [epoch for _, epoch, _ in search.heard[:8]] == [1] * 8
    assert search.begun_again[0] == (0, 8)
    assert [epoch for number, epoch, _ in search.heard if number == 3] == [1, 2, 3]
    assert search.told[0] == (0, "completed")


def test_a_trial_is_whole_at_its_last_epoch_whatever_the_scheduler_says() -> None:
    search = Recorder(GRID.settings(), stop_at=3)
    replay(toy([0.5] * 8), search, 24, seed=0)
    assert {outcome for _, outcome in search.told} == {"completed"}


def test_a_run_that_collapsed_is_told_as_failed_where_it_did() -> None:
    broken = GRID.settings()[1]
    curves = toy([0.5] * 8, {(broken, seed): 2 for seed in GRID.seeds})
    search = Recorder(GRID.settings(), stop_at=9)
    found = replay(curves, search, 24, seed=0)
    assert search.told[0] == (1, "failed")
    assert len(found.incumbents) == measure(curves).grid_epochs == 23


def test_reached_is_from_when_on_it_stays_so() -> None:
    good, bad = GRID.settings()[:2]
    goal = Measure({good: 0.8, bad: 0.6}, noise=0.1, grid_epochs=10)
    found = Replay((bad, good, bad, good, good), 2, 2, 0)
    assert goal.reached(found, 1.0) == 0.4
    assert goal.reached(found, 2.5) == 0.1
    assert goal.reached(replace(found, incumbents=(good, bad)), 1.0) is None
    assert goal.settings_within(1.0) == 1
    assert [goal.found_at(found, share, 1.0) for share in (0.1, 0.2, 0.3, 0.5, 1.0)] == [
        False, True, False, True, True,
    ]  # fmt: skip


def test_noise_is_that_of_the_best_settings() -> None:
    scores: dict[Setting, dict[int, tuple[float, ...]]] = {
        setting: {0: (0.0, 0.0, 0.1), 1: (0.0, 0.0, 0.5)} for setting in GRID.settings()
    }
    scores[GRID.settings()[2]] = {0: (0.7, 0.8, 0.1), 1: (0.0, 0.6, 0.2)}
    goal = measure(Curves(GRID, scores, {}))
    assert goal.best == pytest.approx(0.7)
    assert goal.noise == pytest.approx(0.02**0.5)


@pytest.mark.parametrize(
    "name",
    [name for name, kind in KINDS.items() if name != "grid, in order" and kind.belief != "bad"],
)
def test_every_search_finds_what_stands_out(name: str) -> None:
    scores: dict[Setting, Any] = {}
    for setting in RECORDED.settings():
        best = 0.9 if setting.segmentor_lr == RECORDED.segmentor_lrs[2] else 0.1
        curve = tuple(best * epoch / 9 for epoch in range(1, 10))
        scores[setting] = dict.fromkeys(RECORDED.seeds, curve)
    curves = Curves(RECORDED, scores, {})
    goal = measure(curves)
    space = load_space(SPACE)
    found = play(name, space, curves, 200, seed=1)
    share = goal.reached(found, 1.0)
    assert share is not None
    assert share < 0.15
    assert play(name, space, curves, 200, seed=1) == found
