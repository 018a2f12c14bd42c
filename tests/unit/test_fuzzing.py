"""Valid files with something wrong in them, by the hundred: read, or refused in words.

Each kind is changed in seeded random ways. Only an exception of the package may come out, of a few
plain lines, and no more memory may be taken than such a file needs. With ``-s`` each kind says how
many were tried, refused and read.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import struct
import tracemalloc
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import nibabel as nib
import pytest
import torch

from segan_ray.config import load_experiment
from segan_ray.data.io.headers import ImageError
from segan_ray.data.io.images import carried_checksum, read_header, read_image
from segan_ray.data.store.opened_store import open_for_tuning, read_manifest
from segan_ray.data.store.origin import read_origin
from segan_ray.data.store.split_file import read_split_file
from segan_ray.errors import CaseError, CheckpointError, SeganRayError
from segan_ray.evaluation.inference.checksums import write_checksums
from segan_ray.evaluation.inference.inference_settings import Postprocessing
from segan_ray.evaluation.inference.packaged_model import load_model
from segan_ray.redaction import mask
from segan_ray.search.space.space_file import load_space
from segan_ray.terminal import show
from segan_ray.training.checkpoints.checkpoint import load_segmentor, restore
from segan_ray.training.checkpoints.saved_state import check_files
from segan_ray.training.checkpoints.trial_folder import read_report, write_epoch
from segan_ray.training.epoch_record import BestEpoch, EpochRecord
from segan_ray.training.state import new_state
from tests.unit.data.io.test_malformed_headers import metaimage_of, nifti_of
from tests.unit.promotable import write_store
from tests.unit.stored import ORIGIN

pytestmark = pytest.mark.slow

Mutation = Callable[[Random, bytes], bytes]
Read = Callable[[], object]

TRIES = 240
MOST_BYTES = 48 << 20
NUMBERS = (0, 1, -1, 255, 2**15, -(2**15), 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1)
REALS = (float("inf"), float("-inf"), float("nan"), 1e30, -1e30, 1e-320, 0.0, 3e9)
WORDS = (
    "-1", "0", "0.5", "1e999", "-1e999", ".nan", ".inf", "NaN", "Infinity", "null", "true", "~",
    "10000000000000000000", "9" * 60, "9" * 5000, "[", "]", "{", "}", ":", ": ", "- ", ",", "*a",
    "&a ", "&a [*a]", "!!python/object/apply:os.system [a]", "!!binary a", "<<: *a", "'", '"', "#",
    "\t", "\n", "\0", "\\", "\\ud800", "\x1b[2J", "é", "../..", "[" * 99, "2001-99-99", "? ",
    "test", "train", "float", "choice", "---\n", "%YAML 9\n", "|", ">", "@", "`", "a" * 9999,
)  # fmt: skip
TOKEN = re.compile(r"\w+|\s+|[^\w\s]")
SPACE = Path(__file__).parents[2] / "search_spaces" / "critic.yaml"
SMALL = ["segmentor.base_width=2", "segmentor.depth=2", "critic.base_width=2", "critic.depth=1"]


# ------------------------------------------------------------------------------- ways to change


def flip_bits(random: Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 8))):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def cut_short(random: Random, content: bytes) -> bytes:
    return content[: random.randrange(len(content))]


def move_a_piece(random: Random, content: bytes) -> bytes:
    start, end, to = sorted(random.randrange(len(content)) for _ in range(3))
    return random.choice(
        (
            content[:start] + content[end:],
            content[:end] + content[start:],
            content[:to] + content[start:end] + content[to:],
        )
    )


def set_a_number(random: Random, content: bytes, within: int) -> bytes:
    """Write an extreme number somewhere in the first ``within`` bytes, as a header's field."""
    kind = random.choice("bhiqfd")
    order = random.choice("<>")
    if kind in "fd":
        value = struct.pack(f"{order}{kind}", random.choice(REALS) if kind == "d" else float("inf"))
    else:
        size = 8 * struct.calcsize(kind)
        number = random.choice(NUMBERS) % 2**size
        value = struct.pack(f"{order}{kind.upper()}", number)
    at = random.randrange(max(1, min(within, len(content)) - len(value)))
    return content[:at] + value + content[at + len(value) :]


def in_the_first(within: int) -> Mutation:
    def change(random: Random, content: bytes) -> bytes:
        how = random.randrange(6)
        if how < 3:
            return set_a_number(random, content, within)
        if how == 3:
            return flip_bits(random, content[:within]) + content[within:]
        return random.choice((flip_bits, cut_short, move_a_piece))(random, content)

    return change


def swap_words(random: Random, content: bytes) -> bytes:
    """Change one to three tokens of a text: for others, for extreme ones, or leave them out."""
    tokens = TOKEN.findall(content.decode())
    for _ in range(random.choice((1, 1, 2, 3))):
        at, other = random.randrange(len(tokens)), random.randrange(len(tokens))
        how = random.randrange(6)
        if how < 3:
            tokens[at] = random.choice(WORDS)
        elif how == 3:
            tokens[at], tokens[other] = tokens[other], tokens[at]
        elif how == 4:
            tokens[at] = ""
        else:
            tokens.insert(at, random.choice(WORDS))
    return "".join(tokens).encode("utf-8", "surrogatepass")


def as_text(random: Random, content: bytes) -> bytes:
    changes = (swap_words, swap_words, swap_words, flip_bits, cut_short, move_a_piece)
    return random.choice(changes)(random, content)


def packed(change: Mutation) -> Mutation:
    return lambda random, content: gzip.compress(change(random, content), 1)


def repacked(random: Random, content: bytes) -> bytes:
    """Change a gzip file itself: its own bytes, or what stands behind its end."""
    behind = (b"", b"\0" * 99, b"\x1f\x8b\x08", gzip.compress(bytes(4096)), random.randbytes(64))
    return in_the_first(18)(random, content) + random.choice(behind)


# ------------------------------------------------------------------------------------ the trial


def trial(
    kind: str, path: Path, change: Mutation, read: Read, tries: int = TRIES, *, measured: int = 1
) -> Counter[str]:
    """Change ``path`` again and again and read it; return how often it was refused and read.

    The memory is measured of every ``measured``-th: pure Python takes four times as long then.
    """
    content = path.read_bytes()
    random = Random(kind)
    outcomes: Counter[str] = Counter()
    read()
    for number in range(tries):
        while (changed := change(random, content)) == content:
            pass
        path.write_bytes(changed)
        what = f"{kind}, number {number}: {changed[:2000]!r}"
        if number % measured:
            outcomes[_outcome(read, what)] += 1
            continue
        tracemalloc.start()
        try:
            outcomes[_outcome(read, what)] += 1
            taken = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert taken < MOST_BYTES, f"{taken:,} bytes: {what}"
    path.write_bytes(content)
    return print_outcomes(kind, outcomes)


def print_outcomes(kind: str, outcomes: Counter[str]) -> Counter[str]:
    refused, read = outcomes["refused"], outcomes["read"]
    print(f"\n{kind}: {refused + read} tried, {refused} refused in words, {read} read", end="")
    return outcomes


def _outcome(read: Read, what: str) -> str:
    try:
        read()
    except (SeganRayError, ImageError) as error:
        message = show.prose(error)
        assert message.strip(), what
        assert len(message) < 60_000, what
        assert not _unprintable(message.replace("\n", "")), what
        return "refused"
    except Exception as error:
        raise AssertionError(f"{type(error).__name__} of {what}") from error
    return "read"


def _unprintable(text: str) -> list[str]:
    turns = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return [
        letter
        for letter in text
        if unicodedata.category(letter) in {"Cc", "Zl", "Zp"}
        or unicodedata.bidirectional(letter) in turns
    ]


# ------------------------------------------------------------------------------------ the kinds


def image(path: Path) -> Read:
    def read() -> None:
        carried_checksum(path)
        voxels, affine = read_image(path)
        assert read_header(path).shape == voxels.shape
        assert abs(affine).max() < float("inf")

    return read


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "packed"])
def test_nifti(tmp_path: Path, kind, pack) -> None:
    plain = nifti_of(kind, lambda _: None)
    path = tmp_path / ("a.nii" if pack is bytes else "a.nii.gz")
    path.write_bytes(plain)
    change = in_the_first(kind.header_class.template_dtype.itemsize)
    name = f"{kind.__name__} header{'' if pack is bytes else ', packed'}"
    assert trial(name, path, change if pack is bytes else packed(change), image(path))["refused"]


def test_gzip(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(nifti_of(nib.Nifti1Image, lambda _: None)))
    assert trial("gzip", path, repacked, image(path))["refused"]


@pytest.mark.parametrize("compress", [False, True])
def test_metaimage(tmp_path: Path, compress: bool) -> None:
    path = tmp_path / "a.mha"
    path.write_bytes(metaimage_of({}, compress=compress))

    def change(random: Random, content: bytes) -> bytes:
        start = content.index(b"LOCAL\n") + 6
        if random.randrange(3):
            return swap_words(random, content[:start]) + content[start:]
        return random.choice((flip_bits, cut_short, move_a_piece))(random, content)

    name = f".mha header{', packed' if compress else ''}"
    assert trial(name, path, change, image(path))["refused"]


def test_a_space_file(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_bytes(SPACE.read_bytes())
    assert trial("YAML space", path, as_text, lambda: load_space(path), 100, measured=20)["refused"]


@pytest.mark.parametrize("ending", ["yaml", "json"])
def test_a_split_file(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"split.{ending}"
    sides = {name: [f"{name}-{number:02d}" for number in range(6)] for name in ("val", "test")}
    sides |= {"train": ["a", "b", "c"], "gate": []}
    lines = "".join(f"{side}: [{', '.join(names)}]\n" for side, names in sides.items())
    path.write_text(lines if ending == "yaml" else json.dumps(sides, indent=1))
    kind = f"{ending.upper()} split file"
    assert trial(kind, path, as_text, lambda: read_split_file(path), measured=8)["refused"]


@pytest.fixture(scope="module")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzzing") / "store"
    write_store(folder, {"train": 1, "val": 1, "gate": 1, "test": 1})
    return folder


def test_a_manifest(small_store: Path) -> None:
    path = small_store / "manifest.json"
    before = read_manifest(small_store)

    def read() -> None:
        # A manifest that is read is unchanged, since its fingerprint is checked.
        manifest = read_manifest(small_store)
        assert (manifest.cases, manifest.splits) == (before.cases, before.splits)

    assert trial("manifest.json", path, as_text, read, 400)["refused"]


def test_an_array_of_a_store(small_store: Path) -> None:
    case = open_for_tuning(small_store).train[0]
    path = case.folder / "mask.npy"
    before = case.mask().tobytes()

    def read() -> None:
        assert open_for_tuning(small_store).train[0].mask().tobytes() == before

    assert trial("array of a store", path, in_the_first(128), read)["read"] == 0


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzzing") / "epoch-0001"
    experiment = load_experiment(None, SMALL)
    state = new_state(experiment, torch.device("cpu"))
    for network, optimizer in (
        (state.segmentor, state.segmentor_optimizer),
        (state.critic, state.critic_optimizer),
    ):
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    report = EpochRecord(1, {"val/dice_mean": 0.5}, BestEpoch(1, {"val/dice_mean": 0.5}))
    write_epoch(folder, state, experiment, ORIGIN, report, None)
    return folder


FILES = ["state.json", "segmentor.safetensors", "critic.safetensors", "optimizers.safetensors"]


@pytest.mark.parametrize("checked", [True, False], ids=["checked", "before checksums"])
@pytest.mark.parametrize("file", FILES)
def test_a_checkpoint(saved: Path, tmp_path: Path, file: str, checked: bool) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "epoch-0001"))
    if not checked:
        content = json.loads((folder / "state.json").read_text())
        del content["checksums"]
        (folder / "state.json").write_text(json.dumps(content))
    state = new_state(load_experiment(None, SMALL), torch.device("cpu"))

    def read() -> None:
        restore(folder, state)
        load_segmentor(folder)

    kind = f"checkpoint's {file}{'' if checked else ', before checksums'}"
    change = as_text if file == "state.json" else in_the_first(2000)
    outcomes = trial(kind, folder / file, change, read, 80)
    assert outcomes["refused"]
    # Only blank space in JSON stays.
    assert not checked or outcomes["read"] <= (20 if file == "state.json" else 0)


@pytest.mark.parametrize("file", ["origin.json", "report.json", "checksums.json", "post"])
def test_files_beside_weights(saved: Path, tmp_path: Path, file: str) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "model"))
    content = json.loads((folder / "state.json").read_text())
    del content["checksums"]
    (folder / "state.json").write_text(json.dumps(content))
    file = "postprocessing.json" if file == "post" else file
    (folder / "postprocessing.json").write_text(Postprocessing().model_dump_json(indent=1))
    if file == "checksums.json":
        write_checksums(folder)
    read = {"origin.json": read_origin, "report.json": read_report}.get(file, load_model)
    outcomes = trial(f"model's {file}", folder / file, as_text, lambda: read(folder), 60)
    assert outcomes["refused"]


@pytest.mark.parametrize("name", ["a\ud800", "a" * 300, "a\0b", "..", "../a", "gone.json", ""])
def test_names_that_are_no_file_s(saved: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "model"))
    (folder / "checksums.json").write_text(json.dumps({name: "0"}))
    content = json.loads((folder / "state.json").read_text())
    with pytest.raises(CheckpointError):
        load_model(folder)
    with pytest.raises(CheckpointError):
        check_files(folder, {**content, "checksums": {name: "0"}})


def test_masking() -> None:
    random = Random(1)
    letters = "abcXYZ0189 '\"@:/?#&;=%{}[]()\\.,-_*+!$<>|~^`é\t"
    frames = (
        "postgresql://me:{}@host/db", "mysql+pymysql://:{}@host:3306/db", "redis://u:{}@[::1]:1/0",
        "see 'postgresql://me:{}@host:5432/db': it is away (try again).",
        "https://h/x?v=1&token='{}'&b=c", "host=h password='{}' user=u",
        '{{"password": "{}", "x": 1}}',
    )  # fmt: skip
    for _ in range(TRIES):
        middle = "".join(random.choices(letters, k=random.randrange(1, 12)))
        frame = random.choice(frames)
        quoted = "'{}'" in frame or '"{}"' in frame
        middle = re.sub(r"['\"\\]", "", middle) if quoted else middle.replace("://", "")
        password = f"pw{middle}wp"
        message = mask(frame.format(password))
        assert password not in message, frame.format(password)
        assert "***" in message
    garbage = ("://", "@", "?token=", " ", "&", "'", ":1 ", "password=", "é", "a", "{", "\n", "#")
    for _ in range(TRIES):
        mask("".join(random.choices(garbage, k=200)))
    print_outcomes("masking", Counter(read=2 * TRIES))


def test_names_with_control_characters() -> None:
    random = Random(2)
    signs = "a[/b]\x00\x07\x08\x1b\x7f\x85\x9b\r\n\t\u200e\u202e\u2066\u2028\ufeff\u00adé"
    for _ in range(TRIES):
        name = "".join(random.choices(signs, k=random.randrange(1, 30)))
        for text in (str(CaseError(name, "is bad.")), show.plain(name)):
            assert not _unprintable(text), repr(name)
    print_outcomes("names with control characters", Counter(read=TRIES))
