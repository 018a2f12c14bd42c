"""Making the job spec of the command after ``submit --``.

The command is parsed by the options of ``tune`` and ``train``, so that an error is found here,
before anything is sent.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
import typer.main

from segan_ray.cli import training

if TYPE_CHECKING:
    from segan_ray.orchestration.jobs.job_spec import JobSpec

ONLY = ("tune", "train")


def pack(command: Sequence[str], package: bool, say: Callable[[str], None]) -> JobSpec:
    """Return the job spec of a command; ``say`` is told where the job looks for its locations.

    Raises:
        ConfigError: if its search space or its settings are wrong.
        ClusterError: if it holds a password, or names a file that cannot travel.
    """
    from segan_ray.home import DEFAULT_HOME
    from segan_ray.orchestration.jobs import job_spec

    typed = parse(command)
    name, files = _settle(typed)
    environment, needed = job_spec.environment_of(os.environ)
    unsent = job_spec.unsent_of(os.environ, needed)
    again = typed.words({"name": name, "resume": True})
    there: dict[str, Any] = {"store": job_spec.seen_from_afar(typed.values["store"]), "name": name}
    if typed.given("home"):
        there["home"] = job_spec.seen_from_afar(str(typed.values["home"]))
    there |= {option: file for option, file, _ in files}
    words = typed.words(there)
    job_spec.check_open((*words, *again), os.environ)
    for sentence in _said(there, environment, unsent):
        say(sentence)
    return job_spec.JobSpec(
        name,
        words,
        (*(["--package"] if package else []), "--", *map(shlex.quote, again)),
        job_spec.seen_from_afar(DEFAULT_HOME),
        {file: content for _, file, content in files},
        environment,
        needed,
        unsent,
        package,
    )


@dataclass(frozen=True)
class Typed:
    """A parsed command: its name, its parameters as Typer has them, and their values."""

    command: str
    parameters: Sequence[Any]
    values: Mapping[str, Any]
    typed: frozenset[str]

    def given(self, name: str) -> bool:
        """Tell whether a parameter was typed, not taken from the environment or a default."""
        return name in self.typed

    def words(self, changes: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the words of the command, with some values changed."""
        words = [self.command]
        for parameter in self.parameters:
            if not self.given(parameter.name) and parameter.name not in changes:
                continue
            value = changes.get(parameter.name, self.values[parameter.name])
            words += _as_typed(parameter, value)
        return tuple(words)


def parse(command: Sequence[str]) -> Typed:
    """Parse the command after ``--``.

    Raises:
        typer.BadParameter: if it is neither ``tune`` nor ``train``; other errors of syntax are
            Typer's own.
    """
    name, *arguments = command
    if name not in ONLY:
        raise typer.BadParameter(
            f"'{name}' cannot be a job: only {' and '.join(ONLY)} can. Run it here, with "
            "MLFLOW_TRACKING_URI set to where the job's records are."
        )
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    training.register(app)
    group: Any = typer.main.get_command(app)
    chosen = group.commands[name]
    context = chosen.make_context(f"segan-ray submit -- {name}", list(arguments))
    source = context.get_parameter_source
    typed = frozenset(
        each for each in context.params if getattr(source(each), "name", "") == "COMMANDLINE"
    )
    return Typed(name, chosen.params, context.params, typed)


def _as_typed(parameter: Any, value: Any) -> list[str]:
    if parameter.param_type_name == "argument":
        return [str(value)]
    (option, *_) = parameter.opts
    if parameter.is_flag:
        return [option] if value else []
    values = value if parameter.multiple else [value]
    return [word for each in values for word in (option, str(each))]


def _settle(typed: Typed) -> tuple[str, list[tuple[str, str, bytes]]]:
    """Return the sweep's name, and (option, name on the cluster, content) of files that travel.

    Raises:
        ConfigError: if a file is no space or settings.
    """
    from segan_ray.api.sweeps import new_name
    from segan_ray.orchestration.jobs.job_spec import carried

    values = typed.values
    if typed.command == "tune":
        from segan_ray.search.space.space_file import load_space, resolve_space

        file = resolve_space(values["space"])
        space = load_space(file)
        name = new_name(values["name"], space.name, resume=values["resume"])
        return name, [("space", "space.yaml", carried(file))]
    name = new_name(values["name"], "train", resume=values["resume"])
    config: Path | None = values["config"]
    if config is None:
        return name, []
    from segan_ray.config import load_experiment

    load_experiment(config, values["assignments"] or [], values["preset"])
    return name, [("config", "config.yaml", carried(config))]


def _said(
    there: Mapping[str, Any], environment: Mapping[str, str], unsent: Sequence[str]
) -> list[str]:
    """Return sentences on where the job looks for its store, records and secrets."""
    from segan_ray.filesystem.locations import is_url

    said = []
    if not is_url(there["store"]):
        said.append(
            f"{there['store']} is read on the cluster's nodes, at that path; it does not travel."
        )
    if environment:
        sent = ", ".join(f"{name}={value}" for name, value in environment.items())
        said.append(f"Sent along: {sent}")
    if unsent:
        said.append(
            f"Not sent, they hold secrets: {', '.join(unsent)}. The job takes them from the "
            "environment of the cluster's nodes."
        )
    return said
