# %% [markdown]
# # Your own BRATS folder
#
# What is in a folder of BRATS cases, what is wrong with it, and how it becomes a store that can be
# trained on. [Use your own BRATS data](../docs/your-data.md) is the same on the command line.
#
# Phantoms stand in for your folder here, one of them spoilt on purpose. **One line is to be
# changed**: `DATA`, in the next cell. It runs in about a minute, and needs nothing from the other
# notebooks.

# %% tags=["parameters"]
DATA = "own-data"  # your folder, as downloaded, such as "/data/BraTS2021"
FOLDS = 3  # folds for cross-validation. In earnest: 5, or 0 for none.
STAND_INS = 14  # phantoms, where DATA is not there yet
SPACING_MM = 5.0  # size of their voxels; BRATS has 1.0

# %% [markdown]
# ## The folder
#
# If `DATA` exists, nothing is made. Else phantoms are written there in the names and formats of
# BraTS 2021, and one of them loses a scan, as happens in downloads.

# %%
from pathlib import Path

from segan_ray import api

data = Path(DATA)
if not data.exists():
    names = api.phantom(data, cases=STAND_INS, spacing_mm=SPACING_MM, seed=1)
    (data / names[3] / f"{names[3]}_t2.nii.gz").unlink()

for file in sorted(data.rglob("*.nii.gz"))[:5]:
    print(file)

# %% [markdown]
# ## Look before anything else
#
# `discover` tells the layout by names, from BRATS 2013 to 2024 and the Decathlon's Task01
# ([layouts](../docs/data.md)). `inspect_cases` reads every case once and finds all that is wrong.

# %%
import pandas as pd

from segan_ray.data.inspection.folder_report import COLUMNS
from segan_ray.data.inspection.inspect_folder import inspect_cases
from segan_ray.data.layouts.cases import discover

report = inspect_cases(discover(data), workers=2, sketch_side=96)
print(report.layout, "-", report.verdict())
for case, problem in report.problems():
    print(f"{case}: {problem}")
for note in report.notes:
    print(note)

# %% [markdown]
# Regions are in ml. `=` means that the case is its own patient; a patient may have several scans.

# %%
rows = pd.DataFrame([case.row() for case in report.cases], columns=[*COLUMNS])
rows.drop(columns=["grade", "mm", "intensity"]).fillna("")

# %% [markdown]
# Swapped modalities show in pictures and nowhere else, so look at them. Each case is drawn in the
# slice with most tumour: all four scans, the truth outlined.

# %% picture="The first cases of the folder, four scans each with the true outlines"
from dataclasses import replace

from segan_ray.evaluation.figures.thumbnails import draw_sheets

next(draw_sheets(replace(report, cases=report.cases[:6])))

# %% [markdown]
# ## Make the store
#
# With `skip_bad` the bad cases are left out, each with its reason; without it they are an error.
# `val`, `gate` and `test` are shares of the patients. Gate and test need six patients at least for
# intervals, and many more to answer fine questions ([the gate in figures](../docs/gate.md)). A
# split of your own goes in with `split_file=` ([its format](../docs/data.md#the-store)).

# %%
store = api.prepare(
    data, "own-store", skip_bad=True, val=0.2, gate=0.2, test=0.2, folds=FOLDS
)
print(store.cases, "cases, fingerprint", store.fingerprint)
for case, reason in store.skipped.items():
    print(f"left out: {case}: {reason}")
for note in store.notes:
    print(note)

# %% [markdown]
# ## Look at the splits
#
# The store's manifest knows each case's split, grid and regions. A patient is on one side with all
# scans.

# %%
import numpy as np

from segan_ray.data.store.opened_store import read_manifest

manifest = read_manifest(store.path)
side_of = {
    patient: side for side, members in manifest.splits.items() for patient in members
}
cases = pd.DataFrame(
    {
        "case": case.case,
        "split": side_of[case.patient],
        **{
            region: voxels * np.prod(case.spacing_mm) / 1000
            for region, voxels in case.region_voxels.items()
        },
    }
    for case in manifest.cases
)
volumes = cases.groupby("split", sort=False)[["whole", "core", "enhancing"]].median()
volumes.insert(0, "cases", cases["split"].value_counts())
volumes.loc[["train", "val", "gate", "test"]].round(1)

# %% [markdown]
# Splits are drawn by chance. With few patients one side may get all the large tumours, and then
# scores of `val` and `test` differ for that reason alone.

# %%
import plotly.express as px

px.strip(
    cases,
    x="split",
    y="whole",
    hover_name="case",
    category_orders={"split": ["train", "val", "gate", "test"]},
    labels={"whole": "whole tumour, ml"},
    title="Tumour volume by split",
)

# %% [markdown]
# Folds divide the train and val patients anew, each into its own pair; gate and test stay outside.
# A space with `folds: all` trains each trial on every fold ([folds](../docs/search.md#folds)).

# %%
pd.DataFrame(
    {"fold": number, "train": len(fold.train), "val": ", ".join(fold.val)}
    for number, fold in enumerate(manifest.folds)
).set_index("fold")

# %% [markdown]
# ## Odd cases
#
# The smallest and the largest tumour, and those without enhancement. On a tiny region Dice is
# harsh: a few voxels decide. Look at these first when scores of single patients are low.

# %%
by_size = cases.sort_values("whole").round(1)
odd = {
    by_size["case"].iloc[0]: "smallest tumour",
    by_size["case"].iloc[-1]: "largest tumour",
}
for case in by_size.loc[by_size["enhancing"] == 0, "case"]:
    odd[case] = "nothing enhances"
shown = by_size[by_size["case"].isin(odd)]
shown.assign(why=shown["case"].map(odd)).set_index("case")

# %% [markdown]
# ## And then
#
# `api.tune("own-store", "learning_rates", name="rates")` asks the first question of any new data.
# It is a search for a GPU and hours; [a first sweep](first_sweep.py) has one for minutes.
