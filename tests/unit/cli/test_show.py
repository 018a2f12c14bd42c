"""Tables that stay readable on narrow terminals, and numbers in few characters."""

from __future__ import annotations

import io
import random
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segan_ray import errors
from segan_ray.terminal import show
from segan_ray.terminal.encoding import show_anything

PATHS = [
    "segmentor.lr", "critic.lr", "critic.depth", "loss.scale_weights", "loss.dice_weight",
    "segmentor.base_width", "training.batch_size", "variant",
]  # fmt: skip
FIXED = ("trial", "status", "epochs", "score")


def leaderboard(trials: int = 50) -> list[list[str]]:
    draw = random.Random(0)
    rows = []
    for number in range(trials):
        depth = draw.randint(1, 5)
        point = [
            10 ** draw.uniform(-5, -2), 10 ** draw.uniform(-5, -2), depth,
            [draw.uniform(0.1, 4) for _ in range(depth + 1)], draw.random() * 2,
            draw.choice([8, 16, 32]), draw.choice([4, 8]), draw.choice(["s1-3c", "unet"]),
        ]  # fmt: skip
        rows.append([f"{number:03d}", "completed", "20", "0.612", *map(show.setting, point)])
    return rows


def wide(shape: show.TableLayout, rows: list[list[str]]) -> int:
    widths = [
        max(*map(len, header.split("\n")), *(len(row[index]) for row in rows))
        for index, header in zip(shape.shown, shape.headers, strict=True)
    ]
    return sum(widths) + shape.gap * (len(widths) - 1)


def test_names_are_as_short_as_they_can_be_told_apart() -> None:
    assert show.short_names(PATHS) == [
        "segmentor.lr", "critic.lr", "depth", "scale_weights", "dice_weight", "base_width",
        "batch_size", "variant",
    ]  # fmt: skip
    assert show.short_names(["a.b.c", "x.b.c", "b.c", "a.d"]) == ["a.b.c", "x.b.c", "b.c", "d"]
    assert show.short_names(["seed", "data.seed"]) == ["seed", "data.seed"]
    assert show.short_names(["my_lr", "critic.lr"]) == ["my_lr", "lr"]


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_a_leaderboard_of_eight_parameters_fits(width: int) -> None:
    rows = leaderboard()
    shape = show.lay_out((*FIXED, *show.short_names(PATHS)), rows, width, len(FIXED))
    assert wide(shape, rows) <= width
    assert shape.shown[:4] == (0, 1, 2, 3)
    if width >= 80:
        assert len(shape.shown) >= len(FIXED) + len(PATHS) - 2
    if width >= 120:
        assert len(shape.shown) == len(FIXED) + len(PATHS)


def test_comfort_goes_step_by_step() -> None:
    rows = [["000", "0.5", "1.2e-5"]]
    columns = ("trial", "score", "segmentor.lr")
    assert show.lay_out(columns, rows, 80, 2) == show.TableLayout((0, 1, 2), columns, 2)
    broken = ("trial", "score", "segmentor\nlr")
    assert show.lay_out(columns, rows, 23, 2) == show.TableLayout((0, 1, 2), broken, 2)
    assert show.lay_out(columns, rows, 22, 2) == show.TableLayout((0, 1, 2), broken, 1)
    assert show.lay_out(columns, rows, 20, 2) == show.TableLayout((0, 1), broken[:2], 1)
    assert show.lay_out(columns, rows, 3, 2) == show.TableLayout((0, 1), broken[:2], 1)


@given(
    st.lists(st.text("abc._", min_size=1, max_size=20), min_size=1, max_size=9),
    st.integers(1, 120),
    st.integers(0, 9),
)
def test_only_what_is_essential_may_be_too_wide(
    columns: list[str], width: int, essential: int
) -> None:
    rows = [["12345"] * len(columns)]
    shape = show.lay_out(columns, rows, width, essential)
    assert set(range(min(essential, len(columns)))) <= set(shape.shown)
    assert wide(shape, rows) <= width or len(shape.shown) <= essential


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.000123456, "0.00012"), (1.2345e-5, "1.2e-5"), (0.5, "0.5"), (12.345, "12.3"),
        (2.5e10, "2.5e10"), (1e-10, "1e-10"), (0.0, "0"), (-0.25, "-0.25"), (3, "3"),
        (12345, "12345"), (None, "–"), (True, "True"), ("unet", "unet"), ([0.123, 2.0], "0.12 2"),
    ],
)  # fmt: skip
def test_settings_in_few_characters(value: object, text: str) -> None:
    assert show.setting(value) == text


def test_a_table_away_from_a_terminal_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    rows = leaderboard(3)
    columns = (*FIXED, *show.short_names(PATHS), *(f"setting_{index}" for index in range(30)))
    left_out = show.table("Trials", columns, [[*row, *range(30)] for row in rows], essential=4)
    title, header, *lines = capsys.readouterr().out.splitlines()
    assert left_out == []
    assert title.strip() == "Trials"
    assert header.split() == list(columns)
    assert len(lines) == 3


def test_a_narrow_terminal_is_told_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    columns = (*FIXED, *show.short_names(PATHS))
    left_out = show.table("Trials", columns, leaderboard(), essential=4)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert left_out[0] == "scale_weights"
    assert max(map(len, lines)) <= 80
    assert len(lines) == 1 + 2 + 50


def test_only_an_invitation_shows_its_token(capsys: pytest.CaptureFixture[str]) -> None:
    address = "http://127.0.0.1:5000/?token=s3cret-_"
    show.invite("Records at postgresql://me:pw@db", address, "Ctrl-C\x07 ends")
    show.note(f"Open {address}")
    assert capsys.readouterr().err.splitlines() == [
        f"Records at postgresql://me:***@db: {address} (Ctrl-C\\x07 ends)",
        "Open http://127.0.0.1:5000/?token=***",
    ]


def test_of_notes_that_are_alike_the_first_are_shown_and_the_rest_counted() -> None:
    lines = [f"/data/case_{number}: not read: holds {number} images" for number in range(40)]
    said: list[str] = []
    show.notes([*lines, "40 of 41 cases have no segmentation."], said.append)
    assert said == [
        *lines[:5],
        "... and 35 more like this; inspect --json lists them all.",
        "40 of 41 cases have no segmentation.",
    ]


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("latin-1", "240\u00d7240 - 0...9 <= \\udce9"),
        ("ascii", "240x240 - 0...9 <= \\udce9"),
        ("cp1252", "240\u00d7240 \u2013 0\u20269 <= \\udce9"),
        ("utf-8", "240\u00d7240 \u2013 0\u20269 \u2264 \\udce9"),
    ],
)
def test_characters_that_a_terminal_lacks_become_plain_ones(
    monkeypatch: pytest.MonkeyPatch, encoding: str, shown: str
) -> None:
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    show_anything()
    show.table("t", ["240\u00d7240 \u2013 0\u20269 \u2264 \udce9"], [[None]])
    stream.flush()
    assert shown in written.getvalue().decode(encoding)
    stream.detach()


HOSTILE = "a[/b]:smile:\x1b[31m\r\n\0\x9b\u202e"
HARMLESS = r"a[/b]:smile:\x1b[31m\r\n\x00\x9b\u202e"


@pytest.mark.parametrize("watched", [True, False])
def test_a_table_shows_names_as_they_are_and_control_characters_as_escapes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], watched: bool
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: watched, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    show.table(f"{HOSTILE} title", [HOSTILE, "[red]score"], [[HOSTILE, "[/]"], ["[bold]x", 1]])
    out = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    title, header, *rows = out.splitlines()
    assert title.strip() == f"{HARMLESS} title"
    assert header.split() == [HARMLESS, "[red]score"]
    assert [row.split() for row in rows] == [[HARMLESS, "[/]"], ["[bold]x", "1"]]


def test_lines_for_people_hold_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    show.say(f"{show.plain(HOSTILE)}: first\nsecond")
    show.note(f"{show.plain(HOSTILE)}: first\nsecond\x1b[2J")
    said = capsys.readouterr()
    assert said.out == f"{HARMLESS}: first\nsecond\n"
    assert said.err == f"{HARMLESS}: first\nsecond\\x1b[2J\n"


def test_the_item_of_a_bar_is_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(written, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", written)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with show.progress("Reading", 2) as done:
        done(HOSTILE)
    assert HARMLESS in written.getvalue()


@given(st.text())
def test_only_what_is_not_seen_is_escaped(text: str) -> None:
    shown = errors.visible(text)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]", shown)
    assert errors.visible(shown) == shown
    if text.isprintable():
        assert shown == text


def test_what_a_job_wrote_is_passed_on_without_its_control_characters(capsys) -> None:
    show.passed_on("epoch 1\tdone\n\x1b[2J\x1b]0;a\x07\r\u202eb\n", sys.stdout)
    assert capsys.readouterr().out == "epoch 1\tdone\n\\x1b[2J\\x1b]0;a\\x07\\r\\u202eb\n"
