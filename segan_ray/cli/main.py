"""The command ``segan-ray``: its groups of commands, and the one handler of errors.

Commands parse, call one function and print. They import that function when they run, so that
``--help`` answers at once.
"""

from __future__ import annotations

import errno
import inspect
import signal
import sys
import traceback
from typing import Annotated, Final

import typer

from segan_ray import __version__
from segan_ray.cli import comparison, data, demo, doctor, jobs, models, steering, sweeps, training
from segan_ray.engine_settings import prepare_mlflow
from segan_ray.errors import Interrupted, SeganRayError, named
from segan_ray.terminal import show
from segan_ray.terminal.encoding import show_anything

app = typer.Typer(
    name="segan-ray",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Segment brain tumours with SegAN: search on Ray, compare in MLflow, promote, evaluate.",
    epilog="Begin with: segan-ray demo",
)
for group in (demo, data, training, comparison, jobs, doctor, sweeps, steering, models):
    group.register(app)
for command in app.registered_commands:
    # Of a longer summary the list of commands would show the beginning alone.
    command.short_help = (inspect.getdoc(command.callback) or "").partition("\n\n")[0]


ON_CTRL_C: Final = 128 + signal.SIGINT
OF_THE_SYSTEM: Final = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.EIO,
}  # fmt: skip
"""Errors of a disk or of permissions, which no program can prevent."""


def _of_the_system(error: OSError) -> str:
    location = f"{error.filename}: " if error.filename else ""
    return show.prose(f"{location}{error.strerror}. Mend that, or choose another place.")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"segan-ray {__version__}")
        raise typer.Exit


WAYS: Final = """\
Three ways to begin:

  segan-ray demo                         minutes: synthetic patients, a sweep, a champion, a report
  segan-ray inspect /path/to/BRATS       your own data: then prepare it, and tune
  segan-ray doctor                       your cluster (RAY_ADDRESS): then submit from anywhere

Every command: segan-ray --help. From Python: from segan_ray import api"""


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - it is eager
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[  # noqa: ARG001 - main reads it
        bool, typer.Option("--debug", help="Show the traceback of an error (anywhere on the line).")
    ] = False,
) -> None:
    """Take the options that stand before a command; without one, say how to begin."""
    if context.invoked_subcommand is None:
        show.say(WAYS)


def main() -> None:
    """Run the command line; a user's error gives a plain line and exit code 1."""
    show_anything()
    prepare_mlflow()
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    try:
        app(args=[argument for argument in arguments if argument != "--debug"])
    except Interrupted as interrupted:
        print(show.prose(interrupted), file=sys.stderr)
        sys.exit(128 + interrupted.signal)
    except SeganRayError as error:
        if debug:
            sys.exit(show.prose(traceback.format_exc()))
        print(f"Error: {show.prose(error)}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as ended:
        if ended.code == ON_CTRL_C:  # Typer says nothing of it
            print("Interrupted.", file=sys.stderr)
        raise
    except Exception as error:
        if debug:
            sys.exit(show.prose(traceback.format_exc()))
        if isinstance(error, OSError) and error.errno in OF_THE_SYSTEM:
            print(f"Error: {_of_the_system(error)}", file=sys.stderr)
            sys.exit(1)
        what = show.prose(named(error))
        print(f"Error: {what}\nThis should not happen; --debug shows where.", file=sys.stderr)
        sys.exit(1)
