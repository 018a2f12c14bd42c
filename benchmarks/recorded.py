"""The recorded learning curves: which grid they are of, and how a file of them is read.

One row of the file is one epoch of one run: which setting, which seed, which epoch, mean Dice
over the validation patients and Dice of each region. A run that training ended early, because it
diverged or collapsed, scores 0 from the epoch that said so, and ``ended`` is 1 there.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final, NamedTuple

from segan_ray.filesystem.atomic_files import write_bytes

FOLDER: Final = Path(__file__).parent / "curves"
CURVES: Final = FOLDER / "segan_phantom.csv.gz"
HEADER: Final = FOLDER / "segan_phantom.json"
SPACE: Final = FOLDER / "space.yaml"
COLUMNS: Final = (
    "critic.depth", "segmentor.lr", "critic.lr", "profile", "seed", "epoch",
    "dice_mean", "dice_whole", "dice_core", "dice_enhancing", "ended",
)  # fmt: skip
PROFILES: Final = ("equal", "rising", "falling")
WEIGHT_ENDS: Final = (0.2, 4.0)
"""What the first and the last scale of a rising profile weigh; a falling one the other way."""


class Setting(NamedTuple):
    """One point of the grid."""

    depth: int
    segmentor_lr: float
    critic_lr: float
    profile: str

    def params(self) -> dict[str, Any]:
        """Return the settings as a search space names them."""
        return {
            "segmentor.lr": self.segmentor_lr,
            "critic.lr": self.critic_lr,
            "critic.depth": self.depth,
            "loss.scale_weights": list(scale_weights(self.profile, self.depth)),
        }


class Row(NamedTuple):
    """One epoch of one run."""

    setting: Setting
    seed: int
    epoch: int
    dice: tuple[float, ...]
    ended: bool


@dataclass(frozen=True)
class Grid:
    """Every value of every axis, the seeds and how many epochs each run has."""

    depths: tuple[int, ...]
    segmentor_lrs: tuple[float, ...]
    critic_lrs: tuple[float, ...]
    profiles: tuple[str, ...]
    seeds: tuple[int, ...]
    epochs: int

    def settings(self) -> list[Setting]:
        """Return all points, the last axis turning fastest."""
        axes = (self.depths, self.segmentor_lrs, self.critic_lrs, self.profiles)
        return [Setting(*values) for values in product(*axes)]

    def nearest(self, params: Mapping[str, Any]) -> Setting:
        """Return the grid point nearest to a drawn one.

        Depth is taken as it is, a rate by the distance of its logarithm, weights by the distance
        of theirs once their mean is taken off: only their ratios count.
        """
        depth = params["critic.depth"]
        if depth not in self.depths:
            raise ValueError(f"critic.depth {depth} was not recorded; there are {self.depths}.")
        weights = _centred_logs(params["loss.scale_weights"])
        return Setting(
            depth,
            _nearest_rate(params["segmentor.lr"], self.segmentor_lrs),
            _nearest_rate(params["critic.lr"], self.critic_lrs),
            min(
                self.profiles,
                key=lambda name: math.dist(weights, _centred_logs(scale_weights(name, depth))),
            ),
        )


@dataclass(frozen=True)
class Curves:
    """Scores by setting and seed: ``scores[setting][seed]`` has one value an epoch.

    ``ended`` says of the runs that training broke off, in which epoch it did.
    """

    grid: Grid
    scores: Mapping[Setting, Mapping[int, tuple[float, ...]]]
    ended: Mapping[tuple[Setting, int], int]


def scale_weights(profile: str, depth: int) -> tuple[float, ...]:
    """Return one weight for each of ``depth + 1`` scales, evenly spaced in the logarithm."""
    first, last = WEIGHT_ENDS
    rising = [first * (last / first) ** (scale / depth) for scale in range(depth + 1)]
    shapes = {"equal": [1.0] * (depth + 1), "rising": rising, "falling": rising[::-1]}
    return tuple(round(weight, 4) for weight in shapes[profile])


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write ``rows`` sorted, whole or not at all; on one Python the same give the same bytes."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for row in sorted(rows):
        dice = (f"{value:.5f}" for value in row.dice)
        table.writerow([*row.setting, row.seed, row.epoch, *dice, int(row.ended)])
    write_bytes(path, gzip.compress(text.getvalue().encode(), mtime=0))


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file; none if there is no such file yet."""
    if not path.exists():
        return []
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    return [_row(cells) for cells in csv.reader(lines[1:])]


def read_grid(header: Path = HEADER) -> Grid:
    """Return the grid that was recorded."""
    axes = json.loads(header.read_text(encoding="utf-8"))["grid"]
    return Grid(**{name: v if name == "epochs" else tuple(v) for name, v in axes.items()})


def read_curves(curves: Path = CURVES, header: Path = HEADER) -> Curves:
    """Return the recorded curves.

    Raises:
        ValueError: if a run of the grid, or an epoch of one, is missing.
    """
    grid = read_grid(header)
    rows = read_rows(curves)
    found = {(row.setting, row.seed, row.epoch): row for row in rows}
    scores = {}
    for setting in grid.settings():
        try:
            scores[setting] = {
                seed: tuple(
                    found[setting, seed, epoch].dice[0] for epoch in range(1, grid.epochs + 1)
                )
                for seed in grid.seeds
            }
        except KeyError as missing:
            raise ValueError(f"{curves}: no row of {missing}. Record the rest.") from None
    ended: dict[tuple[Setting, int], int] = {}
    for row in sorted(rows):
        if row.ended:
            ended.setdefault((row.setting, row.seed), row.epoch)
    return Curves(grid, scores, ended)


def _row(cells: list[str]) -> Row:
    depth, segmentor_lr, critic_lr, profile, seed, epoch, *dice, ended = cells
    setting = Setting(int(depth), float(segmentor_lr), float(critic_lr), profile)
    return Row(setting, int(seed), int(epoch), tuple(map(float, dice)), ended == "1")


def _nearest_rate(rate: float, rates: Iterable[float]) -> float:
    return min(rates, key=lambda known: abs(math.log(rate / known)))


def _centred_logs(weights: Iterable[float]) -> list[float]:
    logs = [math.log(weight) for weight in weights]
    middle = sum(logs) / len(logs)
    return [value - middle for value in logs]
