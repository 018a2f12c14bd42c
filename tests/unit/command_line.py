"""The command line in this process: its exit code and what it says, without the imports again.

That a process of its own does the same is held by a few tests of ``cli/test_cli.py`` and by the
main job.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

from segan_ray.cli.main import main

PROGRAM = (sys.executable, "-c", "from segan_ray.cli.main import main; main()")


def segan(
    *arguments: object, cwd: Path, home: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Say ``segan-ray arguments`` in a folder; nobody is at the keyboard."""
    words = ["segan-ray", *map(str, arguments)]
    out, err = _stream(), _stream()
    before = Path.cwd()
    os.chdir(cwd)
    try:
        with (
            patch.dict(os.environ, environment(home), clear=True),
            patch.multiple(sys, argv=words, stdin=io.StringIO(), stdout=out, stderr=err),
        ):
            code = _code(words)
    finally:
        os.chdir(before)
    return subprocess.CompletedProcess(words, code, _said(out), _said(err))


def segan_process(
    *arguments: object, cwd: Path, home: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Say the same in a process of its own."""
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)], cwd=cwd, env=environment(home),
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip


def environment(home: Path | None) -> dict[str, str]:
    """This process's environment, in which MLflow and the home are where ``home`` says."""
    plain = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    return plain if home is None else {**plain, "SEGAN_RAY_HOME": str(home)}


def refused(result: subprocess.CompletedProcess[str], words: str) -> None:
    """Check a user's error: exit 1, words on stderr in one or two lines, nothing on stdout."""
    assert result.returncode == 1, result.stderr
    assert words in result.stderr
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) <= 2, result.stderr
    assert "Traceback" not in result.stderr


def _stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


def _said(stream: io.TextIOWrapper) -> str:
    content = stream.buffer
    assert isinstance(content, io.BytesIO)
    return content.getvalue().decode(errors="replace")


def _code(words: list[str]) -> int:
    try:
        main()
    except SystemExit as ended:
        if isinstance(ended.code, str):  # as Python itself tells it
            print(ended.code, file=sys.stderr)
            return 1
        return int(ended.code or 0)
    raise AssertionError(f"{words} returned instead of exiting")
