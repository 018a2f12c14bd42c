# %% [markdown]
# # Comparing arms
#
# Does a critic help U-Net? `api.compare` answers such questions fairly: each method ("arm") is
# tuned under one budget, its best settings are trained again with fresh seeds, and these models are
# scored on the test patients. The trial that won the search is not scored, for it won partly by
# luck.
#
# This goes on from [a first sweep](first_sweep.py): it needs the `store` made there. It takes a few
# minutes. **What small phantoms and few epochs show is how to compare, not which arm is better;**
# [the study](../docs/segan.md) has that.

# %% tags=["parameters"]
TRIALS = 2  # of each arm's search. In earnest: 20.
SEEDS = 3  # models of each arm that are scored. In earnest: 5.
EPOCHS = 4  # of each trial. In earnest: 50 to 200.
STEPS = 30  # an epoch. In earnest: None, which takes every slice once.
CROP = 48  # side of a training slice, in voxels. In earnest: 160.
WIDTH = 8  # channels of the first level. In earnest: 16 or more.

# %% [markdown]
# ## The arms
#
# What stands at the top is every arm's; an arm adds what is its own. The same may stand in a file,
# of which `"arms.yaml"` is given, or in a [shipped one](../docs/search.md#comparing-methods):
# `api.compare("store", "segan_vs_unet")`.

# %%
from segan_ray import api

arms = {
    "name": "critic-or-not",
    "base": {
        "segmentor": {"network": "unet", "base_width": WIDTH, "depth": 3},
        "critic": {"base_width": 4, "depth": 2},
        "training": {
            "epochs": EPOCHS,
            "steps_per_epoch": STEPS,
            "batch_size": 8,
            "crop": CROP,
        },
    },
    "parameters": {
        "segmentor.lr": {"type": "float", "low": 3e-3, "high": 2e-2, "log": True}
    },
    "sampler": {"type": "random", "seed": 0},
    "scheduler": {"type": "none"},
    "budget": {"trials": TRIALS},
    "arms": {
        "without-critic": {"base": {"variant": "unet"}},
        "with-critic": {},
    },
}

# %% [markdown]
# ## The comparison
#
# Arms are searched one after another, in one session of Ray. A comparison that was cut off goes on
# with `resume=True`. `equal="seconds"` gives each arm the same time rather than the same epochs.

# %%
comparison = api.compare("store", arms, name="critic-or-not", seeds=SEEDS)

# %% [markdown]
# ## Arm by arm
#
# Mean Dice over test patients and seeds. `weights` counts those of the segmentor, which is all that
# is used in the end, so both arms have the same.

# %%
import pandas as pd

REGIONS = ("whole", "core", "enhancing", "mean")
print(comparison["patients"], "test patients,", SEEDS, "seeds")
pd.DataFrame(
    {
        "arm": arm["arm"],
        "weights": arm["params"],
        "seeds": arm["seeds"],
        **{
            region: round(arm["summary"][region]["dice"]["mean"], 3)
            for region in REGIONS
        },
    }
    for arm in comparison["arms"]
).set_index("arm")

# %%
import plotly.graph_objects as go


def error_bars(dice):
    """Return the intervals of several means as error bars, none for few patients."""
    ends = [each["ci95"] or [each["mean"]] * 2 for each in dice]
    means = [each["mean"] for each in dice]
    return {
        "symmetric": False,
        "array": [high - mean for (_, high), mean in zip(ends, means, strict=True)],
        "arrayminus": [
            mean - low for (low, _), mean in zip(ends, means, strict=True)
        ],
    }


figure = go.Figure(
    layout={"title": "Dice on test patients, 95% intervals", "yaxis_range": [0, 1]}
)
for arm in comparison["arms"]:
    dice = [arm["summary"][region]["dice"] for region in REGIONS]
    figure.add_bar(
        name=arm["arm"],
        x=REGIONS,
        y=[each["mean"] for each in dice],
        error_y=error_bars(dice),
    )
figure

# %% [markdown]
# Intervals of few patients are wide, since patients differ much from each other. They do not
# decide: both arms were scored on the same patients.

# %% [markdown]
# ## The difference
#
# Paired over patients. An interval that holds 0 shows no difference. It allows for two chances:
# which patients were scored, and how a training run happened to end.

# %%
figure = go.Figure(
    layout={
        "title": "Paired difference, 95% intervals",
        "xaxis_title": "difference in Dice",
    }
)
for each in comparison["differences"]:
    dice = [each[region]["dice"] for region in REGIONS]
    figure.add_scatter(
        name=" less ".join(each["arms"]),
        mode="markers",
        x=[one["mean"] for one in dice],
        y=REGIONS,
        error_x=error_bars(dice),
        showlegend=True,
    )
figure.add_vline(x=0, line_dash="dot")

# %%
for each in comparison["differences"]:
    one, other = each["arms"]
    dice = each["mean"]["dice"]
    print(f"{one} less {other}: {dice['mean']:+.3f} in mean Dice")
    if dice["ci95"] is None:
        print("There are too few patients for an interval.")
    elif dice["ci95"][0] <= 0 <= dice["ci95"][1]:
        print("The interval holds 0: these runs show no difference.")
    else:
        print("The interval leaves 0 out.")

# %% [markdown]
# ## Seed by seed
#
# Each dot is one model. Where the dots of an arm lie further apart than the arms do, more seeds are
# wanted before more patients.

# %%
import plotly.express as px

runs = pd.DataFrame(
    {"arm": arm["arm"], "seed": str(run["seed"]), "mean Dice": run["dice"]["mean"]}
    for arm in comparison["arms"]
    for run in arm["runs"]
)
px.strip(
    runs,
    x="arm",
    y="mean Dice",
    hover_name="seed",
    title="Mean Dice of each seed's model",
)

# %% [markdown]
# The comparison is recorded in MLflow, with `comparison.html` as a page of it. From an arms file,
# `segan-ray compare store --arms arms.yaml --page arms.html` writes that page too.
