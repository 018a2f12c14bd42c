"""Errors of libraries, as users read them."""

from __future__ import annotations

from sqlalchemy.exc import OperationalError

from segan_ray.errors import LONGEST, named, said


def test_a_message_has_all_lines_of_an_error_and_no_statement() -> None:
    lost = ConnectionError("connection failed\n\tIs the server running?")
    assert named(lost) == "ConnectionError: connection failed Is the server running?"
    assert said(OperationalError("SELECT 1", {}, lost)) == said(lost)
    assert said(ValueError()) == "ValueError"
    assert len(said(ValueError("long " * 1000))) == LONGEST + 1
