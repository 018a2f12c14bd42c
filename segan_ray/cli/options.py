"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
HomeFolder = Annotated[
    Path | None,
    typer.Option(
        "--home",
        envvar="SEGAN_RAY_HOME",
        help="Where records live unless configured otherwise (default ./segan-ray-home).",
    ),
]
Store = Annotated[Path, typer.Argument(help="A prepared store.", metavar="STORE")]
SweepName = Annotated[str, typer.Argument(help="The name of a sweep.", metavar="SWEEP")]
