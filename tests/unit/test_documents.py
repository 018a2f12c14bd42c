"""Users' YAML, JSON and tables are checked against bounds before objects are built of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from segan_ray import documents
from segan_ray.config import load_experiment, load_yaml, parse_assignments
from segan_ray.data.layouts.dataset_file import read_dataset_file
from segan_ray.data.layouts.name_mapping import with_grades
from segan_ray.data.store.split_file import read_split_file
from segan_ray.errors import MOST_PROBLEMS, ConfigError, DataError, SeganRayError, SplitError
from segan_ray.search.results.question import question
from segan_ray.search.space.space_file import load_space

READERS = {
    "settings": load_experiment,
    "space": load_space,
    "split": read_split_file,
    "dataset": read_dataset_file,
}
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=30)
TREES = st.recursive(
    SCALARS,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(), below, max_size=4),
    max_leaves=30,
)


def doubled(times: int, start: str, again: str) -> str:
    """Return a text in which each line stands for its predecessor twice."""
    lines = [f"a0: &a0 {start}"]
    lines += [f"a{n}: &a{n} {again.replace('*', f'*a{n - 1}')}" for n in range(1, times)]
    return "\n".join(lines)


TOO_MUCH = {
    "lists": doubled(40, "[x, x]", "[*, *]"),
    "mappings": doubled(40, "{x: 1}", "{b: *, c: *}"),
    "merged": doubled(40, "{x: 1}", "{<<: [*, *]}"),
    "text": f"a: &a {'x' * 200_000}\nb: [{', '.join(['*a'] * 2000)}]",
    "chain": doubled(100, "[x]", "[*]"),
    "itself": "a: &a [1, *a]",
    "itself deeper": "a: &a {b: {c: *a}}",
    "brackets": "a: " + "[" * 3000 + "]" * 3000,
    "braces": "{a: " * 3000 + "1" + "}" * 3000,
    "dashes": "- " * 3000,
    "questions": "? " * 3000,
    "digits": f"seed: {'9' * 5000}",
    "hexadecimal": f"seed: 0x{'f' * 5000}",
    "base 60": f"seed: 1{':59' * 2000}",
    "tagged": f"seed: !!int '{'9' * 5000}'",
    "real": f"seed: {'9' * 5000}.0",
    "key": f"{'9' * 5000}: 1",
}
NOT_YAML = {
    "character": r'seed: "\UFFFFFFFF"',
    "date": "seed: 2001-99-99",
    "alias": "seed: *nobody",
    "null": "seed: \0",
}


@pytest.mark.parametrize("kind", TOO_MUCH)
def test_a_document_of_too_many_values_is_refused_before_it_is_built(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(yaml, "load", None)
    for parse in (documents.parse_yaml, documents.parse_yaml_list):
        with pytest.raises(documents.BoundsError, match=r"at line \d+"):
            parse(TOO_MUCH[kind])


@pytest.mark.parametrize("reader", ["settings", "space", "split"])
@pytest.mark.parametrize("kind", [*TOO_MUCH, *NOT_YAML])
def test_every_reader_refuses_it_in_a_short_line(tmp_path: Path, reader: str, kind: str) -> None:
    file = tmp_path / "given.yaml"
    file.write_text({**TOO_MUCH, **NOT_YAML}[kind])
    with pytest.raises((ConfigError, SplitError)) as caught:
        READERS[reader](file)
    said = str(caught.value)
    assert said.startswith(f"{file}: ")
    assert len(said) < len(str(file)) + 200


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_only_regular_files_are_read(tmp_path: Path, reader: Callable[[Path], object]) -> None:
    pipe, large = tmp_path / "pipe", tmp_path / "large"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    with large.open("wb") as stream:
        stream.truncate(2**40)
    for path, words in [
        (pipe, "is a pipe; expected a file"),
        (tmp_path / "link", "is a pipe; expected a file"),
        (Path("/dev/zero"), "is a device; expected a file"),
        (large, "is larger than"),
        (tmp_path, "[Ii]s a directory"),
    ]:
        with pytest.raises((ConfigError, SplitError, DataError), match=words):
            reader(path)


def test_a_table_of_grades_that_is_a_pipe_gives_none(tmp_path: Path) -> None:
    pipe = tmp_path / "name_mapping.csv"
    os.mkfifo(pipe)
    _, notes = with_grades([], [pipe])
    assert notes == [f"{pipe}: is a pipe; expected a file; no grade comes from it."]


@settings(max_examples=40, deadline=None)
@given(TREES)
def test_ordinary_documents_are_read(tree: object) -> None:
    text = yaml.safe_dump(tree)
    assert documents.parse_yaml(text) == yaml.safe_load(text)
    assert documents.parse_yaml_list(text) == yaml.safe_load(text)
    assert documents.parse_json(json.dumps(tree)) == tree
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32-le"):
        assert documents.parse_json(json.dumps(tree).encode(encoding)) == tree


def test_aliases_that_repeat_little_are_kept() -> None:
    text = "base: &b {lr: 1, w: [1, 2]}\na: {<<: *b, lr: 2}\nc: [*b, *b]\nd: &d 3\ne: *d\n"
    assert documents.parse_yaml(text) == yaml.safe_load(text)


def test_documents_at_their_bounds() -> None:
    deepest = documents.DEEPEST
    assert documents.parse_yaml("[" * (deepest - 1) + "1" + "]" * (deepest - 1))
    assert documents.parse_json("[" * deepest + "1" + "]" * deepest)
    with pytest.raises(documents.DocumentError, match="nested more than"):
        documents.parse_json("[" * (deepest + 1) + "]" * (deepest + 1))
    digits = "9" * documents.LONGEST_NUMBER
    assert documents.parse_yaml(digits) == documents.parse_json(digits) == int(digits)
    assert documents.parse_yaml(f"'{digits}9'") == digits + "9"
    assert documents.parse_yaml("- 1\n" * 99, most=100) == [1] * 99
    with pytest.raises(documents.BoundsError, match="more than 100 values"):
        documents.parse_yaml("- 1\n" * 100, most=100)


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        '{"a": ' * 100_000,
        json.dumps({"seed": 1})[:-1] + ', "x": ' + "9" * 5000 + "}",
        '{"x": 1.' + "1" * 5000 + "}",
        json.dumps({"modality": {"9" * 5000: "FLAIR"}}),
        json.dumps({"modality": {"0": "x" * 10_000}}),
        json.dumps({"labels": {"edema": ["9" * 5000], "1": "enhancing " + "x" * 9000}}),
    ],
)
def test_a_dataset_file_of_any_content_is_refused_in_short(tmp_path: Path, content: str) -> None:
    file = tmp_path / "dataset.json"
    file.write_text(content)
    with pytest.raises(DataError) as caught:
        read_dataset_file(file)
    assert len(str(caught.value)) < len(str(file)) + 400


def test_brackets_in_strings_are_not_depth() -> None:
    assert documents.parse_json(json.dumps(["[" * 500, '\\"' + "{" * 500])) == [
        "[" * 500, '\\"' + "{" * 500,
    ]  # fmt: skip


@pytest.mark.parametrize("load", [load_experiment, load_space])
def test_the_first_problems_are_listed_and_the_rest_counted(
    tmp_path: Path, load: Callable[[Path], object]
) -> None:
    file = tmp_path / "given.yaml"
    file.write_text("".join(f"key{number}: 1\n" for number in range(500)))
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert len(caught.value.problems) == MOST_PROBLEMS + 1
    missing = 0 if load is load_experiment else 2
    left = 500 + missing - MOST_PROBLEMS
    assert caught.value.problems[-1] == f"{left} more problems not listed here."


def test_messages_cut_names_and_values(tmp_path: Path) -> None:
    file = tmp_path / "given.yaml"
    long = "x" * 5000
    for text in (
        f"seed: {long}",
        f"{long}: 1",
        f"name: x\nparameters: {{{long}: 1}}",
        f"name: x\nparameters: {{critic.lr: {{type: {long}}}}}",
        f"train: [[{long}]]",
        f"train: {{{long}: 1}}",
    ):
        file.write_text(text)
        for reader in (load_experiment, load_space, read_split_file):
            with pytest.raises(SeganRayError) as caught:
                reader(file)
            assert "x" * 400 not in str(caught.value)


def test_values_of_set_are_bounded_too() -> None:
    for value in ("[" * 5000, "9" * 5000, "&a [*a]", r'"\UFFFFFFFF"'):
        with pytest.raises(ConfigError, match=r"critic\.depth: ") as caught:
            parse_assignments([f"critic.depth={value}"])
        assert len(str(caught.value)) < 300


def test_a_recorded_space_of_too_many_values_has_no_question() -> None:
    assert question(TOO_MUCH["lists"]) is None
    assert question(NOT_YAML["date"]) is None


def test_line_ends_of_any_system_are_read(tmp_path: Path) -> None:
    file = tmp_path / "given.yaml"
    file.write_bytes(b"seed: 3\r\ncritic:\r  depth: 2\n")
    assert load_yaml(file) == {"seed": 3, "critic": {"depth": 2}}
