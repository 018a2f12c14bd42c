"""The doctor as a Ray Job, for users who can reach only a cluster's dashboard."""

from __future__ import annotations

import json
import os
import time
from typing import Any, Final

from segan_ray.errors import ClusterError
from segan_ray.home import HOME, Home
from segan_ray.orchestration.cluster.findings import Check
from segan_ray.orchestration.jobs.dashboard import dashboard, said_in_words
from segan_ray.orchestration.jobs.job_spec import JobSpec, check_open, environment_of

POLL_S: Final = 0.5
PATIENCE_S: Final = 600.0


def examine_by_job(address: str, home: Home, store: str | None) -> list[Check]:
    """Return the checks of the doctor, run on the cluster's head.

    Raises:
        ClusterError: if the cluster takes no job, the doctor could not be run there, or the store's
            address holds a secret.
    """
    environment, needed = environment_of(os.environ)
    words = ("doctor", *([store] if store else []), "--json")
    check_open(words, os.environ)
    where = environment.get(HOME, str(home.folder))
    spec = JobSpec("doctor", words, words, where, {}, environment, needed, needed)
    client = dashboard(address)
    with said_in_words(address):
        job = client.submit_job(
            entrypoint=spec.entrypoint(), runtime_env={"env_vars": dict(environment)}
        )
        deadline = time.monotonic() + PATIENCE_S
        while not client.get_job_status(job).is_terminal():
            if time.monotonic() > deadline:
                raise ClusterError(f"The doctor's job {job} has not ended in {PATIENCE_S:.0f} s.")
            time.sleep(POLL_S)
        log = str(client.get_job_logs(job))
    document = document_in(log)
    if document is None:
        last = [line for line in log.splitlines() if line.strip()] or ["it wrote nothing."]
        raise ClusterError(f"The doctor could not be run on the cluster: {last[-1]}")
    return [Check(**check) for check in document["checks"]]


def document_in(log: str) -> dict[str, Any] | None:
    """Return the JSON document among the lines of a log, or None."""
    for start, line in enumerate(log.splitlines(keepends=True)):
        if line.strip() == "{":
            text = "".join(log.splitlines(keepends=True)[start:])
            try:
                content, _ = json.JSONDecoder().raw_decode(text)
            except ValueError:
                continue
            if isinstance(content, dict) and "checks" in content:
                return content
    return None
