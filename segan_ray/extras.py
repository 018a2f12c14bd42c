"""Packages that only some work needs: pyproject.toml's extras bring them."""

from __future__ import annotations

from importlib.util import find_spec

from segan_ray.errors import NotInstalledError


def check_installed(work: str, extra: str, *modules: str) -> None:
    """Make sure that the modules which ``work`` needs can be found; ``extra`` brings them.

    Raises:
        NotInstalledError: naming the work, those that are missing, and what to install.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise not_installed(work, extra, *missing)


def not_installed(work: str, extra: str, *modules: str) -> NotInstalledError:
    """Return the error that says what ``work`` needs and what to install."""
    verb = "is" if len(modules) == 1 else "are"
    return NotInstalledError(
        f"{work} needs {' and '.join(modules)}, which {verb} not installed. "
        f"Install what it needs: pip install 'segan-ray[{extra}]'"
    )
