"""How often the patients of a gate were used, noted in the registry before the result is told.

A try compares a candidate with a champion. The same pair again is the same question with the same
answer at any margin, so it is no new try. A rehearsal is a try, since a user who rehearses until
a candidate passes has chosen by these patients. Tries are counted by the scans of the gate's
patients, so stores with the same gate share a count even if their other splits differ.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

from mlflow import MlflowClient

from segan_ray.data.store.opened_store import PreparedCase
from segan_ray.errors import RegistryError
from segan_ray.home import Home
from segan_ray.tracking.client.retries import said_in_words
from segan_ray.tracking.registry.aliases import registry_lock
from segan_ray.tracking.registry.model_versions import MODEL

TRIES: Final = "segan.tries"
"""The prefix of the tags that note a try each: its number, candidate and champion."""


def count_try(
    home: Home,
    client: MlflowClient,
    cases: Sequence[PreparedCase],
    question: Mapping[str, Any],
) -> int:
    """Return the number of the try that ``question`` is on the patients of ``cases``, from 1.

    A new try is noted in a tag of its own: two computers that ask at once may get the same number,
    but neither can undo the other's note. The registered model must exist.

    Raises:
        RegistryError: if another process has been writing to the registry for minutes, or if the
            note was changed.
        TrackingError: if the registry does not answer.
    """
    of_patients = f"{TRIES}.{_digest(sorted(case.record.voxels_sha256 for case in cases))}."
    name = f"{of_patients}{_digest(question)}"
    with registry_lock(home), said_in_words(client):
        tags = client.get_registered_model(MODEL).tags
        if name in tags:
            return _noted(name, tags[name])
        number: int = 1 + sum(tag.startswith(of_patients) for tag in tags)
        client.set_registered_model_tag(MODEL, name, json.dumps({"try": number, **question}))
    return number


def _noted(name: str, note: str) -> int:
    with contextlib.suppress(ValueError, TypeError, KeyError):
        number = json.loads(note)["try"]
        if isinstance(number, int) and number > 0:
            return number
    raise RegistryError(
        f"The tag {name} of the registered model {MODEL} does not say which try it notes; found "
        f"{note!r}, expected one like {json.dumps({'try': 3})}. Remove it to count the try anew."
    )


def _digest(content: object) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
