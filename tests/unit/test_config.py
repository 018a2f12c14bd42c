from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from segan_ray import sizes
from segan_ray.config import (
    Experiment,
    build,
    critic_channels,
    flatten,
    load_experiment,
    load_preset,
    load_yaml,
    merge,
    nest,
    parse_assignments,
    paths,
    presets,
    segmentor_weights,
)
from segan_ray.errors import ConfigError
from segan_ray.models.build import build_critic, build_segmentor
from tests.unit.models.test_models import NETWORKS

ROOT = Path(__file__).parents[2]


def test_flatten_and_nest_are_inverse() -> None:
    experiment = Experiment()
    assert build(nest(flatten(experiment)), "here") == experiment
    assert set(flatten(experiment)) == set(paths())


def test_an_experiment_survives_json() -> None:
    experiment = load_experiment(None, ["critic.depth=2", "loss.scale_weights=[1, 2, 0.5]"])
    assert build(experiment.model_dump(mode="json"), "here") == experiment


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("critic.deptj=3", "unknown setting 'critic.deptj'. Did you mean 'critic.depth'?"),
        ("critic.depth", "has no '='"),
        ("critic.depth=9", "critic.depth is 9"),
        ("critic.depth=[", "not a YAML value"),
        ("segmentor.lr=-1", "segmentor.lr is -1"),
        ("segmentor.lr=.inf", "segmentor.lr is inf"),
        ("loss.scale_weights=[1, 1]", "critic.depth 3 makes 4 scales. Give 4 weights."),
        ("loss.scale_weights=[0, 0, 0, 0]", "at least one must be above 0"),
        ("training.accumulate=9", "batch_size 8 cannot be shared by 1 workers in 9 parts"),
        ("resources.workers=16", "it must be at least 16"),
    ],
)
def test_a_wrong_assignment_is_reported_in_words(assignment: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_experiment(None, [assignment])
    assert words in str(caught.value)


def test_every_problem_is_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        build({"critic": {"depth": 0, "widht": 1}, "seed": -1}, "file.yaml")
    assert len(caught.value.problems) == 3
    assert all(line.startswith("file.yaml: ") for line in str(caught.value).splitlines())


def test_merge_goes_into_groups() -> None:
    merged = merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 4}})
    assert merged == {"a": {"b": 1, "c": 4}, "d": 3}


@pytest.mark.parametrize(
    ("text", "words"),
    [("[1, 2]", "holds a list"), ("a: [", "not valid YAML at line"), ("a: 1\nb: : :", "line 2")],
)
def test_a_file_that_is_no_mapping(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"settings\.yaml") as caught:
        load_yaml(file)
    assert words in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_experiment(tmp_path / "none.yaml")


@given(st.sampled_from(sorted(paths())), st.integers(1, 4))
def test_an_assignment_sets_its_path_alone(path: str, value: int) -> None:
    assert parse_assignments([f"{path}={value}"]) == nest({path: value})


def test_a_single_scale_has_one_weight() -> None:
    single = load_experiment(None, ["critic.scales=single-scale", "loss.scale_weights=[2]"])
    assert single.critic.scale_count == 1
    with pytest.raises(ConfigError, match="a single-scale critic"):
        load_experiment(None, ["critic.scales=single-scale", "loss.scale_weights=[1, 1, 1, 1]"])


def table_of_presets() -> dict[str, dict[str, Any]]:
    """Return the values of each preset by setting, as docs/presets.md has them."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (ROOT / "docs" / "presets.md").read_text().splitlines()
        if line.startswith("| ")
    ]
    head, _, *body = rows
    return {
        name.strip("`"): {
            row[0].strip("`"): yaml.safe_load(row[column]) for row in body if row[column]
        }
        for column, name in enumerate(head)
        if column
    }


def test_the_presets_are_those_of_the_document() -> None:
    table = table_of_presets()
    assert presets() == sorted(table) == ["authors-brats", "authors-skin", "paper", "segan-cat"]
    for name, documented in table.items():
        tree = load_preset(name)
        assert {
            path: value
            for group, settings in tree.items()
            for path, value in (
                {f"{group}.{key}": each for key, each in settings.items()}
                if isinstance(settings, dict)
                else {group: settings}
            ).items()
        } == documented
        load_experiment(None, preset=name)


def test_settings_go_over_a_file_and_a_file_over_a_preset(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("critic: {depth: 2}\ntraining: {epochs: 7}\n")
    experiment = load_experiment(file, ["training.epochs=9"], "paper")
    assert (experiment.critic.depth, experiment.training.epochs) == (2, 9)
    assert experiment.segmentor.optimizer == "rmsprop"


def test_the_error_of_an_unknown_preset_names_all_presets() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'paper'\? There are: authors-brats"):
        load_preset("papr")


@pytest.mark.parametrize(
    "assignments",
    [
        ["resources.gpus_per_worker=0.25"],
        ["resources.gpus_per_worker=auto", "resources.workers=4"],
        ["resources.gpus_per_worker=2"],
        ["resources.gpus_per_worker=1", "resources.workers=4"],
        ["resources.gpus_per_worker=0", "resources.workers=4"],
        ["resources.retries=0"],
    ],
)
def test_valid_resources(assignments: list[str]) -> None:
    load_experiment(None, assignments)


@pytest.mark.parametrize(
    ("assignments", "words"),
    [
        (
            ["resources.gpus_per_worker=0.5", "resources.workers=2"],
            "gpus_per_worker 0.5 with 2 workers: workers that train one model need a GPU each",
        ),
        (["resources.gpus_per_worker=1.5"], "gpus_per_worker 1.5: above 1 it must be whole"),
        (["resources.gpus_per_worker=-1"], "resources.gpus_per_worker is -1"),
        (["resources.gpus_per_worker=.nan"], "resources.gpus_per_worker is nan"),
        (["resources.gpus_per_worker=all"], "resources.gpus_per_worker is 'all'"),
        (["resources.retries=-1"], "resources.retries is -1"),
        (["resources.retries=1.5"], "resources.retries is 1.5"),
    ],
)
def test_invalid_resources(assignments: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_experiment(None, assignments)
    assert words in str(caught.value)


def test_a_lost_trial_begins_again_by_default() -> None:
    assert Experiment().resources.retries == 2


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("segmentor.base_width=1000000", "less than or equal to 1024"),
        ("critic.base_width=1000000", "less than or equal to 1024"),
        ("training.epochs=1000000000000000000", "less than or equal to 100000"),
        ("training.batch_size=100000", "less than or equal to 4096"),
        ("training.accumulate=100000", "less than or equal to 4096"),
        ("training.steps_per_epoch=10000000", "less than or equal to 1000000"),
        ("training.crop=1000000", "less than or equal to 4096"),
        ("training.halve_every=1000000", "less than or equal to 100000"),
        ("training.patience=1000000", "less than or equal to 100000"),
        ("critic.steps=1000", "less than or equal to 100"),
        ("data.fold=100000", "less than 1000"),
        ("resources.workers=1000000", "less than or equal to 1024"),
        ("resources.cpus_per_worker=1e300", "less than or equal to 1024"),
        ("resources.gpus_per_worker=1000", "less than or equal to 64"),
        ("resources.retries=1000000000", "less than or equal to 100"),
    ],
)
def test_no_size_is_without_an_upper_bound(assignment: str, words: str) -> None:
    path, *_ = assignment.partition("=")
    with pytest.raises(ConfigError, match=rf"{path} is .*{words}"):
        load_experiment(None, [assignment])


@pytest.mark.parametrize(
    ("settings", "network"),
    [
        (["segmentor.base_width=1024"], "segmentor"),
        (["segmentor.base_width=1024", "segmentor.depth=6", "segmentor.skip=add"], "segmentor"),
        (["variant=unet", "segmentor.base_width=1024"], "segmentor"),
        (["critic.base_width=1024", "critic.depth=6"], "critic"),
    ],
)
def test_networks_that_would_fill_memory_are_refused(settings: list[str], network: str) -> None:
    words = rf"{network}\.base_width 1024 and .* a network of [\d,]+ million weights; expected"
    with pytest.raises(ConfigError, match=words):
        load_experiment(None, settings)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("variant", ["s1-3c", "s3-3c"])
@pytest.mark.parametrize("depth", [2, 4, 6])
def test_weights_are_counted_as_the_networks_have_them(
    network: str, variant: str, depth: int
) -> None:
    settings = [f"variant={variant}", f"segmentor.depth={depth}", *network.split()]
    experiment = load_experiment(None, settings)
    with torch.device("meta"):
        built = build_segmentor(experiment)
    one = built.segmentors[0] if variant == "s3-3c" else built
    actual = sum(weights.numel() for weights in one.parameters() if weights.dim() == 4)
    maps = 1 if variant == "s3-3c" else 3
    assert actual == segmentor_weights(experiment.segmentor, 4, maps)


@pytest.mark.parametrize("kind", ["per-region", "joint"])
@pytest.mark.parametrize("takes", ["product", "concat"])
@pytest.mark.parametrize("depth", [1, 3, 6])
def test_weights_of_a_critic_are_counted_as_it_has_them(kind: str, takes: str, depth: int) -> None:
    settings = [f"critic.kind={kind}", f"critic.input={takes}", f"critic.depth={depth}"]
    experiment = load_experiment(None, settings)
    with torch.device("meta"):
        critic = build_critic(experiment)
    one = critic.critics[0] if kind == "per-region" else critic.critic
    actual = sum(weights.numel() for weights in one.parameters() if weights.dim() == 4)
    channels = critic_channels(experiment.critic)
    assert actual == sizes.critic_weights(channels, depth, experiment.critic.base_width)
