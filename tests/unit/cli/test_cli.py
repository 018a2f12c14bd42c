"""The command line as users and scripts meet it: real processes, exit codes, streams."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from PIL import Image

from segan_ray.api import sweeps as sweeps_api
from segan_ray.cli.demo import SMALL, UNET, USUAL, commands
from segan_ray.cli.main import main
from segan_ray.config import load_experiment
from segan_ray.errors import Interrupted
from segan_ray.home import Home
from segan_ray.search.space.space_file import load_space, resolve_space
from segan_ray.tracking.reading import sweeps
from tests.unit.command_line import refused, segan, segan_process
from tests.unit.orchestration.test_end_sweep import killed

COMMANDS = (
    "demo", "doctor",
    "phantom", "inspect", "view", "prepare", "train", "tune", "compare", "sweeps", "trials", "stop",
    "enqueue", "set", "delete", "promote", "rollback", "evaluate", "predict", "export", "report",
    "ui", "submit",
)  # fmt: skip
SPACE = {
    "name": "test",
    "parameters": {"segmentor.lr": {"type": "float", "low": 1e-5, "high": 1e-2}},
}


def test_help_lists_every_command_and_no_stub(tmp_path: Path) -> None:
    result = segan_process("--help", cwd=tmp_path)
    assert result.returncode == 0
    listed = re.findall(r"^  ([a-z]+) {2,}\S", result.stdout.split("Commands:")[1], re.MULTILINE)
    assert set(COMMANDS) == set(listed)
    assert "..." not in result.stdout.split("Commands:")[1]  # no summary is cut off


def test_alone_it_says_how_to_begin(tmp_path: Path) -> None:
    result = segan(cwd=tmp_path)
    assert result.returncode == 0
    named = re.findall(r"^  segan-ray (\w+)", result.stdout, re.MULTILINE)
    assert named == ["demo", "inspect", "doctor"]


def test_the_small_demo_is_what_a_user_would_type(tmp_path: Path) -> None:
    listed = [*commands(tmp_path, "now", SMALL)]
    assert [command[0] for command in listed] == [
        "phantom", "inspect", "prepare", "train", "tune", "trials", "promote", "promote",
        "evaluate", "report",
    ]  # fmt: skip
    # U-Net trains as long as a trial of the space, on as many slices.
    for size in (USUAL, SMALL):
        space = load_space(resolve_space(size.space)).base_experiment().training
        unet = load_experiment(None, [*UNET, *size.unet]).training
        for name in ("epochs", "steps_per_epoch", "batch_size", "crop"):
            assert getattr(unet, name) == getattr(space, name)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(tmp_path: Path, command: str) -> None:
    result = segan(command, "--help", cwd=tmp_path)
    assert result.returncode == 0
    assert f"Example: segan-ray {command}" in result.stdout


@pytest.mark.parametrize("arguments", [["nonsense"], ["prepare"], ["tune", "x", "--nonsense"]])
def test_wrong_syntax_exits_2(tmp_path: Path, arguments: list[str]) -> None:
    result = segan(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert "╭" not in result.stderr


@pytest.mark.slow
def test_phantom_inspect_prepare_as_documents(tmp_path: Path) -> None:
    made = segan("phantom", "data", "--cases", 8, "--spacing", 8, "--json", cwd=tmp_path)
    assert json.loads(made.stdout) == {"out": "data", "layout": "brats2021", "cases": 8}
    seen = json.loads(segan("inspect", "data", "--json", cwd=tmp_path).stdout)
    assert (seen["layout"], seen["ok"], seen["bad"]) == ("brats2021", 8, 0)
    assert set(seen["cases"][0]) == {
        "case", "patient", "ok", "refused", "problems", "warnings", "regions", "shape",
        "spacing_mm", "intensities",
    }  # fmt: skip
    stored = json.loads(segan("prepare", "data", "store", "--json", cwd=tmp_path).stdout)
    assert stored["cases"] == 8
    assert stored["skipped"] == []
    assert sum(map(len, stored["splits"].values())) == 8
    assert list(stored["splits"]) == ["train", "val", "gate", "test"]


def test_inspect_says_what_is_wrong_and_exits_1(folder: Path, tmp_path: Path) -> None:
    bad = sorted(folder.iterdir())[0]
    (bad / f"{bad.name}_t1.nii.gz").unlink()
    result = segan("inspect", folder, "--json", cwd=tmp_path)
    assert result.returncode == 1
    document = json.loads(result.stdout)
    assert document["bad"] == 1
    assert "t1 volume is missing" in document["cases"][0]["problems"][0]
    assert "regions" not in document["cases"][0]


def test_inspect_shows_a_narrow_table_then_problems_and_draws_pictures(
    folder: Path, tmp_path: Path
) -> None:
    bad = sorted(folder.iterdir())[1]
    (bad / f"{bad.name}_t1.nii.gz").write_bytes(b"")
    result = segan("inspect", folder, "--pictures", "sheet.png", "--workers", 1, cwd=tmp_path)
    assert result.returncode == 1
    table, _, after = result.stdout.partition(f"\n{bad.name}: ")
    columns = ["case", "patient", "grade", "shape", "mm", "whole", "core", "enhancing", "intensity"]
    rows = table.splitlines()[-9:]
    assert rows[0].split() == columns
    assert max(map(len, rows)) <= 100
    assert after.startswith(f"{bad}/{bad.name}_t1.nii.gz: the file is empty")
    assert after.splitlines()[1:] == [
        "7 good, 1 bad; prepare refuses 1 of these and takes 0 as they are",
        "Pictures in sheet.png",
    ]
    assert Image.open(tmp_path / "sheet.png").format == "PNG"
    refused(segan("inspect", folder, "--pictures", "sheet.jpg", cwd=tmp_path), "ends in .png")
    refused(segan("inspect", folder, "--pictures", "no/x.png", cwd=tmp_path), "Make it first")


def test_prepare_takes_what_inspect_alone_finds_wrong(folder: Path, tmp_path: Path) -> None:
    first, second = sorted(folder.iterdir())[:2]
    for path in first.iterdir():
        shutil.copyfile(path, second / path.name.replace(first.name, second.name))
    assert segan("inspect", folder, cwd=tmp_path).returncode == 1
    stored = json.loads(segan("prepare", folder, "store", "--json", cwd=tmp_path).stdout)
    assert (stored["cases"], stored["skipped"]) == (8, [])


def test_a_case_and_its_label_map_become_a_page(folder: Path, tmp_path: Path) -> None:
    case = sorted(folder.iterdir())[0]
    truth = case / f"{case.name}_seg.nii.gz"
    shutil.copyfile(truth, tmp_path / "map.nii.gz")
    result = segan("view", case, "map.nii.gz", "--out", "page.html", cwd=tmp_path)
    assert result.stdout.startswith(f"{case.name} with truth and prediction in page.html, ")
    assert "holds the patient's images" in result.stdout.replace("\n", " ")
    truth.unlink()
    scan = case / f"{case.name}_t1.nii.gz"
    document = json.loads(segan("view", scan, "--out", "p.html", "--json", cwd=tmp_path).stdout)
    assert document == {
        "case": case.name, "page": "p.html", "bytes": (tmp_path / "p.html").stat().st_size,
        "maps": [], "warnings": [],
    }  # fmt: skip
    refused(segan("view", folder, "--out", "page.html", cwd=tmp_path), "holds 8 cases")
    refused(segan("view", case, "--out", "page.nii.gz", cwd=tmp_path), "ends in .html")


def test_what_is_not_read_is_said(folder: Path, tmp_path: Path) -> None:
    first, second, third = sorted(folder.iterdir())[:3]
    (first / f"{first.name}_seg.nii.gz").rename(first / f"{first.name}_label.nii.gz")
    (second / f"{second.name}_seg.nii.gz").unlink()
    third.rename(folder / f"{third.name} - Copy")
    document = json.loads(segan("inspect", folder, "--json", cwd=tmp_path).stdout)
    assert (document["ok"], document["bad"]) == (7, 0)
    (warning,) = document["cases"][0]["warnings"]
    assert f"{first.name}_label.nii.gz, which is not read" in warning
    copy, lacking = document["notes"]
    assert f"{third.name} - Copy: not read: holds 5 images" in copy
    assert lacking == "2 of 7 cases have no segmentation."
    for result in (
        segan("inspect", folder, cwd=tmp_path).stdout,
        segan("prepare", folder, "store", cwd=tmp_path).stderr,
    ):
        for words in (f"{first.name}: {warning}", copy, lacking):
            assert f"{words}\n" in result
    stored = json.loads(segan("prepare", folder, "store", "--json", cwd=tmp_path).stdout)
    assert stored["notes"] == [copy, f"{first.name}: {warning}", lacking]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_a_terminal_of_any_encoding_gets_a_table(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    case, *others = sorted(folder.iterdir())
    for other in others:
        shutil.rmtree(other)
    # A dash that latin-1 lacks, and a byte that is not UTF-8.
    odd = folder.rename(tmp_path / os.fsdecode(b"caf\xe9 \xe2\x80\x93"))
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    result = segan_process("inspect", odd, "--workers", 1, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert case.name in result.stdout
    assert "1 good, 0 bad" in result.stdout


def _remove(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def _shrink(path: Path) -> None:
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:-2], image.affine), path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_remove, "the t2 volume is missing"),
        (_truncate, "_t2.nii.gz"),
        (_shrink, "They must share one grid"),
    ],
)
def test_prepare_refuses_a_bad_case(folder: Path, tmp_path: Path, damage, words: str) -> None:
    case = sorted(folder.iterdir())[0]
    damage(case / f"{case.name}_t2.nii.gz")
    refused(segan("prepare", folder, tmp_path / "out" / "store", cwd=tmp_path), words)
    assert not (tmp_path / "out").exists()


def test_prepare_refuses_a_folder_without_cases(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(segan("prepare", "empty", "store", cwd=tmp_path), "no BRATS case found")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"parameters": {"critic.dept": {"type": "int", "low": 1, "high": 2}}}, "critic.depth"),
        ({"objective": {"metric": "val/dise"}}, "no trial reports the metric 'val/dise'"),
        ({}, "does not exist"),
    ],
    ids=["path", "metric", "store"],
)
def test_tune_refuses_before_ray_starts(tmp_path: Path, change: dict, words: str) -> None:
    (tmp_path / "space.yaml").write_text(yaml.safe_dump({**SPACE, **change}))
    home = tmp_path / "home"
    refused(segan("tune", "none", "--space", "space.yaml", cwd=tmp_path, home=home), words)
    assert not home.exists()


def test_a_space_file_that_is_not_there(tmp_path: Path) -> None:
    refused(segan("tune", "store", "--space", "none.yaml", cwd=tmp_path), "no such file")


def test_a_shipped_space_by_its_name(store: Path, tmp_path: Path) -> None:
    # The space is found: what is refused is the store.
    refused(
        segan("tune", "none", "--space", "critic", cwd=tmp_path), "The store none does not exist"
    )
    refused(segan("tune", store, "--space", "critik", cwd=tmp_path), "Did you mean 'critic'?")


@pytest.mark.parametrize("command", [["train"], ["tune", "--space", "critic"]])
def test_what_to_resume_has_a_name(store: Path, tmp_path: Path, command: list[str]) -> None:
    first, *rest = command
    result = segan(first, store, *rest, "--resume", cwd=tmp_path)
    refused(result, "--resume needs the --name of what to go on with")


@pytest.mark.parametrize("command", [["stop"], ["delete", "--yes"]])
def test_an_unknown_sweep_is_not_ended(tmp_path: Path, command: list[str]) -> None:
    result = segan(*command, "swept", cwd=tmp_path, home=tmp_path / "home")
    refused(result, "No sweep or run is called 'swept'. There is none yet: segan-ray tune.")


def test_a_killed_sweep_is_stopped_and_deleted(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home = tmp_path / "home"
    killed(Home(home))
    stopped = segan("stop", "sweep", "--json", cwd=tmp_path, home=home)
    assert json.loads(stopped.stdout) == {"sweep": "sweep", "status": "stopped"}
    again = segan("stop", "sweep", cwd=tmp_path, home=home)
    assert (again.returncode, again.stdout) == (0, "'sweep' had ended before: stopped.\n")
    # Without a terminal there is no question.
    asked = segan("delete", "sweep", cwd=tmp_path, home=home)
    refused(asked, "Nobody is there to ask whether to: say --yes.")
    assert "'sweep' has 3 trials and" in asked.stderr
    deleted = segan("delete", "sweep", "--yes", "--json", cwd=tmp_path, home=home)
    document = json.loads(deleted.stdout)
    assert (document["sweep"], document["kept"]) == ("sweep", [])
    assert document["deleted"]["runs"] == 4
    assert (document["deleted"]["folder"], document["deleted"]["study"]) == (True, True)


@pytest.mark.parametrize("name", ["../escape", "a b", ""])
def test_a_name_cannot_leave_its_folder(store: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE))
    result = segan(
        "tune", store, "--space", "space.yaml", "--name", name or "/", cwd=tmp_path,
        home=tmp_path / "home",
    )  # fmt: skip
    refused(result, "cannot name a sweep")


def test_debug_shows_where(tmp_path: Path) -> None:
    result = segan("prepare", "none", "store", "--debug", cwd=tmp_path)
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_a_fold_the_store_lacks_is_refused_before_ray_starts(store: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    trained = segan("train", store, "--set", "data.fold=2", cwd=tmp_path, home=home)
    refused(trained, "has no folds, data.fold is 2")
    space = {**SPACE, "parameters": {"data.fold": {"type": "int", "low": 0, "high": 4}}}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(space))
    tuned = segan("tune", store, "--space", "space.yaml", cwd=tmp_path, home=home)
    refused(tuned, "has no folds, data.fold is 0")
    for asked in ("all", 3):
        (tmp_path / "space.yaml").write_text(yaml.safe_dump({**SPACE, "folds": asked}))
        folded = segan("tune", store, "--space", "space.yaml", cwd=tmp_path, home=home)
        refused(folded, f"has 0 folds, and the space asks for folds: {asked}. Prepare a store with")
    assert not home.exists()


def test_prepare_with_folds_and_with_a_split_file(folder: Path, tmp_path: Path) -> None:
    folds = segan("prepare", folder, "folds", "--folds", 3, "--json", cwd=tmp_path)
    document = json.loads(folds.stdout)
    assert document["folds"] == 3
    split = tmp_path / "split.json"
    split.write_text(json.dumps(document["splits"]))
    own = segan("prepare", folder, "own", "--split-file", split, "--json", cwd=tmp_path)
    assert json.loads(own.stdout)["splits"] == document["splits"]
    both = segan("prepare", folder, "no", "--split-file", split, "--val", 0.2, cwd=tmp_path)
    refused(both, "--val and --split-file: the file says who is where")


def test_prepare_does_not_write_to_a_url(folder: Path, tmp_path: Path) -> None:
    result = segan("prepare", folder, "s3://bucket/store", cwd=tmp_path)
    refused(result, "s3://bucket/store: a store is made in a folder")
    assert not (tmp_path / "s3:").exists()


def test_a_model_that_is_not_there_is_not_exported(tmp_path: Path) -> None:
    refused(
        segan("export", "m", "out", "--format", "keras", cwd=tmp_path), "expected onnx or torch"
    )
    refused(segan("export", "m", "out", "--home", "home", cwd=tmp_path), "'m' is no checkpoint")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "home").exists()


def test_ctrl_c_and_a_full_disk_are_no_faults_of_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def raised(error: BaseException) -> tuple[int, str]:
        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr(sweeps, "list_sweeps", fail)
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().err

    monkeypatch.setattr(sys, "argv", ["segan-ray", "sweeps", "--home", str(tmp_path)])
    assert raised(KeyboardInterrupt()) == (130, "Interrupted.\n")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x")
    said = "Error: /data/x: No space left on device. Mend that, or choose another place.\n"
    assert raised(full) == (1, said)
    code, said = raised(ZeroDivisionError("x"))
    assert (code, said.splitlines()[1]) == (1, "This should not happen; --debug shows where.")


def test_what_a_sweep_is_gone_on_with_holds_what_it_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, resume_with: Callable[[str], str], **__: object) -> None:
        raise Interrupted.of("rates", resume_with("rates"), signal.SIGINT)

    monkeypatch.setattr(sweeps_api, "tune", interrupted)
    asked = ("--space", "critic", "--repeat-top", 2, "--price-per-gpu-hour", 1.5)
    done = segan("tune", "store", *asked, cwd=tmp_path)
    assert done.returncode == 128 + signal.SIGINT
    assert (
        "segan-ray tune store --space critic --name rates --repeat-top 2 --seeds 3 "
        "--price-per-gpu-hour 1.5 --resume" in done.stderr
    )
