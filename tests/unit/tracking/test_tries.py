"""The registry's count of tries on the patients of a gate."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mlflow import MlflowClient

from segan_ray.data.store.opened_store import PreparedCase
from segan_ray.errors import RegistryError
from segan_ray.home import Home
from segan_ray.tracking.registry.tries import count_try


class Registry:
    """The tags of a registered model, as MLflow's client reads and writes them."""

    def __init__(self) -> None:
        self.tags: dict[str, str] = {}

    def get_registered_model(self, _: str) -> SimpleNamespace:
        return SimpleNamespace(tags=dict(self.tags))

    def set_registered_model_tag(self, _: str, name: str, value: str) -> None:
        self.tags[name] = value


def cases(*scans: str) -> list[PreparedCase]:
    records = [SimpleNamespace(record=SimpleNamespace(voxels_sha256=scan)) for scan in scans]
    return cast("list[PreparedCase]", records)


def test_new_questions_count_and_old_ones_keep_their_number(tmp_path: Path) -> None:
    registry = Registry()

    def ask(scans: list[PreparedCase], **question: Any) -> int:
        return count_try(Home.at(tmp_path), cast("MlflowClient", registry), scans, question)

    gate = cases("a", "b")
    assert [ask(gate, candidate=name) for name in "xyxzy"] == [1, 2, 1, 3, 2]
    # The order of patients is no other gate, one patient more is.
    assert ask(cases("b", "a"), candidate="x") == 1
    assert ask(cases("a", "b", "c"), candidate="z") == 1
    assert len(registry.tags) == 4
    registry.tags["segan.other"] = "7"
    assert ask(gate, candidate="w") == 4


@pytest.mark.parametrize("note", ["", "3", "{}", "[1]", '{"try": "two"}', '{"try": 0}', "null"])
def test_a_note_that_was_changed_is_told(tmp_path: Path, note: str) -> None:
    registry = Registry()
    ask = (Home.at(tmp_path), cast("MlflowClient", registry), cases("a"), {"candidate": "x"})
    count_try(*ask)
    (name,) = registry.tags
    registry.tags[name] = note
    with pytest.raises(RegistryError, match=f"The tag {name} .* does not say which try it notes"):
        count_try(*ask)
