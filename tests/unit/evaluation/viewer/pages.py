"""What a page of a case holds, read back from its text."""

from __future__ import annotations

import base64
import gzip
import json
import re
from typing import Any

import nibabel as nib


def volumes(page: str) -> dict[str, nib.Nifti1Image]:
    """The volumes of a page by their names."""
    held = re.findall(r'data-volume="(\w+)">([^<]*)</script>', page)
    return {
        name: nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))
        for name, text in held
    }


def facts(page: str) -> dict[str, Any]:
    """What the script of a page is told."""
    (text,) = re.findall(r'id="facts">([^<]*)</script>', page)
    document: dict[str, Any] = json.loads(text)
    return document
