"""What every benchmark shares: its options, whether the cores are quiet, and its document."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from typing import Any, Final

import psutil

CORES: Final = len(os.sched_getaffinity(0))
BUSY_SHARE: Final = 0.1
"""Share of the cores that others may take of a machine called quiet."""
WATCH_S: Final = 2.0
ENDING_LOOKS: Final = 5


def begin(parser: argparse.ArgumentParser, **smoke: Any) -> argparse.Namespace:
    """Return the options; with ``--smoke`` those given here replace what was asked for.

    Ends the process where others keep the cores busy, unless asked to go on all the same: a
    loaded machine slows the side with more threads most, so ratios are not what they are.
    """
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--loaded", action="store_true", help="run on busy cores, and say so")
    parser.add_argument("--smoke", action="store_true", help="only see that it runs: no figures")
    options = parser.parse_args()
    if options.smoke:
        vars(options).update(smoke)
        return options
    options.before = load()
    if not (is_quiet(options.before) or options.loaded):
        raise SystemExit(
            f"The cores are busy: {said(options.before)}. Figures taken now would mislead. "
            "Wait until they are quiet, or take marked ones with --loaded."
        )
    return options


def finish(
    options: argparse.Namespace, document: dict[str, Any], show: Callable[[dict[str, Any]], None]
) -> None:
    """Print the document, for programs or by ``show`` for people, with the load it was taken under.

    After a smoke run there is nothing to print but that it ran: of so little no figure is true.

    Raises:
        ValueError: if a figure is not a number.
    """
    assert {"device", "ratios", "detail"} <= set(document)
    json.dumps(document, allow_nan=False)
    if options.smoke:
        ran = {"device": document["device"], "smoke": True, "ratios": {}, "detail": {}}
        print(json.dumps(ran) if options.json else "smoke: ran, no figures")
        return
    loads = {"before": options.before, "after": load_of_others()}
    quiet = all(map(is_quiet, loads.values()))
    if options.json:
        print(json.dumps(document | {"quiet": quiet, "load": loads}, indent=2))
        return
    words = "; ".join(f"{when}: {said(each)}" for when, each in loads.items())
    print(f"{'Quiet cores' if quiet else 'LOADED CORES, do not quote'} ({words})")
    show(document)


def load() -> dict[str, float]:
    """Return how many cores are busy while this process waits, and the system's load average."""
    busy = psutil.cpu_percent(interval=WATCH_S) / 100 * (psutil.cpu_count() or 1)
    return {"busy_cores": round(busy, 2), "load_average": round(os.getloadavg()[0], 2)}


def load_of_others() -> dict[str, float]:
    """Return the load once what this run started, such as a Ray session, has ended as well."""
    seen = load()
    for _ in range(ENDING_LOOKS):
        if is_quiet(seen):
            break
        seen = load()
    return seen


def is_quiet(seen: dict[str, float]) -> bool:
    """Tell by the cores alone: the load average still counts what ended a minute ago."""
    return seen["busy_cores"] <= BUSY_SHARE * CORES


def said(seen: dict[str, float]) -> str:
    """Return a load in words."""
    return f"others take {seen['busy_cores']:.2f} of {CORES} cores, load {seen['load_average']:.1f}"
