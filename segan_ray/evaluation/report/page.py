"""How a report looks: the page, its sections, tables and places for charts.

Everything that comes from outside (names of trials, parameters, reasons) is text to show and
never markup: ``esc`` for HTML, ``label`` for Plotly, which reads tags in its texts.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs


@dataclass(frozen=True)
class Section:
    """One part of the page: ``anchor`` names it in links, ``body`` is finished HTML.

    ``short`` stands for the title where the sections are listed.
    """

    anchor: str
    title: str
    body: str
    short: str = ""


def esc(value: object) -> str:
    """Return ``value`` as text that HTML shows letter by letter."""
    return html.escape(str(value))


def label(value: object) -> str:
    """Return ``value`` as text that Plotly, which knows no ``&quot;``, shows letter by letter."""
    return html.escape(str(value), quote=False)


def number(value: float) -> str:
    """Return a parameter's value in four digits, without an exponent's padding."""
    return f"{value:.4g}".replace("e-0", "e-").replace("e+0", "e+")


def page(title: str, header: str, sections: Sequence[Section]) -> str:
    """Return the whole page; ``title`` is plain text, ``header`` and the sections are HTML."""
    links = "".join(
        f'<li><a href="#{one.anchor}">{one.short or one.title}</a></li>' for one in sections
    )
    parts = "\n".join(
        f'<section id="{one.anchor}"><h2>{one.title}</h2>\n{one.body}</section>' for one in sections
    )
    body = (
        f'<header class="top">\n{header}\n<nav aria-label="Contents"><ul>{links}</ul></nav>\n'
        f"</header>\n<main>\n{parts}\n</main>\n<footer><p>Made by segan-ray. This page holds all "
        "it shows: it needs no network and can be sent as it is.</p></footer>"
    )
    template = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return Template(template).substitute(title=esc(title), body=body, plotly=get_plotlyjs())


def missing(why: str, command: str = "") -> str:
    """Return the one line of a section without data; ``command`` is what fills it."""
    fills = f" <code>{esc(command)}</code>" if command else ""
    return f'<p class="missing">{why}{fills}</p>\n'


def table(head: str, rows: Sequence[str], *, kind: str, caption: str) -> str:
    """Return a table in a box of its own, which scrolls when the screen is too narrow."""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}">\n'
        f'<table class="{kind}"><caption>{caption}</caption>\n<thead>{head}</thead>\n<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody></table></div>\n"
    )


def facts(rows: Sequence[tuple[str, str]], caption: str) -> str:
    """Return a table of names and what they are, both HTML; it folds on a phone."""
    lines = "\n".join(f'<tr><th scope="row">{name}</th><td>{fact}</td></tr>' for name, fact in rows)
    return f'<table class="facts"><caption>{caption}</caption><tbody>\n{lines}\n</tbody></table>\n'


def chart(name: str, figure: go.Figure, *, spoken: str, caption: str) -> str:
    """Return the place of a chart and its data; ``spoken`` is for those who cannot see it."""
    # A "<" inside the data could end the script element that carries it.
    data = str(figure.to_json()).replace("<", "\\u003c")
    return (
        f'<figure class="chart"><div id="chart-{name}" role="img" aria-label="{spoken}" '
        f'style="min-height:{figure.layout.height}px"></div>\n'
        "<noscript><p>Charts need JavaScript.</p></noscript>\n"
        f"<figcaption>{caption}</figcaption></figure>\n"
        f'<script type="application/json" data-chart="chart-{name}">{data}</script>\n'
    )
