"""Opening locations of every kind, and reading the manifest of a store there.

fsspec takes credentials and endpoints from its configuration files, from ``FSSPEC_S3_…`` or from
the environment variables of the service.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segan_ray.data.store.manifest import (
    MANIFEST,
    MANIFEST_BYTES,
    Manifest,
    parse_manifest,
    read_manifest,
)
from segan_ray.errors import StoreError, named, said
from segan_ray.filesystem.locations import is_url
from segan_ray.redaction import holds_secret, mask


def open_location(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of ``url`` and the path in it.

    Raises:
        StoreError: if no installed package reads such URLs, or ``url`` holds a password.
    """
    import fsspec

    if holds_secret(url):
        raise StoreError(
            f"{mask(url)} holds a password or token, which records and process lists would show. "
            "Give it to fsspec by its configuration or environment, and the URL without it."
        )
    scheme = url.partition("://")[0]
    try:
        system, path = fsspec.core.url_to_fs(url.rstrip("/"))
    except ImportError as error:
        brings = "Install what it needs: pip install 'segan-ray[s3]'"
        mend = brings if scheme == "s3" else f"{said(error)}."
        raise StoreError(f"{url}: nothing is installed that reads {scheme}://. {mend}") from None
    except ValueError as error:
        raise StoreError(f"{url}: cannot be opened ({said(error)}).") from None
    return system, str(path)


def manifest_at(where: str) -> Manifest:
    """Read and check the manifest of the store at ``where``, and nothing else of it.

    Raises:
        StoreError: if there is no store, it is damaged, cannot be reached or of another version.
    """
    return read_manifest(Path(where)) if not is_url(where) else fetch_manifest(where)[0]


def fetch_manifest(url: str) -> tuple[Manifest, bytes]:
    """Return the manifest of the store at ``url``, checked against its fingerprint, and its text.

    Raises:
        StoreError: as ``manifest_at``.
    """
    system, path = open_location(url)
    try:
        facts = system.info(f"{path}/{MANIFEST}")
        if facts["type"] != "file" or (facts["size"] or 0) > MANIFEST_BYTES:
            raise StoreError(
                f"{url}/{MANIFEST}: is no file of up to {MANIFEST_BYTES // 2**20} MiB. Copy the "
                "store there again."
            )
        text: bytes = system.cat_file(f"{path}/{MANIFEST}")
    except StoreError:
        raise
    except FileNotFoundError:
        raise StoreError(
            f"{url} is not a prepared store: it has no {MANIFEST}. Copy a folder that "
            "segan-ray prepare made there, the manifest last."
        ) from None
    except Exception as error:  # every file system has errors of its own
        raise StoreError(f"{url}/{MANIFEST}: cannot be read ({named(error)}).") from None
    return parse_manifest(text, f"{url}/{MANIFEST}"), text
