"""Label maps and probabilities on the grid of their scans, of all axes and formats."""

from __future__ import annotations

import gzip
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from nibabel.orientations import aff2axcodes, axcodes2ornt, inv_ornt_aff, ornt_transform

from segan_ray.brats import CODE_2017_TO_2021, MODALITIES
from segan_ray.data.io import metaimage
from segan_ray.data.io.label_maps import (
    Output,
    outputs,
    read_label,
    refuse_collisions,
    write_label,
    write_probabilities,
)
from segan_ray.data.io.volumes import as_stored, read_array, read_volume
from segan_ray.data.layouts.cases import Case, discover, discover_input, layout_named
from segan_ray.data.phantom.dataset import write_phantoms
from segan_ray.data.phantom.write_layouts import PHANTOM_LAYOUTS
from segan_ray.errors import DataError, NoCasesError

SHAPE = (5, 7, 4)
ORIENTATIONS = [
    "".join(axes)
    for order in permutations(("RL", "AP", "SI"))
    for axes in product(*order)
]  # fmt: skip
NAMES = {
    "brats2013": "VSD.Seg_HG_0001.54515.mha",
    "brats2015": "VSD.Seg_brats_tcia_pat101_0001.54515.mha",
    "brats2017": "Brats17_TCIA_001_1.nii.gz",
    "brats2020": "BraTS20_Training_001.nii.gz",
    "brats2021": "BraTS2021_00000.nii.gz",
    "brats2023": "BraTS-GLI-00000-000.nii.gz",
    "brats2024": "BraTS-GLI-00000-100.nii.gz",
    "msd": "BRATS_001.nii.gz",
}


def affine_of(axes: str, *, oblique: bool = False) -> np.ndarray:
    """Return an affine of voxels of 0.5 x 1.25 x 3 mm whose axes run to ``axes``."""
    ras = np.diag([0.5, 1.25, 3.0, 1.0])
    ras[:3, 3] = (-31.25, 17.5, -8.0)
    if oblique:
        a, b = 0.3, -0.2
        turn_z = [[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]
        turn_x = [[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]]
        ras[:3, :3] = np.array(turn_z) @ np.array(turn_x) @ ras[:3, :3]
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axes))
    return ras @ inv_ornt_aff(turn, SHAPE)


def nifti_case(
    folder: Path, affine: np.ndarray, *, stacked: bool = False, **header: object
) -> tuple[Case, nib.Nifti1Image]:
    """Write one scan as every modality of a case; its voxels are all different."""
    voxels = np.arange(1, 1 + np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    data = np.stack([voxels] * 4, axis=-1) if stacked else voxels
    image = nib.Nifti1Image(data, affine)
    image.set_qform(affine, code=int(header.pop("qform", 1)))
    image.set_sform(affine, code=int(header.pop("sform", 1)))
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_slope_inter(2.0, 1.0)
    for name, value in header.items():
        image.header[name] = value
    path = folder / "here_t1.nii.gz"
    nib.save(image, path)
    channels = {name: index for index, name in enumerate(MODALITIES)} if stacked else {}
    case = Case("here", "here", None, dict.fromkeys(MODALITIES, path), None, channels=channels)
    return case, nib.load(path)


def label_of(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return a label map along the common axes, and the same map along the case's own axes."""
    scan, _ = read_array(case, case.images["t1"], channels=len(case.channels))
    scan = scan[..., 0] if case.channels else scan
    stored = np.asarray(nib.load(case.images["t1"]).dataobj).astype(int)
    stored = stored[..., 0] if case.channels else stored
    return (scan.astype(int) % 5).astype(np.uint8), (stored % 5).astype(np.uint8)


def geometry(image: sitk.Image) -> tuple[list[float], list[float], list[float], list[int]]:
    axes = image.GetDimension()
    direction = np.reshape(image.GetDirection(), (axes, axes))[:3, :3].ravel().tolist()
    return (
        list(image.GetSpacing()[:3]), list(image.GetOrigin()[:3]), direction,
        list(image.GetSize()[:3]),
    )  # fmt: skip


@given(st.sampled_from(ORIENTATIONS), st.booleans(), st.integers(0, 2))
def test_as_stored_undoes_the_turn_of_reading(axes: str, oblique: bool, channels: int) -> None:
    from segan_ray.data.io.volumes import BRATS_AXES, apply_orientation, io_orientation

    affine = affine_of(axes, oblique=oblique)
    assert "".join(aff2axcodes(affine)) == axes
    voxels = np.arange(np.prod(SHAPE) * (channels or 1)).reshape(*SHAPE, *[channels][:channels])
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(BRATS_AXES))
    np.testing.assert_array_equal(as_stored(apply_orientation(voxels, turn), affine), voxels)


@pytest.mark.parametrize("stacked", [False, True], ids=["3-D", "4-D"])
@pytest.mark.parametrize("oblique", [False, True], ids=["straight", "oblique"])
@pytest.mark.parametrize("axes", ["RAS", "LAS", "LPS", "PIR", "SAL", "ILA"])
def test_a_label_map_has_the_grid_of_its_scan(
    tmp_path: Path, axes: str, oblique: bool, stacked: bool
) -> None:
    case, scan = nifti_case(tmp_path, affine_of(axes, oblique=oblique), stacked=stacked)
    common, stored = label_of(case)
    out = tmp_path / "label.nii.gz"
    write_label(out, common, case)

    written = nib.load(out)
    np.testing.assert_array_equal(np.asarray(written.dataobj), stored)
    assert written.get_data_dtype() == np.uint8
    assert written.affine.tobytes() == scan.affine.tobytes()
    for form in ("get_qform", "get_sform"):
        actual, expected = getattr(written, form)(coded=True), getattr(scan, form)(coded=True)
        assert actual[1] == expected[1]
        np.testing.assert_array_equal(actual[0], expected[0])
    assert written.header.get_zooms() == scan.header.get_zooms()[:3]
    assert written.header.get_xyzt_units() == scan.header.get_xyzt_units()

    by_itk, scan_by_itk = sitk.ReadImage(str(out)), sitk.ReadImage(str(case.images["t1"]))
    assert geometry(by_itk) == geometry(scan_by_itk)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(by_itk).T, stored)


@pytest.mark.parametrize(("qform", "sform"), [(0, 0), (1, 0), (0, 2), (4, 1), (2, 3)])
def test_codes_stay_and_fields_on_intensities_are_cleared(
    tmp_path: Path, qform: int, sform: int
) -> None:
    more = {"intent_code": 1001, "cal_max": 900.0, "descrip": b"a name"}
    case, scan = nifti_case(tmp_path, affine_of("RAS"), qform=qform, sform=sform, **more)
    write_label(tmp_path / "label.nii.gz", label_of(case)[0], case)
    written = nib.load(tmp_path / "label.nii.gz")
    with gzip.open(tmp_path / "label.nii.gz") as stream:
        raw = nib.Nifti1Header.from_fileobj(stream)
    assert (int(raw["qform_code"]), int(raw["sform_code"])) == (qform, sform)
    np.testing.assert_array_equal(written.affine, scan.affine)
    assert written.header.get_intent()[0] == "none"
    assert (float(raw["scl_slope"]), float(raw["scl_inter"]), float(raw["cal_max"])) == (1, 0, 0)
    assert bytes(raw["descrip"].item()) == b"segan-ray: label map"


def test_nifti_2_and_extensions(tmp_path: Path) -> None:
    voxels = np.arange(1, 1 + np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    image = nib.Nifti2Image(voxels, affine_of("PIR"))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"whose it is"))
    path = tmp_path / "here_t1.nii"
    nib.save(image, path)
    case = Case("here", "here", None, dict.fromkeys(MODALITIES, path), None)
    write_label(tmp_path / "label.nii.gz", label_of(case)[0], case)
    written = nib.load(tmp_path / "label.nii.gz")
    assert isinstance(written, nib.Nifti2Image)
    assert len(written.header.extensions) == 0
    np.testing.assert_array_equal(np.asarray(written.dataobj), voxels % 5)
    np.testing.assert_array_equal(written.affine, image.affine)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR"])
def test_probabilities_have_the_grid_of_their_scan_and_name_their_regions(
    tmp_path: Path, axes: str
) -> None:
    case, scan = nifti_case(tmp_path, affine_of(axes, oblique=True))
    common = read_array(case, case.images["t1"])[0]
    maps = np.stack([common / 1000, common / 2000, common / 4000]).astype(np.float32)
    out = tmp_path / "maps.nii.gz"
    write_probabilities(out, maps, case)
    written = nib.load(out)
    stored = np.asarray(scan.dataobj)
    assert written.shape == (*SHAPE, 3)
    assert written.get_data_dtype() == np.float32
    for index, divisor in enumerate((1000, 2000, 4000)):
        actual = np.asarray(written.dataobj)[..., index]
        np.testing.assert_array_equal(actual, (stored / divisor).astype(np.float32))
    assert bytes(written.header["descrip"].item()) == b"segan-ray: whole, core, enhancing"
    np.testing.assert_array_equal(written.affine, scan.affine)
    assert geometry(sitk.ReadImage(str(out))) == geometry(sitk.ReadImage(str(case.images["t1"])))


@pytest.mark.parametrize("step", [0.0, np.nan, -2.0, np.inf, 1500.0])
def test_the_axis_of_maps_has_steps_of_1_for_every_scan(tmp_path: Path, step: float) -> None:
    pixdim = np.array([1, 0.5, 1.25, 3, step, step, step, step], dtype=np.float32)
    timing = {"toffset": 3.0, "slice_end": 3, "slice_duration": 0.1, "slice_code": 1}
    case, _ = nifti_case(tmp_path, affine_of("RAS"), pixdim=pixdim, **timing)
    common = read_array(case, case.images["t1"])[0]
    write_probabilities(tmp_path / "maps.nii.gz", np.stack([common / 1000] * 3), case)
    write_label(tmp_path / "label.nii.gz", label_of(case)[0], case)
    for name in ("maps", "label"):
        with gzip.open(tmp_path / f"{name}.nii.gz") as stream:
            raw = nib.Nifti1Header.from_fileobj(stream, check=False)
        assert nib.Nifti1Header.diagnose_binaryblock(raw.binaryblock) == ""
        assert (np.isfinite(raw["pixdim"]) & (raw["pixdim"] > 0)).all()
        assert all(raw[field] == 0 for field in timing)
    maps = nib.load(tmp_path / "maps.nii.gz")
    assert maps.header.get_zooms() == (0.5, 1.25, 3, 1)
    assert maps.header.get_xyzt_units() == ("mm", "unknown")
    assert sitk.ReadImage(str(tmp_path / "maps.nii.gz")).GetSpacing()[3] == 1


def test_no_file_is_written_twice_or_over_another(tmp_path: Path) -> None:
    def target(label: str, maps: str) -> Output:
        return Output(tmp_path / label, tmp_path / maps)

    one = target("a_probabilities.nii.gz", "a_probabilities.nii.gz")
    refuse_collisions([one], probabilities=False)
    with pytest.raises(DataError, match=r"a_probabilities.nii.gz twice would be written"):
        refuse_collisions([one], probabilities=True, overwrite=True)
    two = [target("a.nii.gz", "a_p.nii.gz"), target("A.nii.gz", "A_q.nii.gz")]
    with pytest.raises(DataError, match=r"a.nii.gz and .*A.nii.gz would be written"):
        refuse_collisions(two, probabilities=False, overwrite=True)


def test_existing_targets_are_refused(tmp_path: Path) -> None:
    target = Output(tmp_path / "a.nii.gz", tmp_path / "a_probabilities.nii.gz")
    refuse_collisions([target], probabilities=True)
    target.probabilities.symlink_to("nowhere")
    refuse_collisions([target], probabilities=False)
    with pytest.raises(DataError, match=r"exists \(1 of 2 files to write do\)\."):
        refuse_collisions([target], probabilities=True)
    refuse_collisions([target], probabilities=True, overwrite=True)
    target.label.mkdir()
    with pytest.raises(DataError, match="is a folder"):
        refuse_collisions([target], probabilities=False, overwrite=True)


@pytest.mark.parametrize("axes", ["LPS", "RAS", "PIR"])
@pytest.mark.parametrize("oblique", [False, True], ids=["straight", "oblique"])
def test_a_label_map_of_a_metaimage_has_its_geometry(
    tmp_path: Path, axes: str, oblique: bool
) -> None:
    voxels = np.arange(1, 1 + np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    path = tmp_path / "VSD.Brain.XX.O.MR_Flair.54512.mha"
    metaimage.write_image(path, voxels, affine_of(axes, oblique=oblique))
    case = Case("here", "here", None, dict.fromkeys(MODALITIES, path), None)
    common = read_array(case, path)[0]
    out = tmp_path / "VSD.Seg_here.54512.mha"
    write_label(out, (common % 5).astype(np.uint8), case)
    written = sitk.ReadImage(str(out))
    assert geometry(written) == geometry(sitk.ReadImage(str(path)))
    assert written.GetPixelID() == sitk.sitkUInt8
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written).T, voxels % 5)

    write_probabilities(tmp_path / "maps.nii.gz", np.stack([common] * 3), case)
    maps = nib.load(tmp_path / "maps.nii.gz")
    np.testing.assert_array_equal(np.asarray(maps.dataobj)[..., 1], voxels)
    np.testing.assert_allclose(maps.affine, metaimage.read_header(path).affine, atol=1e-5)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phantoms of every layout, in folders named after it."""
    root = tmp_path_factory.mktemp("layouts")
    for name in PHANTOM_LAYOUTS:
        write_phantoms(root / name, cases=2, layout=name, spacing_mm=8.0, seed=1)
    return root


@pytest.mark.parametrize("name", PHANTOM_LAYOUTS)
def test_a_truth_written_as_a_label_map_is_the_truth(
    everything: Path, tmp_path: Path, name: str
) -> None:
    discovery = discover(everything / name, name)
    targets = outputs(discovery, tmp_path)
    for case, target in zip(discovery.cases, targets, strict=True):
        volume = read_volume(case, discovery.layout.code)
        write_label(target.label, volume.label, case)
        truth = sitk.ReadImage(str(case.label))
        written = sitk.ReadImage(str(target.label))
        assert geometry(written) == geometry(truth)
        np.testing.assert_array_equal(
            sitk.GetArrayFromImage(written), sitk.GetArrayFromImage(truth)
        )
    if name in NAMES:
        assert targets[0].label.name == NAMES[name]
    assert len({target.label for target in targets}) == len(targets)


def test_equal_labels_are_equal_bytes(tmp_path: Path) -> None:
    case, _ = nifti_case(tmp_path, affine_of("RAS"))
    for name in ("a", "b"):
        write_label(tmp_path / f"{name}.nii.gz", label_of(case)[0], case)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize(
    ("name", "out"),
    [
        ("brats2021", "BraTS2021_00000"),
        ("brats2021", "BraTS2021_00001/labels"),
        ("brats2015", "HGG/brats_tcia_pat101_0001"),
        ("msd", "imagesTr"),
        ("msd", "labelsTr"),
    ],
)
def test_nothing_is_written_among_the_scans(everything: Path, name: str, out: str) -> None:
    discovery = discover(everything / name)
    with pytest.raises(DataError, match=r"which is input\. Write into another folder"):
        outputs(discovery, everything / name / out)


def test_label_maps_may_lie_beside_the_cases(everything: Path) -> None:
    discovery = discover(everything / "brats2021")
    assert outputs(discovery, everything / "brats2021")[0].label.parent == everything / "brats2021"


def test_one_case_may_go_to_a_file_of_its_format(everything: Path, tmp_path: Path) -> None:
    one = discover(everything / "brats2021" / "BraTS2021_00000")
    (target,) = outputs(one, tmp_path / "mine.nii.gz")
    assert target.label == tmp_path / "mine.nii.gz"
    assert target.probabilities == tmp_path / "BraTS2021_00000_probabilities.nii.gz"
    with pytest.raises(DataError, match=r"a name that ends in .nii.gz"):
        outputs(one, tmp_path / "mine.mha")
    with pytest.raises(DataError, match=r"is one file, .* holds 2 cases"):
        outputs(discover(everything / "brats2021"), tmp_path / "mine.nii.gz")


def test_a_file_is_the_case_it_is_part_of(everything: Path) -> None:
    discovery = discover_input(everything / "msd" / "imagesTr" / "BRATS_002.nii.gz")
    assert (discovery.layout, [case.case for case in discovery.cases]) == (
        layout_named("msd"), ["BRATS_002"],
    )  # fmt: skip
    case = everything / "brats2021" / "BraTS2021_00001"
    discovery = discover_input(case / "BraTS2021_00001_flair.nii.gz")
    assert [scan.case for scan in discovery.cases] == ["BraTS2021_00001"]
    with pytest.raises(NoCasesError, match="is no scan of a BRATS case"):
        discover_input(case / "BraTS2021_00001_seg.nii.gz")
    with pytest.raises(NoCasesError):
        discover_input(everything / "msd" / "dataset.json")


@pytest.mark.parametrize("oblique", [False, True], ids=["straight", "oblique"])
@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_a_label_map_is_read_as_it_was_written(tmp_path: Path, axes: str, oblique: bool) -> None:
    case, _ = nifti_case(tmp_path, affine_of(axes, oblique=oblique))
    turned, _ = read_array(case, case.images["t1"])
    label = np.random.default_rng(0).choice([0, 1, 2, 4], turned.shape).astype(np.uint8)
    write_label(tmp_path / "map.nii.gz", label, case)
    read = read_label(tmp_path / "map.nii.gz", case, CODE_2017_TO_2021)
    np.testing.assert_array_equal(read, label)
