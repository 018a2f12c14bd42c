"""Build the documentation site: ``make docs``, or ``python docs/site/build_site.py [FOLDER]``.

The pages are staged in ``FOLDER.staging``; the site is in FOLDER, by default ``site``. A link that
leads nowhere, an anchor that is not there or any other warning ends the build with exit code 1.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from generated_api import api_text
from generated_commands import commands_text
from generated_errors import errors_text, messages_text
from generated_results import results_text
from generated_settings import settings_text
from generated_sizes import sizes_text
from stage_pages import SiteError, Staging

ROOT: Final = Path(__file__).parents[2]
GENERATED: Final = {
    "api": api_text,
    "commands": commands_text,
    "errors": errors_text,
    "messages": messages_text,
    "results": results_text,
    "settings": settings_text,
    "sizes": sizes_text,
}


def build(out: Path) -> None:
    """Build the site into the folder ``out``.

    Raises:
        SiteError: if a link leads nowhere, or the site generator warned.
    """
    work = out.with_name(f"{out.name}.staging")
    Staging(ROOT, work / "pages", GENERATED).stage()
    shutil.copy(ROOT / "docs/site/zensical.toml", work)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    ended = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SiteError(f"{ended.stdout}\n{ended.stderr}")
    shutil.rmtree(out, ignore_errors=True)
    (work / "site").rename(out)
    shutil.rmtree(work)


def main() -> None:
    """Build the site into the folder that the command line names."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "site").resolve()
    try:
        build(out)
    except SiteError as error:
        sys.exit(str(error))
    print(f"The site is in {out}: open {out / 'index.html'}")


if __name__ == "__main__":
    main()
