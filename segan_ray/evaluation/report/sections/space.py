"""The question: which parameters were searched, over which ranges, how and how long."""

from __future__ import annotations

from collections.abc import Sequence

from segan_ray.errors import many
from segan_ray.evaluation.report.content import SweepReport
from segan_ray.evaluation.report.page import Section, esc, facts, missing, table
from segan_ray.search.results.question import AskedParameter, SearchQuestion, question

TITLE = "The question"


def space(report: SweepReport) -> Section:
    """Show the search space as a table, and its file as it was written."""
    asked = question(report.space)
    whole = (
        "<details><summary>The space file, YAML</summary>"
        f"<pre><code>{esc(report.space)}</code></pre></details>"
    )
    if not report.space.strip():
        return Section("space", TITLE, missing("The sweep's space file was not recorded."))
    if asked is None:
        why = "The sweep's file is none that this segan-ray reads; here it is as it was written."
        return Section("space", TITLE, missing(why) + whole)
    body = f"<p>{_sentence(asked)}</p>" + _ranges(asked.parameters) + _how(asked) + whole
    return Section("space", TITLE, body)


def _sentence(asked: SearchQuestion) -> str:
    return (
        f"Which values of {many(len(asked.parameters), 'parameter')} reach the "
        f"{' and the '.join(f'<strong>{esc(one)}</strong>' for one in asked.objectives)}?"
    )


def _ranges(parameters: Sequence[AskedParameter]) -> str:
    conditional = any(one.condition for one in parameters)
    heads = ["Parameter", "Values", *["Drawn only if"] * conditional]
    rows = [
        f'<tr><th scope="row"><code>{esc(one.path)}</code></th><td>{esc(one.values)}</td>'
        + f"<td>{esc(one.condition)}</td>" * conditional
        + "</tr>"
        for one in parameters
    ]
    head = "<tr>" + "".join(f'<th scope="col">{text}</th>' for text in heads) + "</tr>"
    return table(head, rows, kind="ranges", caption="Parameters and their ranges")


def _how(asked: SearchQuestion) -> str:
    said = {
        **({"Constraints": "; ".join(asked.constraints)} if asked.constraints else {}),
        "Sampler": asked.sampler,
        "Scheduler": asked.scheduler,
        "Budget": asked.budget,
        "Tried first": asked.first or "nothing in particular",
        "Same in every trial": asked.settings or "the defaults",
    }
    return facts([(esc(name), esc(value)) for name, value in said.items()], "How it was searched")
