"""segan-ray from Python, for scripts and notebooks: the functions behind the commands.

::

    from segan_ray import api

    api.phantom("data", cases=40, spacing_mm=4)
    api.prepare("data", "store")
    sweep = api.tune("store", "smoke")
    api.promote(sweep.sweep)
    api.evaluate("champion", "store").cases

Each function returns its result and prints nothing on stdout. While it works, progress is drawn on
a terminal's stderr or below a notebook's cell; ``progress=False`` draws none. What a user should
know meanwhile goes to ``on_note``, by default to the log ``segan_ray.api``. Errors that a user can
mend are ``segan_ray.errors.SeganRayError``. Functions may run on any thread, and on a Ray that the
caller has started.
"""

from segan_ray.api.data import PreparedStore, phantom, prepare
from segan_ray.api.models import evaluate, load_model, predict, promote
from segan_ray.api.sweeps import compare, read_sweep, train, tune
from segan_ray.config import Experiment
from segan_ray.search.space.search_space import SearchSpace

__all__ = [
    "Experiment",
    "PreparedStore",
    "SearchSpace",
    "compare",
    "evaluate",
    "load_model",
    "phantom",
    "predict",
    "prepare",
    "promote",
    "read_sweep",
    "train",
    "tune",
]
