"""Our server admits only requests with the secret of this start."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segan_ray.tracking.ui.access import REFUSAL, OwnerOnly, new_secret

PORT = 5000
# Not drawn: the processes that share the tests out must agree on their names.
SECRET = "hMCl12-I4OHrEGDXKzliJWLXZvXqX7ku43dZ55bwBPU"
ANOTHER = "32yQkJQvQKBGIFjFd7EkhZMtlTOHdLuuSkxs1TYm5Tk"
BEARER = {"Authorization": f"Bearer {SECRET}"}
COOKIE = {"Cookie": f"segan-ray-{PORT}={SECRET}"}
WRONG = ("", "token", SECRET[:-1], f"{SECRET}x", SECRET.swapcase(), "ü", "%00", ANOTHER)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
PATHS = (
    "/", "//", "/health", "/version", "/get-artifact?path=x", "/static-files/main.js", "/graphql",
    "/ajax-api/2.0/mlflow/experiments/search", "/api/2.0/mlflow-artifacts/artifacts/x",
    "/model-versions/get-artifact", "/v1/traces", "/%2e%2e/", "/token", "/nowhere",
)  # fmt: skip


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def told(self) -> dict[str, Any]:
        """What the application was told, which it answers with."""
        return dict(json.loads(self.text))


async def behind(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers with what it is told of the request."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    told = {name.decode(): value.decode() for name, value in scope["headers"]}
    body = json.dumps({**told, "query": scope["query_string"].decode()}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def sent(app: Any, kind: str, method: str, url: str, headers: list[tuple[str, str]]) -> list[Any]:
    """Return what ``app`` sends in answer to one request, as a server would pass it on."""
    messages: list[Any] = []
    parts = urlsplit(url)

    async def send(message: Any) -> None:
        messages.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing of a body is read")

    raw = [(b"host", f"127.0.0.1:{PORT}".encode())]
    raw += [(name.lower().encode(), value.encode("utf-8")) for name, value in headers]
    scope = {
        "type": kind, "method": method, "path": unquote(parts.path),
        "query_string": parts.query.encode(), "headers": raw,
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return messages


def ask(url: str, *headers: dict[str, str], method: str = "GET") -> Answer:
    pairs = [pair for group in headers for pair in group.items()]
    start, body = sent(OwnerOnly(behind, SECRET, PORT), "http", method, url, pairs)
    named = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], named, body["body"].decode())


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_answered_without_the_secret(method: str, path: str) -> None:
    answer = ask(path, method=method)
    assert (answer.status, answer.text) == (403, REFUSAL)
    assert answer.headers["cache-control"] == "no-store"
    assert ask(path, BEARER, method=method).status == 200
    assert ask(path, COOKIE, method=method).status == 200


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_secret_is_none(wrong: str) -> None:
    tries = [
        ask(f"/?token={wrong}"),
        ask("/", {"Authorization": f"Bearer {wrong}"}),
        ask("/", {"Cookie": f"segan-ray-{PORT}={wrong}"}),
        ask(f"/?token={wrong}", COOKIE),
        ask(f"/?token={SECRET}&token={wrong}"),
    ]
    for answer in tries:
        assert (answer.status, answer.text) == (403, REFUSAL)
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Basic {SECRET}"},
        {"Authorization": SECRET},
        {"Cookie": f"segan-ray-5001={SECRET}; other={SECRET}; {SECRET}"},
        {"X-Token": SECRET},
    ],
    ids=str,
)
def test_the_secret_in_another_place_is_none(headers: dict[str, str]) -> None:
    assert ask("/", headers).status == 403
    assert ask(f"/health?token={SECRET}", headers).status == 403


def test_the_address_is_changed_for_a_cookie_and_shows_the_secret_no_longer() -> None:
    answer = ask(f"/?a=1+2&token={SECRET}")
    assert (answer.status, answer.headers["location"]) == (303, "./?a=1+2")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    cookie, *attributes = answer.headers["set-cookie"].split("; ")
    assert {"httponly", "path=/", "samesite=lax"} == set(map(str.lower, attributes))
    after = ask("/?a=1+2", {"Cookie": cookie})
    assert (after.status, after.told["query"]) == (200, "a=1+2")
    assert ask(f"/?token={SECRET}").headers["location"] == "./"


def test_the_secret_goes_no_further() -> None:
    assert ask("/x", BEARER).told.keys() == {"host", "query"}
    assert ask("/x", COOKIE).told.keys() == {"host", "query"}
    cookies = {"Cookie": f"a=1; segan-ray-{PORT}=old; {COOKIE['Cookie']}; b=2"}
    told = ask("/x", cookies, {"Authorization": "Basic abc"}).told
    assert (told["authorization"], told["cookie"]) == ("Basic abc", "a=1; b=2")
    assert ask("/x", {"Authorization": f"bearer  {SECRET}"}).status == 200


PAGES_OF_OTHERS: tuple[dict[str, str], ...] = (
    {"Origin": "http://127.0.0.1:8000"},
    {"Origin": f"http://localhost:{PORT}"},
    {"Origin": "null"},
    {"Origin": f"http://127.0.0.1:{PORT}.evil.org"},
    {"Origin": "http://[evil"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"},
    {"Origin": "https://evil.org", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
)
OWN_PAGES: tuple[dict[str, str], ...] = (
    {"Origin": f"http://127.0.0.1:{PORT}", "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
    # A link in a notebook at localhost, or in a wiki.
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
)


@pytest.mark.parametrize("headers", PAGES_OF_OTHERS, ids=str)
def test_a_cookie_does_not_work_for_the_page_of_somebody_else(headers: dict[str, str]) -> None:
    """A browser keeps cookies apart by host, not by port: another user's page has them sent."""
    for method in ("GET", "POST"):
        assert ask("/x", COOKIE, headers, method=method).status == 403
        # No browser adds this by itself.
        assert ask("/x", BEARER, headers, method=method).status == 200


@pytest.mark.parametrize("headers", OWN_PAGES, ids=str)
def test_a_cookie_works_for_its_own_page(headers: dict[str, str]) -> None:
    assert ask("/x", COOKIE, headers).status == 200


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ({}, "websocket.close"),
        ({"Cookie": f"segan-ray-{PORT}=wrong"}, "websocket.close"),
        ({**COOKIE, **PAGES_OF_OTHERS[0]}, "websocket.close"),
        (COOKIE, "websocket.accept"),
    ],
    ids=str,
)
def test_sockets_are_let_in_alike(headers: dict[str, str], answer: str) -> None:
    app = OwnerOnly(behind, SECRET, PORT)
    (first,) = sent(app, "websocket", "GET", "/talk", list(headers.items()))
    assert first["type"] == answer


@given(
    path=st.text(),
    query=st.binary(),
    headers=st.lists(
        st.tuples(st.sampled_from([b"cookie", b"authorization", b"origin", b"host"]), st.binary())
    ),
)
def test_any_request_without_the_secret_is_refused(
    path: str, query: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    async def within(*_: object) -> None:
        raise AssertionError("was let in")

    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {"type": "http", "path": path, "query_string": query, "headers": headers}
    asyncio.run(OwnerOnly(within, SECRET, PORT)(scope, None, send))  # type: ignore[arg-type]
    assert messages[0]["status"] == 403


def test_secrets_are_drawn_anew() -> None:
    assert len({new_secret() for _ in range(100)}) == 100
    assert len(SECRET) == 43
