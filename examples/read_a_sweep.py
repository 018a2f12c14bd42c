# %% [markdown]
# # Reading a sweep
#
# The trials of a sweep as a table and as curves, with pandas and Plotly: which settings won, when
# trials were stopped, and which setting seems to matter.
#
# This goes on from [a first sweep](first_sweep.py): run that first, in the same folder. Nothing is
# trained here, so it takes seconds. **A handful of small trials on phantoms shows how to read, not
# what is true of SegAN.**

# %% tags=["parameters"]
SWEEP = "first"  # the sweep to read. In earnest: yours, with 20 trials or more.
METRIC = "val/dice_mean"  # what is drawn by epoch; trials report more than that.

# %% [markdown]
# ## The trials
#
# One row a trial, best first. Every setting that was drawn has a column of its own, by its path.

# %%
from segan_ray import api

table = api.read_sweep(SWEEP)
drawn = [column for column in table if "." in column]
table[["trial", "status", "epochs", "score", *drawn]].head(10).round(5)

# %% [markdown]
# `completed` trials ran all epochs, `stopped` ones were ended by the scheduler since others were
# ahead at the same epoch, `failed` ones have a `reason`.

# %%
table["status"].value_counts().to_frame()

# %% [markdown]
# ## All settings at once
#
# Each line is a trial. Where bright lines pass through a narrow part of an axis, that part is worth
# a closer search. Learning rates were drawn on a log scale, so they are drawn on one.

# %%
import numpy as np
import plotly.express as px
import plotly.graph_objects as go

scored = table.dropna(subset=["score"])


def axis(column):
    """Return the axis of a setting: in powers of ten where it spans a wide range."""
    values = scored[column].astype(float)
    if values.min() <= 0 or values.max() < 5 * values.min():
        return {"label": column, "values": values}
    return {"label": f"log10 of {column}", "values": np.log10(values)}


numbers = [
    column for column in drawn if np.issubdtype(scored[column].dtype, np.number)
]
go.Figure(
    go.Parcoords(
        line={"color": scored["score"], "colorscale": "Viridis", "showscale": True},
        dimensions=[
            *map(axis, numbers),
            {"label": "score", "values": scored["score"]},
        ],
    ),
    {"title": "Settings and score of each trial", "margin": {"t": 110, "l": 90}},
)

# %% [markdown]
# ## Learning curves
#
# Every trial's run in MLflow has its metrics by epoch. `mlflow_run` of the table is its id.

# %%
import mlflow
import pandas as pd

from segan_ray.home import Home

client = mlflow.MlflowClient(Home.at(None).tracking_uri)
curves = pd.DataFrame(
    {"trial": trial.trial, "epoch": point.step, METRIC: point.value}
    for trial in table.itertuples()
    for point in client.get_metric_history(trial.mlflow_run, METRIC)
)
px.line(
    curves,
    x="epoch",
    y=METRIC,
    color="trial",
    markers=True,
    title="Validation by epoch",
)

# %% [markdown]
# Lines that end early were stopped. A curve that still rises at its last epoch says that trials are
# too short; compare settings with care then, as the fast ones win.

# %% [markdown]
# ## Which setting matters?
#
# A stopped trial's score is that of fewer epochs. So compare all trials at the last epoch that
# every one of them reached, by rank: Spearman's correlation with each setting. It sees one setting
# at a time and only what rises or falls.

# %%
common = int(curves.groupby("trial")["epoch"].max().min())
at_common = curves[curves["epoch"] == common].set_index("trial")[METRIC]
compared = scored.set_index("trial").join(at_common.rename("at common epoch"))
print(f"{len(compared)} trials, all at epoch {common}")
ranks = compared[numbers].corrwith(compared["at common epoch"], method="spearman")
ranks.rename("rank correlation").to_frame().round(2)

# %%
points = compared.reset_index().melt(
    ["trial", "at common epoch"], numbers, "setting", "value"
)
figure = px.scatter(
    points,
    x="value",
    y="at common epoch",
    facet_col="setting",
    hover_name="trial",
    log_x=True,
    title=f"{METRIC} at epoch {common} by setting",
)
figure.update_xaxes(matches=None)

# %% [markdown]
# With eight trials chance alone brings rank correlations of up to 0.74 in size (p = 0.05). Optuna
# weighs settings together by fANOVA, which wants some dozens of trials: the study is in the home's
# `optuna.db`, and `optuna.importance` reads it. The page of `segan-ray report first first.html` has
# such views ready made.

# %% [markdown]
# ## The best, once more
#
# The winner of a search won partly by luck. Train the best settings again with fresh seeds before
# you believe a difference: `api.tune("store", space, name="first", resume=True, repeat_top=3)`. In
# the table `repeat_of` then names the trial that was repeated.
