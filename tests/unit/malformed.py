"""Small BRATS cases made of arrays, and one way of breaking them for each kind of fault."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from segan_ray.brats import MODALITIES
from segan_ray.data.layouts.cases import layout_named

SHAPE = (24, 28, 20)
AFFINE = np.diag([-2.0, -2.0, 3.0, 1.0])
GRID = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in SHAPE), indexing="ij"))
HEAD = np.linalg.norm(GRID, axis=0) < 0.95
BRAIN = np.linalg.norm(GRID, axis=0) < 0.75


def scans(seed: int) -> np.ndarray:
    """Return four skull-stripped scans of noise, int16 (4, 24, 28, 20), 0 outside the brain."""
    voxels = np.random.default_rng(seed).integers(1, 1000, (4, *SHAPE), dtype=np.int16)
    return voxels * BRAIN


def truth() -> np.ndarray:
    """Return shells of edema (2), enhancing tumour (4) and necrosis (1)."""
    distance = np.linalg.norm(GRID - 0.2, axis=0)
    label = np.zeros(SHAPE, dtype=np.uint8)
    for radius, value in ((0.45, 2), (0.3, 4), (0.15, 1)):
        label[distance < radius] = value
    return label


def save(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    nib.save(nib.Nifti1Image(voxels, affine), path)


@dataclass(frozen=True)
class Files:
    """The folder of one case on disk, and the names of the files in it."""

    folder: Path
    layout: str

    def __getitem__(self, what: str) -> Path:
        layout = layout_named(self.layout)
        suffix = layout.label_suffix if what == "seg" else layout.suffixes[what]
        return self.folder / f"{self.folder.name}{layout.separator}{suffix}.nii.gz"

    def change(self, what: str, edit: Callable[[np.ndarray], np.ndarray]) -> None:
        image = nib.load(self[what])
        edited = edit(np.asarray(image.dataobj).astype(np.float32))
        save(self[what], edited.astype(np.float32), image.affine)


def write_case(parent: Path, name: str, seed: int, layout: str = "brats2021") -> Files:
    """Write a good case; label 4 becomes 3 where the layout's code says so."""
    files = Files(parent / name, layout)
    files.folder.mkdir(parents=True)
    for modality, voxels in zip(MODALITIES, scans(seed), strict=True):
        save(files[modality], voxels)
    enhancing = min(layout_named(layout).code.enhancing)
    save(files["seg"], np.where(truth() == 4, enhancing, truth()).astype(np.uint8))
    return files


# ------------------------------------------------------------------------------ ways to break


def _poison(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def edit(voxels: np.ndarray) -> np.ndarray:
        voxels[12, 14, 10] = value
        return voxels

    return edit


def _missing(files: Files) -> None:
    files["t1"].unlink()


def _doubled(files: Files) -> None:
    files["t2"].with_suffix("").write_bytes(gzip.decompress(files["t2"].read_bytes()))


def _truncated(files: Files) -> None:
    files["flair"].write_bytes(files["flair"].read_bytes()[:5000])


def _truncated_plain(files: Files) -> None:
    files["flair"].with_suffix("").write_bytes(gzip.decompress(files["flair"].read_bytes())[:-99])
    files["flair"].unlink()


def _empty(files: Files) -> None:
    files["flair"].write_bytes(b"")


def _no_gzip(files: Files) -> None:
    files["t1ce"].write_bytes(b"this is no image" * 100)


def _no_image(files: Files) -> None:
    files["t1ce"].write_bytes(gzip.compress(b"this is no image" * 100))


def _damaged(files: Files) -> None:
    content = bytearray(files["t1"].read_bytes())
    content[len(content) // 2] ^= 0xFF
    files["t1"].write_bytes(bytes(content))


def _shape(files: Files) -> None:
    files.change("flair", lambda voxels: voxels[:, :, :-1])


def _truth_shape(files: Files) -> None:
    files.change("seg", lambda voxels: voxels[:-1])


def _affine(files: Files) -> None:
    save(files["t2"], np.asarray(nib.load(files["t2"]).dataobj), AFFINE + np.eye(4, k=3) * 5)


def _truth_affine(files: Files) -> None:
    save(files["seg"], np.asarray(nib.load(files["seg"]).dataobj), AFFINE + np.eye(4, k=3) * 5)


def _unstripped(files: Files) -> None:
    files.change("t1ce", lambda voxels: np.where(HEAD & ~BRAIN, 77, voxels))


def _resampled(files: Files) -> None:
    files.change("seg", lambda voxels: 0.75 * voxels + 0.25 * np.roll(voxels, 1, axis=0))


def _copied(files: Files) -> None:
    shutil.copyfile(files["t1"], files["t1ce"])


def _content(what: str, content: bytes) -> Callable[[Files], None]:
    return lambda files: files[what].write_bytes(content)


def _scaled(slope: float) -> Callable[[Files], None]:
    """Store the truth as it is, and a header that multiplies it."""

    def damage(files: Files) -> None:
        image = nib.Nifti1Image(truth(), AFFINE)
        content = bytearray(image.to_bytes())
        header = nib.Nifti1Header(bytes(content[:348]))
        header["scl_slope"], header["scl_inter"] = slope, 0
        content[:348] = header.binaryblock
        files["seg"].write_bytes(gzip.compress(bytes(content)))

    return damage


def label(edit: Callable[[np.ndarray], np.ndarray]) -> Callable[[Files], None]:
    return lambda files: files.change("seg", edit)


def scan(what: str, edit: Callable[[np.ndarray], np.ndarray]) -> Callable[[Files], None]:
    return lambda files: files.change(what, edit)


@dataclass(frozen=True)
class Malformed:
    """One way to break a case, words of its report, and whether ``prepare`` refuses it."""

    damage: Callable[[Files], None]
    words: tuple[str, ...]
    refused: bool = True
    layout: str = "brats2021"


MALFORMED: dict[str, Malformed] = {
    "missing": Malformed(_missing, ("the t1 volume is missing", "expected {case}_t1.nii.gz")),
    "doubled": Malformed(_doubled, ("{case}_t2.nii and {case}_t2.nii.gz both exist", "keep one")),
    "truncated": Malformed(_truncated, ("flair.nii.gz: ", "truncated", "Copy it again")),
    "truncated plain": Malformed(_truncated_plain, ("flair.nii: is truncated", "Copy it again")),
    "empty file": Malformed(_empty, ("flair.nii.gz: the file is empty", "Copy it again")),
    "no gzip": Malformed(_no_gzip, ("t1ce.nii.gz: is not a NIfTI image", "Copy it again")),
    "no image": Malformed(_no_image, ("t1ce.nii.gz: is not a NIfTI image", "Copy it again")),
    "lfs pointer": Malformed(
        _content("flair", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        ("flair.nii.gz: is not a NIfTI image but a Git LFS pointer", "git lfs pull"),
    ),
    "annex pointer": Malformed(
        _content("seg", b"/annex/objects/MD5E-s9--0.nii.gz\n"),
        ("seg.nii.gz: is not a NIfTI image but a git-annex pointer", "git annex get"),
    ),
    "dicom": Malformed(
        _content("t1", bytes(128) + b"DICM" + bytes(99)),
        ("t1.nii.gz: is not a NIfTI image but a DICOM file", "dcm2niix"),
    ),
    "web page": Malformed(
        _content("t1ce", b"<html><body>403</body></html>"),
        ("t1ce.nii.gz: is not a NIfTI image but a web page", "Download the volume again"),
    ),
    "damaged": Malformed(_damaged, ("t1.nii.gz: is truncated or damaged", "Copy it again")),
    "nan": Malformed(
        scan("flair", _poison(np.nan)),
        ("flair.nii.gz: holds NaN or infinite voxels (1 of 13,440 voxels)", "Re-export"),
    ),
    "infinite": Malformed(
        scan("t1", _poison(np.inf)), ("t1.nii.gz: holds NaN or infinite voxels", "Re-export")
    ),
    "constant": Malformed(
        scan("t2", lambda voxels: voxels * 0), ("t2.nii.gz: every voxel is 0; expected a scan",)
    ),
    "shape": Malformed(
        _shape, ("24×28×20 voxels", "{case}_flair.nii.gz (flair) 24×28×19", "share one grid")
    ),
    "truth shape": Malformed(_truth_shape, ("seg.nii.gz (segmentation) 23×28×20", "one grid")),
    "affine": Malformed(
        _affine,
        ("{case}_t2.nii.gz (t2) lie differently in space (origins (0, 0, 0) and (5, 0, 0) mm",),
    ),
    "truth affine": Malformed(
        _truth_affine,
        ("(segmentation) lie differently in space (origins (0, 0, 0) and (5, 0, 0) mm",),
    ),
    "unknown label": Malformed(
        label(lambda voxels: np.where(voxels == 1, 7, voxels)),
        ("seg.nii.gz: holds label 7; this layout knows 0, 1 necrotic", "4 enhancing"),
    ),
    "3 for 4": Malformed(
        label(lambda voxels: np.where(voxels == 4, 3, voxels)),
        (
            "holds label 3;",
            "3 without any 4",
            "where 1 is core and 2 edema (then write 4 for 3)",
            "Here 2 lies outside, as BRATS itself has it.",
        ),
    ),
    "nnU-Net's code": Malformed(
        label(lambda voxels: np.choose(voxels.astype(int), [0, 2, 1, 0, 3])),
        (
            "holds label 3;",
            "where 1 is edema and 2 core (then write 2 for 1, 1 for 2, 4 for 3)",
            "Here 1 lies outside, as nnU-Net and the Decathlon have it.",
        ),
    ),
    "3 beside 4": Malformed(
        label(lambda voxels: np.where(voxels == 1, 3, voxels)),
        ("holds label 3;", "3 beside 4 is non-enhancing tumour until 2015: write 1"),
    ),
    "4 for 3": Malformed(
        label(lambda voxels: np.where(voxels == 3, 4, voxels)),
        ("holds label 4;", "4 without any 3", "--layout brats2024", "write 3 in its place"),
        layout="brats2023",
    ),
    "4 beside 3": Malformed(
        label(lambda voxels: np.where(voxels == 1, 4, voxels)),
        ("holds label 4;", "4 beside 3 is the resection cavity", "--layout brats2024"),
        layout="brats2023",
    ),
    "nan label": Malformed(
        label(_poison(np.nan)), ("seg.nii.gz: holds NaN or infinite labels", "whole numbers")
    ),
    "resampled": Malformed(
        _resampled, ("labels that are no whole numbers (0.5, 1.5", "nearest neighbour")
    ),
    "scaled by half": Malformed(
        _scaled(0.5),
        ("no whole numbers (0.5;", "Its header multiplies what is stored by 0.5 and adds 0: if"),
    ),
    "scaled by two": Malformed(
        _scaled(2),
        ("holds label 8; this layout knows", "multiplies what is stored by 2 and adds 0: if"),
    ),
    "empty truth": Malformed(
        label(lambda voxels: voxels * 0),
        ("seg.nii.gz: holds no voxel of any region; expected a tumour",),
        refused=False,
    ),
    "unstripped": Malformed(
        _unstripped,
        ("t1ce.nii.gz: has 2.", "times the non-zero voxels of the other", "Strip the skull"),
        refused=False,
    ),
    "copied": Malformed(
        _copied,
        ("t1.nii.gz: holds voxel for voxel the t1ce volume of this case", "copied over"),
        refused=False,
    ),
}
