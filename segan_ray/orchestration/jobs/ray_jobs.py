"""Sweeps and runs as Ray Jobs: submitting, listing and ending them.

A job's name is its sweep's and the number of the attempt, so that Ray refuses one of two jobs of
the same sweep that are submitted at once.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import segan_ray
from segan_ray import __version__
from segan_ray.errors import ClusterError, nearest
from segan_ray.home import RESUME_WITH
from segan_ray.orchestration.jobs.dashboard import NO_AGENT, Dashboard, dashboard, said_in_words
from segan_ray.orchestration.jobs.job_spec import STOP_WAIT_S, JobSpec
from segan_ray.redaction import mask

SWEEP: Final = "segan.sweep"
POLL_S: Final = 0.5
STARTING_S: Final = 120.0
"""How long a head node may take after its start until it accepts jobs."""
LOST: Final = "LOST"
"""Our status of a job that the cluster has forgotten; all others are Ray's."""
ENDED: Final = ("SUCCEEDED", "FAILED", "STOPPED", LOST)


@dataclass(frozen=True)
class Job:
    """One job of ours on a cluster; ``status`` is Ray's own word, ``started`` in UTC.

    ``message`` says why the job ended; ``again`` is the command that resumes its sweep.
    """

    job: str
    sweep: str
    status: str
    started: datetime | None
    message: str
    again: str

    @property
    def ended(self) -> bool:
        """Whether the job has ended."""
        return self.status in ENDED

    def document(self) -> dict[str, Any]:
        """Return the job as JSON."""
        started = None if self.started is None else self.started.isoformat(timespec="seconds")
        return {"job": self.job, "status": self.status, "sweep": self.sweep, "started": started}


@dataclass(frozen=True)
class Cluster:
    """A cluster that takes jobs, at the address of its dashboard."""

    address: str
    client: Dashboard

    @classmethod
    def at(cls, address: str | None) -> Cluster:
        """Reach a cluster.

        Raises:
            ClusterError: as ``dashboard``.
        """
        client = dashboard(address)
        return cls(client.get_address(), client)

    def command(self, *words: str) -> str:
        """Return a command about this cluster, without the password, since it is shown."""
        return " ".join(("segan-ray submit --address", mask(self.address), *words))

    def jobs(self) -> list[Job]:
        """Return every job of ours that the cluster remembers, oldest first."""
        with said_in_words(self.address):
            details = self.client.list_jobs()
        ours = [each for each in details if each.submission_id and SWEEP in (each.metadata or {})]
        return [_job(each) for each in sorted(ours, key=lambda each: each.start_time or 0)]

    def job(self, name: str) -> Job:
        """Return the job ``name``, or the last one of the sweep ``name``.

        Raises:
            ClusterError: if there is neither.
        """
        jobs = self.jobs()
        for job in reversed(jobs):
            if name in (job.job, job.sweep):
                return job
        hint = nearest(name, [text for job in jobs for text in (job.job, job.sweep)])
        raise ClusterError(
            f"The cluster knows no job or sweep '{name}' of segan-ray.{hint} List them: "
            f"{self.command('--list')}"
        )

    def look(self, job: Job) -> Job:
        """Return the job as it is now."""
        with said_in_words(self.address):
            try:
                return _job(self.client.get_job_info(job.job))
            except RuntimeError as error:
                if "status code 404" not in str(error):
                    raise
        return replace(job, status=LOST, message="the cluster forgot it; was its head restarted?")

    def log(self, job: Job) -> str:
        """Return the whole log of a job."""
        with said_in_words(self.address):
            return str(self.client.get_job_logs(job.job))

    def submit(self, spec: JobSpec) -> Job:
        """Submit a job and return it, pending or running.

        Raises:
            ClusterError: if a job runs the sweep already, or if Ray refuses.
        """
        before = [job for job in self.jobs() if job.sweep == spec.sweep]
        for job in before:
            if not job.ended:
                raise ClusterError(
                    f"'{spec.sweep}' is run by the job {job.job} now ({job.status}). Follow it: "
                    f"{self.command('--follow', job.job)}; end it: "
                    f"{self.command('--stop', job.job)}; or choose another --name."
                )
        name = f"{spec.sweep}-{_attempts(before) + 1}"
        variables = spec.variables(self.command(*spec.again))
        with tempfile.TemporaryDirectory(prefix="segan-ray-job-") as folder:
            uploads = lay_out(spec, Path(folder))
            self._submit(
                submission_id=name,
                entrypoint=spec.entrypoint(),
                runtime_env={**uploads, "env_vars": variables},
                metadata={SWEEP: spec.sweep, "segan.version": __version__},
            )
        return self.job(name)

    def _submit(self, **request: Any) -> None:
        """Submit a job, again and again while the cluster is still starting."""
        deadline = time.monotonic() + STARTING_S
        while True:
            with said_in_words(self.address):
                try:
                    self.client.submit_job(**request)
                    return
                except RuntimeError as error:
                    if NO_AGENT not in str(error) or time.monotonic() > deadline:
                        raise
            time.sleep(POLL_S)

    def stop(self, job: Job, say: Callable[[str], None]) -> Job:
        """Ask a job to end and wait for its end; its sweep is suspended and can be resumed.

        Raises:
            ClusterError: if the job still runs long after Ray should have killed it.
        """
        if job.ended:
            return job
        with said_in_words(self.address):
            self.client.stop_job(job.job)
        say(f"Asked {job.job} to end; what it was doing is noted first.")
        deadline = time.monotonic() + 2 * STOP_WAIT_S
        while not (job := self.look(job)).ended:
            if time.monotonic() > deadline:
                raise ClusterError(f"{job.job} was asked to end and has not ({job.status}).")
            time.sleep(POLL_S)
        return job


def lay_out(spec: JobSpec, folder: Path) -> dict[str, Any]:
    """Write the files and the package below ``folder``; return them as Ray's runtime environment.

    Ray packs whole folders, so each folder here holds nothing else.
    """
    uploads: dict[str, Any] = {}
    if spec.files:
        files = folder / "files"
        files.mkdir()
        for name, content in spec.files.items():
            (files / name).write_bytes(content)
        uploads["working_dir"] = str(files)
    if spec.package:
        code = folder / "segan_ray"
        shutil.copytree(
            Path(segan_ray.__file__).parent,
            code,
            ignore=shutil.ignore_patterns("__pycache__", ".*", "*.pyc"),
            ignore_dangling_symlinks=True,
        )
        uploads["py_modules"] = [str(code)]
    return uploads


def _job(details: Any) -> Job:
    variables = (details.runtime_env or {}).get("env_vars", {})
    started = details.start_time
    return Job(
        details.submission_id,
        details.metadata[SWEEP],
        str(details.status.value),
        None if not started else datetime.fromtimestamp(started / 1000, UTC),
        reason_of(details.message or "", details.driver_exit_code),
        variables.get(RESUME_WITH, ""),
    )


def reason_of(message: str, exit_code: int | None) -> str:
    """Return why a job ended, in one line, from its log or from Ray's message.

    Our own commands end with a line ``Error: …``; Ray's message includes the end of the log.
    """
    errors = re.findall(r"^Error: (.+)$", message, re.MULTILINE)
    if errors:
        return str(errors[-1])
    if exit_code is not None and exit_code < 0:
        return f"its process was killed by signal {-exit_code}."
    return message.splitlines()[0] if message else ""


def _attempts(jobs: list[Job]) -> int:
    counts = (job.job.removeprefix(f"{job.sweep}-") for job in jobs)
    return max((int(count) for count in counts if count.isdecimal()), default=0)
