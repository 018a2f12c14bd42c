"""RAY_ADDRESS: what cannot be joined is said at once, and in words."""

from __future__ import annotations

import socket

import pytest

from segan_ray.errors import SweepError
from segan_ray.orchestration.address import check_address


def test_an_address_where_something_listens_is_good() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        check_address(f"127.0.0.1:{server.getsockname()[1]}")
    check_address("auto")


def test_an_address_where_nothing_listens_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(SweepError, match=rf"answers at RAY_ADDRESS=127.0.0.1:{port} \(Connection"):
        check_address(f"127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://head:8265", "segan-ray submit --address http://head:8265"),
        ("https://head", "is a dashboard's"),
        ("ray://head:10001", "is for Ray Client"),
        ("head", "is not HOST:PORT"),
        ("head:", "is not HOST:PORT"),
        (":6379", "is not HOST:PORT"),
        ("head:70000", "is not HOST:PORT"),
        ("head:port", "is not HOST:PORT"),
    ],
)
def test_an_address_of_another_kind_is_refused_with_the_right_form(address, words) -> None:
    with pytest.raises(SweepError, match="RAY_ADDRESS=HOST:PORT, as head:6379") as refused:
        check_address(address)
    assert words in str(refused.value)
