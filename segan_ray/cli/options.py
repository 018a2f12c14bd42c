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
Store = Annotated[
    str,
    typer.Argument(help="A prepared store: a folder, or a URL such as s3://…", metavar="STORE"),
]
NewStore = Annotated[
    str,
    typer.Argument(help="The folder of the store to make.", metavar="STORE"),
]
Layout = Annotated[
    str | None, typer.Option(help="The layout, where names alone do not tell (e.g. brats2024).")
]
SweepName = Annotated[str, typer.Argument(help="The name of a sweep.", metavar="SWEEP")]
