from __future__ import annotations

import copy
import pickle
import re
import shutil
from pathlib import Path

import optuna
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import segan_ray
from segan_ray.errors import ConfigError
from segan_ray.search.optuna_adapters import make_pruner, make_sampler
from segan_ray.search.points.first_points import first_points
from segan_ray.search.space.arms_file import load_arms
from segan_ray.search.space.grid import grid_size
from segan_ray.search.space.objectives import METRICS
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.search.space.space_file import GROUPS, load_space, resolve_space, shipped_spaces
from segan_ray.search.space.yaml_lines import YamlLines
from tests.unit.shipped import FILES, SPACES

ROOT = Path(__file__).parents[4]
DOCUMENT = (ROOT / "docs" / "search.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
"""Of a space, and of arms."""


def refused(tmp_path: Path, text: str) -> list[tuple[int | None, str]]:
    file = tmp_path / "space.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_space(file)
    error = caught.value
    said = list(zip(error.lines, error.problems, strict=True))
    assert str(error).splitlines() == [
        f"{file}:{line}: {text}" if line else f"{file}: {text}" for line, text in said
    ]
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    return said


@pytest.mark.parametrize("file", SPACES, ids=lambda file: file.stem)
def test_every_shipped_space_loads_and_is_named_after_its_file(file: Path) -> None:
    space = load_space(file)
    assert space.name == file.stem
    assert SearchSpace.model_validate_json(space.model_dump_json()) == space


@pytest.mark.parametrize("file", SPACES, ids=lambda file: file.stem)
def test_points_of_every_shipped_space_are_experiments(file: Path) -> None:
    space = load_space(file)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for point in first_points(space).points:
        study.enqueue_trial(point)
    for _ in range(40):
        space.experiment(space.suggest(study.ask()))


def test_there_are_the_spaces_that_the_document_names() -> None:
    named = DOCUMENT.partition("## Shipped spaces")[2]
    assert set(re.findall(r"^\| `(\w+)` \|", named, re.MULTILINE)) == {f.stem for f in FILES}
    assert {file.stem for file in FILES} >= {
        "smoke", "demo", "learning_rates", "critic", "loss_scales", "full", "paper_grid",
        "segan_vs_unet",
    }  # fmt: skip


def test_the_papers_grid_is_tried_whole() -> None:
    space = load_space(shipped_spaces()["paper_grid"])
    assert space.budget.trials == grid_size(space)


def test_the_paper_is_tried_first_where_its_settings_lie_in_the_space() -> None:
    for name in ("critic", "learning_rates", "loss_scales", "full"):
        assert first_points(load_space(shipped_spaces()[name])).points, name


def test_the_space_in_the_document_loads(tmp_path: Path) -> None:
    example, _ = EXAMPLES
    file = tmp_path / "example.yaml"
    file.write_text(example)
    space = load_space(file)
    assert len(first_points(space).points) == 2
    # It shows every key there is at the top.
    keys = {field.alias or name for name, field in SearchSpace.model_fields.items()}
    assert yaml.safe_load(example).keys() == keys


def test_the_arms_in_the_document_load(tmp_path: Path) -> None:
    file = tmp_path / "arms.yaml"
    file.write_text(EXAMPLES[1])
    shutil.copyfile(ROOT / "search_spaces" / "learning_rates.yaml", tmp_path / "my-space.yaml")
    assert list(load_arms(file).spaces) == ["shallow", "deep", "mine", "paper"]


def test_the_document_names_every_key_and_type() -> None:
    for group, model in GROUPS.items():
        assert f"`{group}`" in DOCUMENT or f"`{group}." in DOCUMENT or f"{group}:" in DOCUMENT
        for name in model.model_fields:
            assert re.search(rf"\b{name}\b", DOCUMENT), f"{group}.{name}"
    for metric in METRICS:
        shown = re.sub(r"_(whole|core|enhancing)$", "_<region>", metric)
        assert f"`{shown}`" in DOCUMENT, metric


def test_the_errors_in_the_document_are_those_said(tmp_path: Path) -> None:
    text = (ROOT / "search_spaces" / "critic.yaml").read_text()
    text = text.replace("  critic.depth:", "  critic.depht:").replace(
        "  critic.lr: {type: float, low: 1.0e-5", "  critic.lr: {type: float, low: 1"
    )
    said = refused(tmp_path, text)
    assert len(said) == 2
    for line, problem in said:
        assert f"critic.yaml:{line}: {problem}\n" in DOCUMENT


def test_all_problems_are_said_at_once_with_their_lines(tmp_path: Path) -> None:
    assert refused(
        tmp_path,
        """\
name: x
name: y
base:
  training: {epochs: 2}
  critic: {widht: 3}
parameters:
  critic.dept: {type: int, low: 1, high: 2}
  critic.depth:
    type: int
    low: 1
    high: 9
  segmentor.lr: {type: float, low: 2, high: 1}
  segmentor.skip:
    type: choice
    values: [add, mul]
  loss.scale_weights: {type: floats, length: critic.dept + 1, low: 1, high: 2}
scheduler:
  type: asha
  grace_period: 3
samplr: {type: tpe}
budget:
  trials: 0
  max_concurrent: 0
""",
    ) == [
        (2, "'name' stands here and at line 1. Keep one."),
        (5, "base: unknown setting 'critic.widht'. Did you mean 'critic.base_width'?"),
        (7, "unknown parameter 'critic.dept'. Did you mean 'critic.depth'?"),
        (8, "critic.depth is 9: input should be less than or equal to 6."),
        (12, "parameters.segmentor.lr: low 2 to high 1 is no range."),
        (13, "segmentor.skip is 'mul': input should be 'add' or 'concat'."),
        (19, "scheduler.grace_period 3 is more than the 2 epochs a trial runs: nothing could ever "
             "be stopped."),
        (20, "unknown key 'samplr'. Did you mean 'sampler'?"),
        (22, "budget.trials: input should be greater than or equal to 1."),
        (23, "budget.max_concurrent: found 0, expected a count of at least 1, or auto."),
    ]  # fmt: skip


def test_what_follows_from_another_problem_is_not_said(tmp_path: Path) -> None:
    said = refused(
        tmp_path,
        """\
name: x
objective: {metric: val/dice}
base: {critic: {depth: deep}}
parameters:
  critic.lr: {type: float, low: 1, high: 0}
  segmentor.lr: {type: float, low: 0.1, high: 1, when: {critic.lr: 3}}
  loss.scale_weights: {type: floats, length: 2, low: 1, high: 2}
sampler: {type: grit}
""",
    )
    assert [line for line, _ in said] == [2, 3, 5, 8]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("objective: 3", "objective: found 3, expected a list."),
        ("objective: [3]", "objective.0: found 3, expected settings as key: value."),
        ("sampler: tpe", "sampler: found tpe, expected settings as key: value."),
        ("enqueue: paper", "enqueue: found paper, expected a list."),
        ("scheduler: {}", "scheduler: 'type' is missing."),
        ("budget: {trials: many}", "budget.trials: input should be a valid integer, unable to "
         "parse string as an integer."),
    ],
)  # fmt: skip
def test_a_wrong_shape_is_said_in_the_words_of_the_file(
    tmp_path: Path, line: str, said: str
) -> None:
    parameters = "parameters: {critic.depth: {type: int, low: 1, high: 2}}"
    assert refused(tmp_path, f"name: x\n{parameters}\n{line}\n") == [(3, said)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "parameters: 3",
        "name: [1]\nparameters: {1: 2}",
        "name: x\nparameters: {critic.lr: {type: float, low: 1}}",
        "name: x\nparameters: {critic.lr: 3, critic.depth: {type: int, low: 1, high: 2}}",
        "name: x\nparameters: {critic: {type: int, low: 1, high: 2}}",
        "name: x\nbase: {critic: 3}\nparameters: {critic.depth: {type: int, low: 1, high: 2}}",
        "name: x\nbase: 3\nparameters: {critic.depth: {type: int, low: 1, high: 2}}",
        "name: x\nbase: {1: 2}\nparameters: {critic.depth: {type: int, low: 1, high: 2}}",
        "name: x\nparameters: {critic.depth: {type: int, low: 1, high: 2, when: 3}}",
        "name: x\nparameters: {loss.scale_weights: {type: floats, length: [1], low: 1, high: 2}}",
        "name: x\nparameters: {loss: {type: floats, length: 2, low: .nan, high: 2}}",
        "name: x\nparameters: &a {critic.depth: *a}",
        "name: x\nbase: &a {critic: *a}\nparameters: {critic.depth: {type: int, low: 1, high: 2}}",
        "name: x\nobjective: &a [*a]\nparameters: {critic.depth: {type: int, low: 1, high: 2}}",
        "name: x\nenqueue: &a [*a, {x: *a}]\nparameters: {critic.depth: {type: fixed, value: *a}}",
        "name: x\nparameters: {critic.depth: &a {type: choice, values: [*a], when: *a}}",
        "name: x\n? [a, b]\n: 3",
        "name: x\nobjective: 3\nparameters: {critic.depth: {type: int, low: 1, high: 2}}",
        "name: x\nobjective: [3]\nparameters: {critic.depth: {type: int, low: 1, high: 2}}",
        "name: x\nsampler: tpe\nparameters: {critic.depth: {type: int, low: 1, high: 2}}",
        "name: x\nenqueue: paper\nparameters: {critic.depth: {type: int, low: 1, high: 2}}",
        "name: x\nenqueue: [3]\nparameters: {critic.depth: {type: int, low: 1, high: 2}}",
        "name: x\nbase: {loss: {scale_weights: [1, 2]}}\n"
        "parameters: {segmentor.depth: {type: int, low: 2, high: 3}}",
    ],
)  # fmt: skip
def test_nothing_that_is_no_space_ends_in_another_error(tmp_path: Path, text: str) -> None:
    assert refused(tmp_path, text)


def test_lines_are_those_of_keys_or_of_the_nearest_around() -> None:
    lines = YamlLines.of("a:\n  b.c: {d: 1}\n  e:\n  - f\n  - g: 2\n")
    assert lines.line(["a", "b.c", "d"]) == 2
    assert lines.line(["a", "e", 1, "g"]) == 5
    assert lines.line(["a", "float", "b.c", "missing"]) == 2
    assert lines.line(["nowhere"]) is None
    assert YamlLines.of("").line(["a"]) is None


def test_a_key_that_stands_twice_is_found_at_any_depth() -> None:
    lines = YamlLines.of("a: {b: 1, b: 2}\nc:\n- d: 1\n  d: 2\nx: &x {y: 1}\nz: *x\n")
    assert [(r.where, r.line, r.first) for r in lines.repeated()] == [
        (("a", "b"), 1, 1),
        (("c", "0", "d"), 4, 3),
    ]


def test_a_space_is_a_path_or_a_shipped_name(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_space("critic") == ROOT / "search_spaces" / "critic.yaml"
    (tmp_path / "critic").mkdir()
    assert resolve_space("critic") == ROOT / "search_spaces" / "critic.yaml"
    (tmp_path / "own.yaml").write_text("")
    assert resolve_space("own.yaml") == Path("own.yaml")
    assert resolve_space(str(tmp_path / "own.yaml")) == tmp_path / "own.yaml"


@pytest.mark.parametrize("text", ["critc", "some/where/critc.yaml", ""])
def test_an_unknown_space_is_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_space(text)
    assert "smoke" in str(caught.value)
    assert not text or "Did you mean 'critic'?" in str(caught.value)


def test_an_installed_package_has_its_spaces_inside(tmp_path: Path, monkeypatch) -> None:
    inside = tmp_path / "segan_ray" / "search_spaces"
    inside.mkdir(parents=True)
    (inside / "mine.yaml").write_text("")
    monkeypatch.setattr(segan_ray, "__file__", str(tmp_path / "segan_ray" / "__init__.py"))
    assert shipped_spaces() == {"mine": inside / "mine.yaml"}
    assert resolve_space("mine") == inside / "mine.yaml"


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 9),
    st.floats(),
    st.sampled_from(["tpe", "cmaes", "gp", "grid", "nsga2", "asha", "pbt", "none"]),
    st.sampled_from(["float", "int", "floats", "choice", "fixed", "unet", "s1-3c", "paper"]),
    st.sampled_from(["critic.depth", "critic.depth+1", "critic.lr", "variant", "1e-3"]),
    st.just(""),
    st.just([]),
    st.just({}),
    st.just([1, 2]),
    st.just({"critic.depth": 2}),
)


def places(tree: object, above: tuple = ()) -> list[tuple]:
    below = tree.items() if isinstance(tree, dict) else enumerate(tree or ())
    found = [above] if above else []
    for key, value in below:
        at = (*above, key)
        found += places(value, at) if isinstance(value, (dict, list)) else [at]
    return found


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_file_is_refused_in_words_or_every_point_can_run(
    tmp_path_factory, data: st.DataObject
) -> None:
    example, _ = EXAMPLES
    tree = yaml.safe_load(example)
    for _ in range(data.draw(st.integers(1, 3))):
        *above, last = data.draw(st.sampled_from(places(tree)))
        node = tree
        for key in above:
            node = node[key]
        if data.draw(st.integers(0, 3)):
            node[last] = copy.deepcopy(data.draw(JUNK))
        else:
            del node[last]
    file = tmp_path_factory.mktemp("spaces") / "space.yaml"
    file.write_text(yaml.safe_dump(tree))
    try:
        space = load_space(file)
    except ConfigError:
        return
    assert SearchSpace.model_validate_json(space.model_dump_json()) == space
    first_points(space)
    make_pruner(space)
    make_sampler(space, 0)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(10):
        space.experiment(space.suggest(study.ask()))


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("segmentor.base_width: {type: choice, values: [16, 10000]}", "less than or equal to 1024"),
        ("training.epochs: {type: int, low: 1, high: 1000000000000000000}", "equal to 100000"),
        ("segmentor.base_width: {type: int, low: 8, high: 1024}", "million weights"),
        (
            "segmentor.base_width: {type: int, low: 8, high: 512}\n"
            "  segmentor.depth: {type: int, low: 2, high: 6}",
            "base_width 512 with segmentor.depth 6 makes a network of more than 1,000 million",
        ),
    ],
)
def test_a_range_beyond_what_can_be_is_named(tmp_path: Path, lines: str, words: str) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(f"name: large\nparameters:\n  {lines}\n")
    with pytest.raises(ConfigError, match=words):
        load_space(file)


@pytest.mark.parametrize(
    "section",
    [
        "budget: {trials: 1000000000000000000}", "budget: {keep_checkpoints: 10000000000}",
        "budget: {max_concurrent: 10000000000}",
        "scheduler: {type: asha, grace_period: 1000000000000}",
        "scheduler: {type: hyperband, reduction_factor: 1000000000000}",
        "scheduler: {type: median, startup_trials: 1000000000000}",
        "scheduler: {type: pbt, interval: 1000000000000}",
        "sampler: {type: tpe, startup_trials: 1000000000000}",
        "sampler: {type: nsga2, population: 1000000000000}",
    ],
)  # fmt: skip
def test_a_count_beyond_what_can_be_is_named(tmp_path: Path, section: str) -> None:
    file = tmp_path / "space.yaml"
    lines = "parameters: {segmentor.lr: {type: float, low: 0.1, high: 0.2}}"
    file.write_text(f"name: large\n{lines}\n{section}\n")
    with pytest.raises(ConfigError, match=r"space\.yaml:3: .*(at most|less than or equal to) 1"):
        load_space(file)
