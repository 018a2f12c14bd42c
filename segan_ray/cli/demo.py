"""``demo``: the whole way in front of you, from synthetic patients to a report."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from segan_ray.cli.options import HomeFolder
from segan_ray.terminal import show

UNET: Final = ("variant=unet", "data.tumour_fraction=0.7")


@dataclass(frozen=True)
class DemoSize:
    """Where a demo's data lies, how much it is, its space, and the U-Net beside it by ``--set``.

    The U-Net has as many epochs, steps and slices as a trial of the space.
    """

    data: str
    store: str
    cases: int
    spacing: str
    space: str
    trials: int
    unet: tuple[str, ...]


USUAL: Final = DemoSize(
    "data",
    "store",
    40,
    "2",
    "demo",
    8,
    (
        "segmentor.base_width=12", "segmentor.depth=4", "segmentor.lr=4.0e-3", "training.epochs=8",
        "training.steps_per_epoch=72", "training.batch_size=8", "training.crop=96",
    ),
)  # fmt: skip
SMALL: Final = DemoSize(
    "small-data",
    "small-store",
    12,
    "4",
    "smoke",
    2,
    (
        "segmentor.base_width=4", "segmentor.depth=2", "training.epochs=3",
        "training.steps_per_epoch=4", "training.batch_size=4", "training.crop=64",
    ),
)  # fmt: skip
NEXT: Final = """\

Try next:
  segan-ray ui                                compare the runs in the MLflow UI
  segan-ray tune {store} --space critic --trials 4
  segan-ray inspect /path/to/BRATS            then prepare it, and tune on your own data"""


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(epilog="Example: segan-ray demo")(demo)


def demo(
    small: Annotated[
        bool, typer.Option("--small", help="Only see that everything works, in a few minutes.")
    ] = False,
    home: HomeFolder = None,
) -> None:
    """Make synthetic patients, sweep, promote, evaluate, and write a report.

    It runs the commands that you would type, and shows each. On two cores it takes six to nine
    minutes. Data is kept between demos; each makes a new sweep.
    """
    from segan_ray.home import DEFAULT_HOME, HOME

    where, size = home or Path(DEFAULT_HOME), SMALL if small else USUAL
    environment = os.environ | {HOME: str(where)}
    folder, stamp = where / "demo", f"{datetime.now():%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True, exist_ok=True)
    for command in commands(folder, stamp, size):
        show.say(f"\n$ {shlex.join(['segan-ray', *command])}")
        sys.stdout.flush()
        done = subprocess.run(
            [sys.executable, "-m", "segan_ray", *command], env=environment, check=False
        )
        if done.returncode:
            raise typer.Exit(done.returncode)
    show.say(NEXT.format(store=folder / size.store))


def commands(folder: Path, stamp: str, size: DemoSize) -> Iterator[list[str]]:
    """Yield the commands of a demo whose data, store and report lie in ``folder``."""
    data, store, sweep = str(folder / size.data), str(folder / size.store), f"demo-{stamp}"
    yield ["phantom", data, "--cases", str(size.cases), "--spacing", size.spacing]
    yield ["inspect", data]
    yield ["prepare", data, store]
    settings = [word for setting in (*UNET, *size.unet) for word in ("--set", setting)]
    yield ["train", store, "--name", f"unet-{stamp}", *settings]
    yield ["tune", store, "--space", size.space, "--name", sweep, "--trials", str(size.trials)]
    yield ["trials", sweep]
    yield ["promote", sweep]
    # U-Net's thresholds are fitted to its maps like the champion's; another demo's is replaced.
    yield ["promote", f"unet-{stamp}", "--alias", "unet", "--force"]
    yield [
        "evaluate", "champion", store, "--output", str(folder / "evaluation.json"),
        "--reference", "threshold", "--reference", "unet=models:/segan@unet",
    ]  # fmt: skip
    yield ["report", sweep, str(folder / "report.html")]
