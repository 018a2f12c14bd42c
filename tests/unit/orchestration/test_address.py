"""RAY_ADDRESS: an address that cannot be joined is refused at once, in words."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from segan_ray.errors import SweepError
from segan_ray.orchestration.cluster import address as addresses
from segan_ray.orchestration.cluster.address import CLUSTER_ID, check_cluster, check_reachable

Answer = Callable[[bytes, grpc.ServicerContext], bytes]


@contextmanager
def listening() -> Iterator[str]:
    """Give the address of a socket that takes connections and does not answer."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def control_service(answer: Answer) -> Iterator[str]:
    """Serve ``answer`` to Ray's first question, and give the address."""
    service, _, method = CLUSTER_ID.strip("/").rpartition("/")
    handler = grpc.unary_unary_rpc_method_handler(answer)
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def only_with(token: str) -> Answer:
    """Answer as Ray does where it asks for a token."""

    def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
        sent = dict(context.invocation_metadata())
        if f"Bearer {token}" not in sent.values():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
        return b"id"

    return answer


@pytest.mark.parametrize("address", ["", "local", "auto"])
def test_an_address_that_ray_finds_by_itself_is_not_checked(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    check_reachable()


def test_an_address_where_something_listens_is_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        check_reachable()


def test_an_address_where_nothing_listens_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as address:
        pass
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(SweepError, match=rf"answers at RAY_ADDRESS={address} \(Connection"):
        check_reachable()


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
def test_an_address_of_another_kind_is_refused_with_the_right_form(
    address: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(SweepError, match="RAY_ADDRESS=HOST:PORT, as head:6379") as refused:
        check_reachable()
    assert words in str(refused.value)


def test_a_cluster_answers() -> None:
    with control_service(lambda *_: b"id") as address:
        check_cluster(address)


def test_what_listens_and_is_no_cluster_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "CONNECT_S", 0.5)
    with listening() as address, pytest.raises(SweepError, match="there says nothing"):
        check_cluster(address)
    monkeypatch.setattr(addresses, "CLUSTER_ID", "/another/Service")
    with (
        control_service(lambda *_: b"id") as address,
        pytest.raises(SweepError, match="what listens there is not Ray"),
    ):
        check_cluster(address)


def test_a_cluster_that_asks_for_a_token_says_which_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with control_service(only_with("right")) as address:
        with pytest.raises(SweepError, match=r"its token, and this process sends none\. Set RAY_A"):
            check_cluster(address)
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
        with pytest.raises(SweepError, match="the one of this process is another"):
            check_cluster(address)
