"""Print the tables of docs/segan.md from the recorded results, and draw its figure.

    python benchmarks/segan_study/draw.py

reads `results/*.json` beside this file and writes `docs/images/segan-small-data.svg`.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import matplotlib
from stores import SIZES

from segan_ray.brats import REGIONS

HERE: Final = Path(__file__).parent
FIGURE: Final = HERE.parents[1] / "docs" / "images" / "segan-small-data.svg"
COLUMNS: Final = (*REGIONS, "mean")
Document = dict[str, Any]


def main() -> None:
    results = {path.stem: json.loads(path.read_text()) for path in HERE.glob("results/*.json")}
    for name in ("four-arms-epochs", "four-arms-seconds", "choices"):
        if name in results:
            print(f"\n{name}\n")
            print("\n".join(arms_table(results[name])))
            print()
            print("\n".join(differences_table(results[name], first_only=name == "choices")))
    small = {name: of for name, of in results.items() if name.startswith(("clean-", "wrong-"))}
    if small:
        print("\nsmall data\n")
        print("\n".join(small_data_table(small)))
        draw_small_data(small)


def arms_table(document: Document) -> Iterator[str]:
    yield f"| arm | {' | '.join(COLUMNS)} | precision whole | HD95 | weights | s/epoch | epochs |"
    yield "| --- " * (len(COLUMNS) + 6) + "|"
    for arm in document["arms"]:
        summary = arm["summary"]
        dice = " | ".join(with_interval(summary[name]["dice"], "") for name in COLUMNS)
        hd95 = statistics.fmean(summary[name]["hd95"]["mean"] for name in REGIONS)
        yield (
            f"| {arm['arm']} | {dice} | {summary['whole']['precision']['mean']:.3f} | {hd95:.1f} "
            f"| {arm['params']:,} | {arm['seconds_per_epoch']:.1f} | {arm['epochs']} |"
        )


def differences_table(document: Document, *, first_only: bool) -> Iterator[str]:
    yield f"| difference | {' | '.join(COLUMNS)} |"
    yield "| --- " * (len(COLUMNS) + 1) + "|"
    first = document["arms"][0]["arm"]
    for pair in document["differences"]:
        if pair["arms"][0] == first or not first_only:
            dice = " | ".join(with_interval(pair[name]["dice"], "+") for name in COLUMNS)
            yield f"| {' − '.join(pair['arms'])} | {dice} |"


def small_data_table(results: dict[str, Document]) -> Iterator[str]:
    yield "| truth | patients | with critic | without | difference |"
    yield "| --- | --- | --- | --- | --- |"
    for kind in ("clean", "wrong"):
        for size in SIZES:
            if (document := results.get(f"{kind}-{size}")) is None:
                continue
            arms = [arm["summary"]["mean"]["dice"] for arm in document["arms"]]
            (pair,) = document["differences"]
            yield (
                f"| {'right' if kind == 'clean' else 'a tenth wrong'} | {size} "
                f"| {' | '.join(with_interval(arm, '') for arm in arms)} "
                f"| {with_interval(pair['mean']['dice'], '+')} |"
            )


def with_interval(score: Document, sign: str) -> str:
    low, high = score["ci95"]
    return f"{score['mean']:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]".replace("-", "−")


def draw_small_data(results: dict[str, Document]) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot

    # So that the same results give the same file.
    matplotlib.rcParams["svg.hashsalt"] = "segan-ray"
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for axis, kind, title in zip(
        axes, ("clean", "wrong"), ("right truths", "a tenth of each truth wrong"), strict=True
    ):
        for place, (colour, mark) in enumerate((("#d55e00", "o"), ("#0072b2", "s"))):
            sizes = [size for size in SIZES if f"{kind}-{size}" in results]
            arms = [results[f"{kind}-{size}"]["arms"][place] for size in sizes]
            dice = [arm["summary"]["mean"]["dice"] for arm in arms]
            axis.errorbar(
                [size * (0.97 + 0.06 * place) for size in sizes],
                [one["mean"] for one in dice],
                yerr=list(zip(*(
                    (one["mean"] - one["ci95"][0], one["ci95"][1] - one["mean"]) for one in dice
                ), strict=True)),
                color=colour, marker=mark, capsize=3,
                label=("with critic", "without critic")[place],
            )  # fmt: skip
        axis.set_xscale("log", base=2)
        axis.set_xlim(0.85 * min(SIZES), 1.18 * max(SIZES))
        axis.set_xticks(SIZES, [str(size) for size in SIZES])
        axis.set_xlabel("training patients")
        axis.set_title(title, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("mean Dice, test patients")
    axes[0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(FIGURE, metadata={"Date": None})
    print(f"\n{FIGURE}")


if __name__ == "__main__":
    main()
