"""How much of a full grid's work a search needs, replayed on recorded learning curves.

`benchmarks/curves/` holds every epoch of a full grid of SegAN settings on the phantom, three
seeds each, recorded by `record_curves.py`. Grid, random and TPE search, the last two with and
without ASHA (that stops trials, or pauses and promotes them) and with trials that are discarded
after so many epochs (Egele et al. 2024), are replayed on them with the product's own study,
sampler and scheduler; see `replay.py` for how a draw is answered. Each row is the share of the
grid's epochs from which on the search would hand out a setting whose seed-averaged score is within
the seeds' noise of the best of the grid: median and quartiles over 20 seeds. A replay that is not
there at its end counts as never. How many are there once a quarter of the grid's epochs are spent,
and at the end, stands beside, and how long that takes: in lengths of an epoch, with as many trials
side by side as there are workers.

    python benchmarks/search.py --live WORK_FOLDER

runs the search for real with `segan-ray tune`, on the phantoms the curves were recorded on,
trains its best setting once a seed, and sets both against the recorded grid.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from random import Random
from statistics import mean, quantiles
from typing import Any, Final, Literal

import _run
import optuna
from recorded import CURVES, HEADER, SPACE, Curves, Setting, read_curves
from replay import SLOTS, GridSearch, Measure, Replay, Search, measure, replay

from segan_ray.search.space.parameters import Prior
from segan_ray.search.space.search_space import NoScheduler, RandomSampler, SearchSpace, TpeSampler
from segan_ray.search.space.space_file import load_space
from segan_ray.search.study.sweep_study import SweepStudy
from segan_ray.sizes import MOST_TRIALS

WORKERS: Final = (4, 32)
TARGET: Final = 0.25
SEEDS: Final = 20
FIRST_SEED: Final = 1000
"""Other seeds than those that settings were chosen with, which began at 0."""
TOLERANCES: Final = (1.0, 0.5)
OURS: Final = "TPE + ASHA"
NEVER: Final = 9.99
"""The share of a replay that never gets there: above any that does."""


@dataclass(frozen=True)
class Kind:
    """A kind of search: its sampler, what ASHA does, and how many epochs a trial has at most."""

    sampler: str
    asha: Literal["stops", "promotes", "grows"] | None = None
    epochs: int | None = None
    belief: Literal["good", "bad"] | None = None


KINDS: Final = {
    "grid, in order": Kind("grid"),
    "grid, shuffled": Kind("shuffled grid"),
    "random": Kind("random"),
    "random, 1 epoch": Kind("random", epochs=1),
    "random + ASHA": Kind("random", "stops"),
    "random + promoting": Kind("random", "promotes"),
    "TPE": Kind("TPE"),
    "TPE, 1 epoch": Kind("TPE", epochs=1),
    "TPE, 3 epochs": Kind("TPE", epochs=3),
    OURS: Kind("TPE", "stops"),
    "TPE + promoting": Kind("TPE", "promotes"),
    "TPE + growing": Kind("TPE", "grows"),
    f"{OURS}, good prior": Kind("TPE", "stops", belief="good"),
    f"{OURS}, bad prior": Kind("TPE", "stops", belief="bad"),
}


@dataclass(frozen=True)
class Result:
    """One kind of search over all seeds: shares of the grid's epochs by tolerance."""

    shares: dict[float, list[float]]
    found_at_target: dict[float, int]
    replays: list[Replay]

    def quartiles(self, tolerance: float) -> tuple[float, float, float]:
        first, middle, third = quantiles(self.shares[tolerance], n=4, method="inclusive")
        return first, middle, third


def begin(name: str, space: SearchSpace, curves: Curves, seed: int) -> Search:
    """Return the search of that name, begun with a seed."""
    kind, settings = KINDS[name], curves.grid.settings()
    if kind.sampler == "grid":
        return GridSearch(settings)
    if kind.sampler == "shuffled grid":
        return GridSearch(Random(seed).sample(settings, len(settings)))
    sampler = RandomSampler(type="random", seed=seed)
    if kind.sampler == "TPE":
        assert isinstance(space.sampler, TpeSampler)
        sampler = space.sampler.model_copy(update={"seed": seed})
    scheduler = NoScheduler(type="none")
    if kind.asha is not None:
        promote, grow = kind.asha != "stops", "grow" if kind.asha == "grows" else None
        update = {"promote": promote, "max_epochs": grow}
        scheduler = space.scheduler.model_copy(update=update)
    # A promoting search is over when nothing is left to draw, so there always is.
    budget = space.budget.model_copy(update={"trials": MOST_TRIALS})
    update = {"sampler": sampler, "scheduler": scheduler, "budget": budget}
    if kind.belief is not None:
        quality = measure(curves).quality
        believed = (max if kind.belief == "good" else min)(quality, key=quality.__getitem__)
        update["parameters"] = with_priors(space, believed)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return SweepStudy.create(f"{name}, {seed}", space.model_copy(update=update), None)


def with_priors(space: SearchSpace, believed: Setting) -> dict[str, Any]:
    """Return the space's parameters, believed to be best at a setting's rates and depth."""
    spreads = {"segmentor.lr": 3.0, "critic.lr": 3.0, "critic.depth": 0.7}
    priors = {
        path: Prior(value=believed.params()[path], spread=spread)
        for path, spread in spreads.items()
    }
    return {
        path: each.model_copy(update={"prior": priors[path]}) if path in priors else each
        for path, each in space.parameters.items()
    }


def play(
    name: str, space: SearchSpace, curves: Curves, epochs: int, seed: int, slots: int = SLOTS
) -> Replay:
    """Replay one search for so many epochs."""
    search = begin(name, space, curves, seed)
    return replay(shortened(curves, KINDS[name].epochs), search, epochs, seed, slots)


def shortened(curves: Curves, epochs: int | None) -> Curves:
    """Return the curves with so many epochs."""
    scores = {
        setting: {seed: curve[:epochs] for seed, curve in seeds.items()}
        for setting, seeds in curves.scores.items()
    }
    return replace(curves, scores=scores)


def play_all(
    space: SearchSpace, curves: Curves, goal: Measure, seeds: range, epochs: int, slots: int
) -> dict[str, Result]:
    """Replay every kind of search once a seed, on all cores."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        waiting = {
            name: [pool.submit(play, name, space, curves, epochs, s, slots) for s in seeds]
            for name in KINDS
        }
        return {
            name: judge([each.result() for each in futures], goal)
            for name, futures in waiting.items()
        }


def judge(replays: list[Replay], goal: Measure) -> Result:
    return Result(
        {t: [goal.reached(each, t) or NEVER for each in replays] for t in TOLERANCES},
        {t: sum(goal.found_at(each, TARGET, t) for each in replays) for t in TOLERANCES},
        replays,
    )


def document(
    by_workers: dict[int, dict[str, Result]], goal: Measure, curves: Curves, epochs: int
) -> dict[str, Any]:
    """Return the benchmark's document."""
    median = by_workers[min(by_workers)][OURS].quartiles(1.0)[1]
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
            "epochs": epochs,
            "searches": {
                workers: {name: row(result, goal, workers) for name, result in results.items()}
                for workers, results in by_workers.items()
            },
        },
    }


def row(result: Result, goal: Measure, workers: int) -> dict[str, Any]:
    return {
        **{
            f"within {tolerance:g} noise": {
                "quartiles": result.quartiles(tolerance),
                "found at 25%": result.found_at_target[tolerance],
                "reached": sum(share < NEVER for share in result.shares[tolerance]),
                "shares": result.shares[tolerance],
                "epoch lengths": result.quartiles(tolerance)[1] * goal.grid_epochs / workers,
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
    share = found["detail"]["epochs"] / grid["epochs"]
    print(f"Each search spends {share:.0%} of them; lengths are those of an epoch.")
    for workers, searches in found["detail"]["searches"].items():
        head = f"{'median [quartiles]':>23}{'lengths':>9}{'at 25%':>8}{'at end':>8}"
        print(f"\n{f'{workers} workers':24}{'within the noise':>48}{'within half of it':>48}")
        print(f"{'':24}{head}{head}{'trials':>8}{'whole':>7}")
        for name, each in searches.items():
            cells = "".join(columns(each[f"within {t:g} noise"]) for t in TOLERANCES)
            print(f"{name:24}{cells}{each['trials']:8.0f}{each['completed']:7.0f}")
    verdict = "met" if ratio["ok"] else "missed"
    print(f"{OURS}: {ratio['value']:.0%} of the grid's epochs, target {TARGET:.0%}, {verdict}")


def columns(cell: dict[str, Any]) -> str:
    first, middle, third = (percent(value) for value in cell["quartiles"])
    counts = (f"{n}/{len(cell['shares'])}" for n in (cell["found at 25%"], cell["reached"]))
    lengths = cell["epoch lengths"] if middle != percent(NEVER) else None
    told = f"{f'{middle} [{first}, {third}]':>23}{'–' if lengths is None else f'{lengths:.0f}':>9}"
    return told + "".join(f"{count:>8}" for count in counts)


def percent(share: float) -> str:
    return f"{share:.1%}" if share <= 1 else "never"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--space", type=Path, default=SPACE, help="another search over the grid")
    parser.add_argument("--live", type=Path, metavar="WORK_FOLDER", help="search for real")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--epochs", type=int, help="to spend on each search; else the grid's")
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS)
    options = _run.begin(parser, seeds=2, epochs=40, workers=[4], live=None)
    curves, space = read_curves(CURVES, HEADER), load_space(options.space)
    goal = measure(curves)
    if options.live:
        from live import confirm
        from live import show as show_live

        found = confirm(options.live.resolve(), curves, goal, options.space)
        print(json.dumps(found, indent=2)) if options.json else show_live(found)
        return
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    epochs = options.epochs or goal.grid_epochs
    by_workers = {
        workers: play_all(space, curves, goal, seeds, epochs, workers)
        for workers in options.workers
    }
    _run.finish(options, document(by_workers, goal, curves, epochs), show)


if __name__ == "__main__":
    main()
