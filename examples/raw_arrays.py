# %% [markdown]
# # A trained model on raw arrays
#
# The champion on scans that you have as arrays: from nibabel, a server or another tool, without a
# BRATS folder and without a store.
#
# This goes on from [a first sweep](first_sweep.py): it needs the `champion` promoted there, and
# takes a case from the folder `data`. It runs in less than a minute. **That model was trained for
# minutes on a few phantoms; it shows how to call a model, and is of no other use.**

# %% tags=["parameters"]
MODEL = "champion"  # an alias, "models:/segan/3", a run of `train`, a checkpoint
CASE = None  # a case of `data`; None takes the test patient whose tumour is largest

# %% [markdown]
# ## One case as an array
#
# A model wants raw intensities as files hold them, `(modality, x, y, z)`, the modalities in the
# order t1, t1ce, t2, flair, and a constant outside the brain. Cropping and normalising are part of
# the model.

# %%
from pathlib import Path

import nibabel
import numpy as np

from segan_ray import api
from segan_ray.brats import MODALITIES
from segan_ray.data.store.opened_store import read_manifest

manifest = read_manifest(Path("store"))
tested = [case for case in manifest.cases if case.patient in manifest.splits["test"]]
name = CASE or max(tested, key=lambda case: case.region_voxels["whole"]).case

scans = {
    kind: nibabel.load(f"data/{name}/{name}_{kind}.nii.gz")
    for kind in (*MODALITIES, "seg")
}
image = np.stack([scans[kind].get_fdata(dtype=np.float32) for kind in MODALITIES])
truth = np.asarray(scans["seg"].dataobj).astype(np.uint8)
spacing_mm = [float(size) for size in scans["flair"].header.get_zooms()[:3]]
print(name, image.shape, image.dtype, "voxels of", spacing_mm, "mm")

# %% [markdown]
# The axes must run to the left, back and head ("LPS"), as BRATS files do. An array says nothing of
# its axes, so check before; others are turned with nibabel's `orientations`.

# %%
axes = nibabel.aff2axcodes(scans["flair"].affine)
assert axes == ("L", "P", "S"), axes
axes

# %% [markdown]
# ## Labels and probabilities
#
# `load_model` fetches the model with its preparation and thresholds. `predict_arrays` takes one
# case, an array of cases, or an object array of cases whose grids differ. Give the spacing; without
# it voxels count as cubes of 1 mm.

# %%
from segan_ray.evaluation.inference.raw_cases import predict_arrays

champion = api.load_model(MODEL)
labels = predict_arrays(champion, image, spacing_mm=spacing_mm)
probabilities = predict_arrays(
    champion, image, output="probabilities", spacing_mm=spacing_mm
)
print("labels", labels.shape, labels.dtype, "values", np.unique(labels))
print("probabilities", probabilities.shape, probabilities.dtype)

# %% [markdown]
# Labels are in the code of the layout that the model was trained on: in BraTS 2021, 1 is core that
# does not enhance, 2 edema, 4 enhancing tumour. The three regions lie within each other.

# %%
import pandas as pd


def regions(label_map):
    """Return the voxels of each region in the code of BraTS 2021."""
    return {
        "whole": label_map > 0,
        "core": np.isin(label_map, (1, 4)),
        "enhancing": label_map == 4,
    }


def dice(one, other):
    """Return the overlap of two regions, which is 1 if both are empty."""
    voxels = one.sum() + other.sum()
    return 2 * (one & other).sum() / voxels if voxels else 1.0


true, found = regions(truth), regions(labels)
voxel_ml = np.prod(spacing_mm) / 1000
pd.DataFrame(
    {
        "true ml": {region: true[region].sum() * voxel_ml for region in true},
        "predicted ml": {region: found[region].sum() * voxel_ml for region in true},
        "Dice": {region: dice(true[region], found[region]) for region in true},
    }
).rename_axis("region").round(3)

# %% [markdown]
# ## An overlay
#
# Drawn with Pillow: the slice with most tumour, the true regions on the left, the predicted on the
# right: edema orange, core blue, enhancing tumour pink. x runs to the right of the picture and y
# down, so the patient's left is on the right, as radiologists look at it.

# %% picture="FLAIR of one slice, with the true regions on the left and the predicted on the right"
from PIL import Image

COLOURS = {
    "whole": (230, 159, 0),
    "core": (86, 180, 233),
    "enhancing": (204, 121, 167),
}
SCALE = 7  # pixels a voxel; 2 for scans of 1 mm

at = int(true["whole"].sum(axis=(0, 1)).argmax())
flair = image[MODALITIES.index("flair"), :, :, at]
brightest = np.percentile(flair[flair > 0], 99)
grey = np.stack([255 * np.clip(flair / brightest, 0, 1)] * 3, axis=-1)


def coloured(areas):
    """Return the slice with its regions shaded, each over those that hold it."""
    picture = grey.copy()
    for region, colour in COLOURS.items():
        inside = areas[region][:, :, at]
        picture[inside] = 0.6 * grey[inside] + 0.4 * np.array(colour)
    return picture.transpose(1, 0, 2).astype(np.uint8)


both = np.concatenate([coloured(true), coloured(found)], axis=1)
height, width = both.shape[:2]
Image.fromarray(both).resize(
    (width * SCALE, height * SCALE), Image.Resampling.NEAREST
)

# %% [markdown]
# ## How sure it is
#
# Probabilities of whole tumour in the same slice. A threshold, fitted on the validation patients,
# makes labels of them.

# %%
import plotly.express as px

px.imshow(
    probabilities[0, :, :, at].T,
    zmin=0,
    zmax=1,
    color_continuous_scale="Viridis",
    labels={"x": "x, voxels", "y": "y, voxels", "color": "probability"},
    title=f"Probability of whole tumour, slice {at}",
)

# %% [markdown]
# ## Anywhere MLflow runs
#
# A promoted version is one of MLflow's models, whole with its code. A machine that serves it needs
# MLflow and the packages that the version lists. Records are in the home's own database here; on a
# server `MLFLOW_TRACKING_URI` names them.

# %%
import mlflow

from segan_ray.home import Home

mlflow.set_tracking_uri(Home.at(None).tracking_uri)
served = mlflow.pyfunc.load_model("models:/segan@champion")
again = served.predict(image[None], params={"spacing_mm": spacing_mm})
print(again.shape, "the same labels:", bool((again[0] == labels).all()))

# %% [markdown]
# To write label maps for whole folders, on each scan's own grid, `api.predict("champion", "data",
# "labels")` is shorter. `segan-ray export champion out --format onnx` writes the network alone.
