"""How many trials fit on a cluster, and the error when none does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segan_ray.errors import SweepError
from segan_ray.orchestration.cluster.capacity import (
    Node,
    check_fits,
    gpus_for_each,
    how_many_fit,
    idle_gpus,
)

GIB = 2**30
MEMORY = 300 * 2**20


def node(cpus: float = 0, gpus: float = 0, memory: float = 64 * GIB) -> Node:
    return Node("node", cpus, gpus, memory)


@pytest.mark.parametrize(
    ("nodes", "workers", "cpus", "gpus", "expected"),
    [
        ([node(8)], 1, 1, 0, 8),
        ([node(8)], 3, 1, 0, 2),
        ([node(8)], 1, 16, 0, 0),
        ([node(2), node(2)], 1, 4, 0, 0),
        ([node(3), node(3)], 1, 2, 0, 2),
        ([node(3), node(3)], 2, 2, 0, 1),
        ([node(8, 1)], 4, 1, 0.25, 1),
        ([node(8, 1)], 1, 1, 0.5, 2),
        ([node(8, 2)], 1, 1, 0.6, 2),
        ([node(8, 2)], 1, 1, 0.75, 2),
        ([node(8, 1), node(8, 1)], 1, 1, 2, 0),
        ([node(8, 3)], 1, 1, 2, 1),
        ([node(8), node(0, 8)], 1, 1, 1, 0),
        ([node(0.3)], 3, 0.1, 0, 1),
        ([node(64, 1)], 3, 1, 1 / 3, 1),
        ([node(64, 1)], 10, 1, 0.1, 1),
        ([], 1, 1, 0, 0),
    ],
)
def test_counts_one_can_check_by_hand(nodes, workers, cpus, gpus, expected) -> None:
    assert how_many_fit(nodes, workers, cpus, gpus, 0) == expected


def test_each_trial_takes_memory_for_its_driver_on_one_node() -> None:
    small = node(8, memory=2.5 * MEMORY)
    assert how_many_fit([small], 1, 1, 0, MEMORY) == 2
    # Half a driver's memory on each of two nodes is too little for a driver.
    assert how_many_fit([small, small], 1, 1, 0, MEMORY) == 4
    # The driver may be on another node than its workers.
    assert how_many_fit([node(8, memory=0), node(0, memory=3 * MEMORY)], 1, 1, 0, MEMORY) == 3


@pytest.mark.parametrize(
    ("nodes", "workers", "cpus", "gpus", "message"),
    [
        (
            [node(2), node(2)], 1, 4, 0,
            "One worker asks for 4 CPU, the largest node has 2 (the cluster 4 on 2 nodes). "
            "Lower resources.cpus_per_worker.",
        ),
        (
            [node(2)], 4, 1, 0,
            "One trial asks for 4 CPU (4 workers of 1), the cluster has 2. "
            "Lower resources.workers or resources.cpus_per_worker.",
        ),
        (
            [node(2)], 1, 1, 1,
            "One trial asks for 1 GPU (1 worker), the cluster has 0. "
            "Lower resources.gpus_per_worker.",
        ),
        (
            [node(8, 1), node(8, 2)], 4, 1, 1,
            "One trial asks for 4 GPU (4 workers of 1), the cluster has 3 (the largest node 2). "
            "Lower resources.workers or resources.gpus_per_worker.",
        ),
        (
            [node(3), node(3)], 3, 2, 0,
            "One trial asks for 3 workers of 2 CPU each, and a worker cannot be split between "
            "nodes: the 2 nodes have room for 2. Lower resources.workers or "
            "resources.cpus_per_worker.",
        ),
        (
            [node(8), node(0, 8)], 1, 1, 1,
            "One trial asks for a worker of 1 CPU and 1 GPU, and a worker cannot be split "
            "between nodes or GPUs: the 2 nodes have room for none. Lower "
            "resources.cpus_per_worker or resources.gpus_per_worker.",
        ),
        (
            [node(8, 3)], 4, 1, 0.75,
            "One trial asks for 4 workers of 1 CPU and 0.75 GPU each, and a worker cannot be "
            "split between nodes or GPUs: the node has room for 3. Lower resources.workers or "
            "resources.cpus_per_worker or resources.gpus_per_worker.",
        ),
        (
            [node(8, 8)], 1, 1, 1.5,
            "resources.gpus_per_worker is 1.5. Ray shares out a single GPU in parts and several "
            "only whole: give at most 1, or a whole number.",
        ),
        (
            [node(2, memory=100 * 2**20)], 1, 1, 0,
            "One trial asks for 300 MiB of memory on one node for its driver, the largest node "
            "offers 100 MiB. Use machines with more memory, or start Ray with a larger --memory.",
        ),
        (
            [], 1, 1, 0,
            "One trial asks for 1 CPU (1 worker), the cluster has 0. "
            "Lower resources.cpus_per_worker.",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_with_numbers(nodes, workers, cpus, gpus, message) -> None:
    with pytest.raises(SweepError) as caught:
        check_fits(nodes, workers, cpus, gpus, MEMORY)
    assert str(caught.value) == message


amounts = st.integers(0, 160_000).map(lambda units: units / 10_000)
clusters = st.lists(
    st.builds(node, amounts, st.integers(0, 8), st.integers(0, 8 * MEMORY)), max_size=5
)
trials = st.tuples(
    st.integers(1, 6),
    st.integers(1, 80_000).map(lambda units: units / 10_000),
    st.one_of(
        st.just(0.0),
        st.integers(1, 10_000).map(lambda units: units / 10_000),
        st.integers(2, 8).map(float),
    ),
    st.sampled_from([0, MEMORY, 2 * MEMORY]),
)


def really_placed(nodes, wanted: int, workers: int, cpus: float, gpus: float, memory: int) -> bool:
    """Place every worker and driver one after the other, as a cluster would; tell if all fit."""
    unit = 10_000
    cpu = [round(each.cpus * unit) for each in nodes]
    gpu = [[unit] * int(each.gpus) for each in nodes]
    free = [each.memory_bytes for each in nodes]
    need, share = max(1, round(cpus * unit)), round(gpus * unit)
    for _ in range(wanted * workers):
        for index, devices in enumerate(gpu):
            taken = [place for place, left in enumerate(devices) if left >= min(share, unit)]
            count = max(1, share // unit) if share else 0
            if share > unit:
                taken = [place for place in taken if devices[place] == unit]
            if cpu[index] >= need and len(taken) >= count:
                cpu[index] -= need
                for place in taken[:count]:
                    devices[place] -= min(share, unit)
                break
        else:
            return False
    for _ in range(wanted if memory else 0):
        index = next((place for place, left in enumerate(free) if left >= memory), None)
        if index is None:
            return False
        free[index] -= memory
    return True


@given(clusters, trials)
def test_as_many_as_are_promised_can_be_placed_and_no_more(nodes, trial) -> None:
    fit = how_many_fit(nodes, *trial)
    assert really_placed(nodes, min(fit, 40), *trial)
    if fit < 40:
        assert not really_placed(nodes, fit + 1, *trial)


@given(clusters, trials, st.data())
def test_more_resources_never_hold_fewer_trials(nodes, trial, data) -> None:
    workers, cpus, gpus, memory = trial
    before = how_many_fit(nodes, *trial)
    assert how_many_fit([*nodes, node(4, 1)], *trial) >= before
    assert how_many_fit(nodes, workers + 1, cpus, gpus, memory) <= before
    assert how_many_fit(nodes, workers, cpus * 1.5, gpus, memory) <= before
    if nodes:
        index = data.draw(st.integers(0, len(nodes) - 1))
        larger = replace(
            nodes[index],
            cpus=nodes[index].cpus + 1,
            gpus=nodes[index].gpus + 1,
            memory_bytes=nodes[index].memory_bytes + GIB,
        )
        assert how_many_fit([*nodes[:index], larger, *nodes[index + 1 :]], *trial) >= before


@given(clusters, trials)
def test_the_check_refuses_exactly_what_does_not_fit(nodes, trial) -> None:
    if how_many_fit(nodes, *trial):
        check_fits(nodes, *trial)
    else:
        with pytest.raises(SweepError) as caught:
            check_fits(nodes, *trial)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("nodes", "workers", "cpus", "gpus", "words"),
    [
        ([node(8)], 1, 1, 0, None),
        ([node(8, 4)], 1, 1, 1, "Training on GPUs, one for each worker: the cluster has 4 GPUs."),
        ([node(8, 1)], 1, 1, 1, "the cluster has 1 GPU. To train on CPUs: --set resources.gpus"),
        ([node(8, 2), node(8, 2)], 4, 1, 1, "the cluster has 4 GPUs"),
        ([node(8, 1)], 4, 1, 0, "the cluster has 1 GPU, but no room for 4 workers of 1 CPU with"),
        ([node(2, 2)], 2, 2, 0, "no room for 2 workers of 2 CPU with one GPU each"),
        ([node(8), node(0, 8)], 1, 1, 0, "Training on CPUs: the cluster has 8 GPUs, but no room"),
    ],
)
def test_workers_get_a_gpu_where_there_is_one_for_each(nodes, workers, cpus, gpus, words) -> None:
    chosen, said = gpus_for_each(nodes, workers, cpus)
    assert chosen == gpus
    assert (said is None) if words is None else (words in (said or ""))
    if gpus:
        check_fits(nodes, workers, cpus, gpus, 0)


def test_gpus_that_nothing_trains_on_are_said() -> None:
    assert idle_gpus([node(8)]) is None
    said = idle_gpus([node(8, 1), node(8, 1)]) or ""
    assert "resources.gpus_per_worker is 0; the cluster has 2 GPUs" in said
    assert said.endswith("--set resources.gpus_per_worker=1")
