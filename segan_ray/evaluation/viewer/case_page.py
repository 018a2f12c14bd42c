"""The page of a case: a template, the viewer's scripts, and the voxels as NIfTI files in it.

NiiVue (``niivue.js``, with its version and licences in ``niivue.txt``) draws slices and the 3-D
rendering. ``viewer.js`` draws the outlines over them and joins both to the controls. Every name
that comes from outside is text to show and never markup.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import Final

from segan_ray.brats import MODALITIES, REGIONS, Modality
from segan_ray.data.io.headers import times
from segan_ray.data.io.nifti import encode
from segan_ray.data.store.origin import millimetres
from segan_ray.evaluation.figures.palette import COLOURS
from segan_ray.evaluation.viewer.shown_case import BRIGHTEST, DARKEST, ShownCase

VIEWS: Final = {
    "all": "All",
    "axial": "Axial",
    "coronal": "Coronal",
    "sagittal": "Sagittal",
    "render": "3-D",
}
FIRST: Final[Modality] = "flair"
"""The scan that is shown first: the whole tumour shows best in it."""
STROKES: Final = {"truth": "solid", "prediction": "dashed"}


def render_case(name: str, layout: str, shown: ShownCase) -> str:
    """Return the page: an HTML5 document that loads nothing from anywhere."""
    return Template(_part("page.html")).substitute(
        title=html.escape(name),
        meta=html.escape(_meta(layout, shown)),
        modalities=_choices("modality", {name: name for name in MODALITIES}, FIRST),
        views=_choices("view", VIEWS, "all"),
        outlines=_outlines(shown),
        legend=_legend(shown),
        greys=f"{DARKEST:g}st to {BRIGHTEST:g}th",
        volumes=_volumes(shown),
        facts=_json(
            {
                "colours": [COLOURS[region] for region in REGIONS],
                "regions": REGIONS,
                "modalities": MODALITIES,
                "maps": list(shown.maps),
                "start": shown.start_mm,
            }
        ),
        # A page that is sent on passes NiiVue on, whose licence has to go with it.
        licences=html.escape(_part("niivue.txt")),
        niivue=_part("niivue.js"),
        viewer=_part("viewer.js"),
    )


def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _meta(layout: str, shown: ShownCase) -> str:
    box = next(iter(shown.scans.values())).shape
    return (
        f"{layout}, {times(shown.grid)} voxels of {millimetres(shown.spacing_mm)}, "
        f"cut to the {times(box)} that show anything"
    )


def _choices(group: str, choices: Mapping[str, str], chosen: str) -> str:
    """Return a group of radio buttons with the one of ``chosen`` on."""
    return "\n".join(
        f'<label><input type="radio" name="{group}" value="{value}"'
        f"{' checked' if value == chosen else ''}><span>{label}</span></label>"
        for value, label in choices.items()
    )


def _outlines(shown: ShownCase) -> str:
    """Return the controls of the outlines, or a line that says that there is none."""
    if not shown.maps:
        return (
            '<p class="missing">This case has no truth, and no prediction was given: '
            "the scans alone.</p>"
        )
    boxes = "\n".join(
        f'<label><input type="checkbox" name="outline" value="{name}" checked>'
        f'<span><i class="stroke {STROKES[name]}"></i>{name}</span></label>'
        for name in shown.maps
    )
    outlines = f'<fieldset class="group"><legend>Outlines</legend>{boxes}</fieldset>'
    solids = _choices(
        "solid", {name: name for name in [*shown.maps, "none"]}, next(iter(shown.maps))
    )
    return f'{outlines}\n<fieldset class="group"><legend>In 3-D</legend>{solids}</fieldset>'


def _legend(shown: ShownCase) -> str:
    """Return the table of the regions' colours, with their volumes in each map."""
    if not shown.maps:
        return ""
    volumes = {name: shown.millilitres(name) for name in shown.maps}
    head = "".join(f'<th scope="col">{name}, ml</th>' for name in volumes)
    rows = "\n".join(
        f'<tr><th scope="row"><i class="chip" style="--chip: rgb{COLOURS[region]}"></i>'
        f"{region}</th>"
        + "".join(f"<td>{of_map[region]:.1f}</td>" for of_map in volumes.values())
        + "</tr>"
        for region in REGIONS
    )
    return (
        '<table class="legend"><caption>Regions, each within the one above</caption>'
        f'<thead><tr><th scope="col">region</th>{head}</tr></thead>'
        f"<tbody>\n{rows}\n</tbody></table>"
    )


def _volumes(shown: ShownCase) -> str:
    """Return every volume as a gzipped NIfTI file in base64, in an element that runs nothing."""
    return "\n".join(
        f'<script type="application/octet-stream" data-volume="{name}">'
        f"{base64.b64encode(encode(voxels, shown.affine, f'segan-ray: {name}')).decode()}</script>"
        for name, voxels in (*shown.scans.items(), *shown.maps.items())
    )


def _json(content: dict[str, object]) -> str:
    # A "<" inside the data could end the script element that carries it.
    return json.dumps(content).replace("<", "\\u003c")
