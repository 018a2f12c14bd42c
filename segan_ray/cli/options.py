"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segan_ray.errors import StoreError


def local_folder(text: str) -> Path:
    """Return the folder that ``text`` names.

    Raises:
        StoreError: if it is a URL, which would become a folder of that name.
    """
    if "://" in text:
        raise StoreError(
            f"{text}: a store is made in a folder. Make it there, then copy it to the URL whole."
        )
    return Path(text)


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
    Path,
    typer.Argument(help="The folder of the store to make.", metavar="STORE", parser=local_folder),
]
Layout = Annotated[
    str | None, typer.Option(help="The layout, where names alone do not tell (e.g. brats2024).")
]
SweepName = Annotated[str, typer.Argument(help="The name of a sweep.", metavar="SWEEP")]
