"""How much of a full grid's work a search needs, replayed on recorded learning curves.

`benchmarks/curves/` holds every epoch of a full grid of SegAN settings on the phantom, three
seeds each, recorded by `record_curves.py`. Grid, random and TPE search, the last two with and
without ASHA, are replayed on them with the product's own study, sampler and scheduler; see
`replay.py` for how a draw is answered. Each row is the share of the grid's epochs from which on
the search would hand out a setting whose seed-averaged score is within the seeds' noise of the
best of the grid: median and quartiles over 20 seeds. A replay that is not there once the grid's
epochs are spent counts as more than 100%. How many are there once a quarter of the grid's epochs
are spent, and once all are, stands beside.

    python benchmarks/search.py --live WORK_FOLDER

runs the search for real with `segan-ray tune`, on the phantoms the curves were recorded on,
trains its best setting once a seed, and sets both against the recorded grid.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from random import Random
from statistics import mean, quantiles
from typing import Any, Final

import _run
import optuna
from recorded import CURVES, HEADER, SPACE, Curves, Setting, read_curves
from replay import GridSearch, Measure, Replay, Search, measure, replay

from segan_ray.search.space.search_space import NoScheduler, RandomSampler, SearchSpace, TpeSampler
from segan_ray.search.space.space_file import load_space
from segan_ray.search.study.sweep_study import SweepStudy

TARGET: Final = 0.25
SEEDS: Final = 20
FIRST_SEED: Final = 1000
"""Other seeds than those that settings were chosen with, which began at 0."""
TOLERANCES: Final = (1.0, 0.5)
OURS: Final = "TPE + ASHA"
KINDS: Final = ("grid, in order", "grid, shuffled", "random", "random + ASHA", "TPE", OURS)
NEVER: Final = 9.99
"""The share of a replay that never gets there: above any that does."""


@dataclass(frozen=True)
class Result:
    """One kind of search over all seeds: shares of the grid's epochs by tolerance."""

    shares: dict[float, list[float]]
    found_at_target: dict[float, int]
    replays: list[Replay]

    def quartiles(self, tolerance: float) -> tuple[float, float, float]:
        first, middle, third = quantiles(self.shares[tolerance], n=4, method="inclusive")
        return first, middle, third


def begin(kind: str, space: SearchSpace, settings: list[Setting], seed: int) -> Search:
    """Return a search of that kind, begun with a seed."""
    if kind == "grid, in order":
        return GridSearch(settings)
    if kind == "grid, shuffled":
        return GridSearch(Random(seed).sample(settings, len(settings)))
    sampler = RandomSampler(type="random", seed=seed)
    if kind.startswith("TPE"):
        assert isinstance(space.sampler, TpeSampler)
        sampler = space.sampler.model_copy(update={"seed": seed})
    scheduler = space.scheduler if kind.endswith("ASHA") else NoScheduler(type="none")
    space = space.model_copy(update={"sampler": sampler, "scheduler": scheduler})
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return SweepStudy.create(f"{kind}, {seed}", space, None)


def play(kind: str, space: SearchSpace, curves: Curves, epochs: int, seed: int) -> Replay:
    """Replay one search for so many epochs."""
    return replay(curves, begin(kind, space, curves.grid.settings(), seed), epochs, seed)


def play_all(
    space: SearchSpace, curves: Curves, goal: Measure, seeds: range, epochs: int | None = None
) -> dict[str, Result]:
    """Replay every kind of search once a seed, on all cores."""
    epochs = epochs or goal.grid_epochs
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        waiting = {
            kind: [pool.submit(play, kind, space, curves, epochs, s) for s in seeds]
            for kind in KINDS
        }
        return {
            kind: judge([each.result() for each in futures], goal)
            for kind, futures in waiting.items()
        }


def judge(replays: list[Replay], goal: Measure) -> Result:
    return Result(
        {t: [goal.reached(each, t) or NEVER for each in replays] for t in TOLERANCES},
        {t: sum(goal.found_at(each, TARGET, t) for each in replays) for t in TOLERANCES},
        replays,
    )


def document(results: dict[str, Result], goal: Measure, curves: Curves) -> dict[str, Any]:
    """Return the benchmark's document."""
    median = results[OURS].quartiles(1.0)[1]
    header = json.loads(HEADER.read_text(encoding="utf-8"))
    return {
        "device": f"curves recorded on {header['machine']}",
        "ratios": {
            f"{OURS}, share of the full grid's epochs": {
                "value": median,
                "target": TARGET,
                "ok": median <= TARGET,
            }
        },
        "detail": {
            "grid": {
                "settings": len(goal.quality),
                "seeds": len(curves.grid.seeds),
                "epochs": goal.grid_epochs,
                "best": goal.best,
                "noise": goal.noise,
                "settings within": {str(t): goal.settings_within(t) for t in TOLERANCES},
            },
            "searches": {name: row(result) for name, result in results.items()},
        },
    }


def row(result: Result) -> dict[str, Any]:
    return {
        **{
            f"within {tolerance:g} noise": {
                "quartiles": result.quartiles(tolerance),
                "found at 25%": result.found_at_target[tolerance],
                "reached": sum(share < NEVER for share in result.shares[tolerance]),
                "shares": result.shares[tolerance],
            }
            for tolerance in TOLERANCES
        },
        "trials": mean(each.trials for each in result.replays),
        "completed": mean(each.completed for each in result.replays),
        "stopped": mean(each.stopped for each in result.replays),
    }


def show(found: dict[str, Any]) -> None:
    grid, (ratio,) = found["detail"]["grid"], found["ratios"].values()
    print(
        f"{grid['settings']} settings, {grid['seeds']} seeds each, {grid['epochs']} epochs a seed; "
        f"best seed-averaged Dice {grid['best']:.3f}, noise between seeds {grid['noise']:.3f}."
    )
    for tolerance, count in grid["settings within"].items():
        print(f"{count} settings are within {tolerance} times the noise of the best.")
    head = f"{'median [quartiles]':>20}{'at 25%':>8}{'at 100%':>8}"
    print(f"{'':16}{'within the noise':>36}{'within half of it':>36}")
    print(f"{'':16}{head}{head}{'trials':>8}{'whole':>7}")
    for name, each in found["detail"]["searches"].items():
        cells = "".join(columns(each[f"within {t:g} noise"]) for t in TOLERANCES)
        print(f"{name:16}{cells}{each['trials']:8.0f}{each['completed']:7.0f}")
    verdict = "met" if ratio["ok"] else "missed"
    print(f"{OURS}: {ratio['value']:.0%} of the grid's epochs, target {TARGET:.0%}, {verdict}")


def columns(cell: dict[str, Any]) -> str:
    first, middle, third = (percent(value) for value in cell["quartiles"])
    counts = (f"{n}/{len(cell['shares'])}" for n in (cell["found at 25%"], cell["reached"]))
    return f"{f'{middle} [{first}, {third}]':>20}" + "".join(f"{count:>8}" for count in counts)


def percent(share: float) -> str:
    return f"{share:.0%}" if share <= 1 else ">100%"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--space", type=Path, default=SPACE, help="another search over the grid")
    parser.add_argument("--live", type=Path, metavar="WORK_FOLDER", help="search for real")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--epochs", type=int, help="to spend on each search; else the grid's")
    options = _run.begin(parser, seeds=2, epochs=40, live=None)
    curves, space = read_curves(CURVES, HEADER), load_space(options.space)
    goal = measure(curves)
    if options.live:
        from live import confirm
        from live import show as show_live

        found = confirm(options.live.resolve(), curves, goal, options.space)
        print(json.dumps(found, indent=2)) if options.json else show_live(found)
        return
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    results = play_all(space, curves, goal, seeds, options.epochs)
    _run.finish(options, document(results, goal, curves), show)


if __name__ == "__main__":
    main()
