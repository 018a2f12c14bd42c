# %% [markdown]
# # A first sweep
#
# From nothing to a promoted model, on synthetic patients: make phantoms, prepare a store, search
# two learning rates, promote the best trial and score it on patients that no trial saw.
#
# It runs in a few minutes on two cores and needs no GPU. The settings below are small so that it
# does. **Scores of so small a sweep say that the machinery works, and nothing of how good SegAN
# is.** The [tutorial](../docs/tutorial.md) does the same on the command line.
#
# `pip install 'segan-ray[notebook]'` adds what a kernel of Jupyter needs. Without its ipywidgets
# all works as well, but Ray and tqdm warn below some cells.

# %% [markdown]
# ## Settings
#
# All that is small for speed is in this cell. What to take in earnest stands beside it.

# %% tags=["parameters"]
CASES = 24  # patients. In earnest: all you have, at least about fifty.
SPACING_MM = 4.0  # size of a voxel. In earnest: 1.0, as BRATS has it.
TRIALS = 8  # settings to try. In earnest: 20 to 100.
EPOCHS = 6  # of each trial at most. In earnest: 50 to 200.
STEPS = 40  # an epoch. In earnest: None, which takes every slice once.
CROP = 48  # side of a training slice, in voxels. In earnest: 160.
WIDTH = 8  # channels of the first level. In earnest: 16 or more.

# %% [markdown]
# ## Patients
#
# A phantom is a synthetic glioma, grown in an atlas of the human brain and written in the names and
# formats of BraTS 2021. With data of your own you leave this cell out.

# %%
from segan_ray import api

names = api.phantom("data", cases=CASES, spacing_mm=SPACING_MM)
print(len(names), "cases, from", names[0], "to", names[-1])

# %% [markdown]
# ## A store
#
# Training reads a *store*: scans cut to the brain, normalised, and divided by patient. Trials train
# on `train` and are scored on `val`. Promotion alone opens `gate`, evaluation alone `test`.

# %%
store = api.prepare("data", "store", val=0.2, gate=0.25, test=0.25)
{side: len(patients) for side, patients in store.splits.items()}

# %% [markdown]
# ## What to search
#
# An `Experiment` holds all settings of one training run, and checks them. What is not given here
# keeps its default ([all settings](../docs/settings.md)).

# %%
base = {
    "segmentor": {"base_width": WIDTH, "depth": 3},
    "critic": {"base_width": 4, "depth": 2},
    "training": {
        "epochs": EPOCHS,
        "steps_per_epoch": STEPS,
        "batch_size": 8,
        "crop": CROP,
    },
}
experiment = api.Experiment.model_validate(base)
print(experiment.segmentor.network, "with a critic of depth", experiment.critic.depth)

# %% [markdown]
# A `SearchSpace` says which settings are drawn, from where, and what ends a trial early. It may
# also be a file, or the name of a [shipped one](../docs/search.md#shipped-spaces):
# `api.tune("store", "learning_rates")`.

# %%
space = api.SearchSpace.model_validate(
    {
        "name": "first",
        "objective": {"metric": "val/dice_mean", "mode": "max"},
        "base": base,
        "parameters": {
            "segmentor.lr": {"type": "float", "low": 1e-3, "high": 2e-2, "log": True},
            "critic.lr": {"type": "float", "low": 1e-4, "high": 3e-3, "log": True},
        },
        "sampler": {"type": "tpe", "seed": 0, "startup_trials": 2},
        # Weaker trials end after two or four epochs.
        "scheduler": {"type": "asha", "grace_period": 2, "reduction_factor": 2},
        "budget": {"trials": TRIALS},
        # Unless this is empty, published settings come first. They are meant for GPUs.
        "enqueue": [],
    }
)

# %% [markdown]
# ## The sweep
#
# `tune` starts Ray on this machine, or joins the cluster that `RAY_ADDRESS` names. The table below
# the cell is drawn anew while the sweep runs. Interrupt the kernel if you like: the sweep is then
# recorded as interrupted, and the same call with `resume=True` goes on with it.

# %%
sweep = api.tune("store", space, name="first")

# %%
print(f"{sweep.status} with {len(sweep.trials)} trials; best: {sweep.best.trial}")

# %% [markdown]
# `read_sweep` returns any sweep's trials as a table, best first, later and in another process too.
# `score` is the mean Dice on `val` at a trial's best epoch.

# %%
table = api.read_sweep("first")
table[["trial", "status", "epochs", "score", "segmentor.lr", "critic.lr"]].round(4)

# %% [markdown]
# ## Promotion
#
# The best checkpoint goes through the gate: it becomes `champion` if it is better than the champion
# before on the gate's patients. The first one has nothing to beat.

# %%
promoted = api.promote("first")
verdict = promoted.verdict
print(
    f"trial {promoted.candidate.trial} {verdict.verdict} as version {promoted.version}"
)
print(verdict.reason)

# %% [markdown]
# ## Evaluation
#
# On the test patients, whole volumes, in the original grid. The reference is a threshold on FLAIR,
# tuned on the training patients: what a method without learning gets. So short a training on so few
# patients may well be behind it in some region.

# %%
scored = api.evaluate("champion", "store", references={"threshold": "threshold"})
dice = scored.cases.pivot_table(
    index="model", columns="region", values="dice", sort=False
)
dice.round(3)

# %% [markdown]
# With 95% intervals over patients, where there are at least six:

# %%
for region, metrics in scored.document["summary"].items():
    dice = metrics["dice"]
    ends = [round(end, 3) for end in dice["ci95"] or ()]
    print(f"{region}: {dice['mean']:.3f}", ends)

# %% [markdown]
# ## A picture
#
# Two test patients, each in the slice with most tumour: FLAIR and contrast-enhanced T1 (`t1ce`)
# with the true outlines, then with the predicted.

# %% picture="FLAIR and T1ce of two test patients, with the outlines of truth and prediction"
from pathlib import Path

from segan_ray.data.store.opened_store import open_test
from segan_ray.evaluation.figures.overlays import draw_overlay

champion, two = api.load_model("champion"), open_test(Path("store"))[:2]
draw_overlay(champion.segmentor, two, champion.inference_settings())

# %% [markdown]
# ## And then
#
# - [Reading a sweep](read_a_sweep.py), [comparing arms](compare_arms.py) and [a model on raw
#   arrays](raw_arrays.py) go on from here, in the same folder.
# - [Your own BRATS folder](own_brats_folder.py) says what changes with real data.
# - `segan-ray ui` shows all of it in MLflow ([how to read it](../docs/tracking-ui.md)),
#   `segan-ray report first first.html` writes one page of it.
