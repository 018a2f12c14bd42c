"""Admitting only its owner to a server on loopback, by a secret that each start draws.

Every user of a machine reaches every port on its loopback. So our server refuses, at every path,
requests without its secret. A browser brings the secret in the first address and in a cookie from
then on, a client in a header.
"""

from __future__ import annotations

import secrets
from typing import Final
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

TOKEN: Final = "token"  # noqa: S105 - its name in the address
REFUSAL: Final = (
    "This MLflow UI is its owner's alone. Open the whole address that segan-ray ui printed when it "
    "started, with the token in it.\nAn MLflow client needs that token in MLFLOW_TRACKING_TOKEN.\n"
)
_BEARER: Final = "bearer "
_UNKEPT: Final = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


def new_secret() -> str:
    """Return a secret of 256 bits that an address and a header can hold as it is."""
    return secrets.token_urlsafe(32)


class OwnerOnly:
    """An ASGI application that passes on only requests with ``secret``, without the secret.

    ``port`` names the cookie: a browser sends a cookie to every port of its host.
    """

    def __init__(self, app: ASGIApp, secret: str, port: int) -> None:
        self._app = app
        self._secret = secret
        self._cookie = f"segan-ray-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif (answer := self._answer(scope)) is None:
            await self._app(self._without_secret(scope), receive, send)
        elif scope["type"] == "websocket":
            # To close it before it is accepted makes servers answer with 403.
            await send({"type": "websocket.close", "code": 1008})
        else:
            await answer(scope, receive, send)

    def _answer(self, scope: Scope) -> Response | None:
        """Return the answer in the application's place, or None to pass the request on."""
        if scope["path"] == "/":
            query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
            if tokens := [value for name, value in query if name == TOKEN]:
                return self._welcome(query) if all(map(self._is_secret, tokens)) else _refusal()
        headers = Headers(scope=scope)
        if any(map(self._is_bearer, headers.getlist("authorization"))):
            return None
        if any(map(self._is_own_cookie, _cookies(headers))) and not _is_of_another_page(headers):
            return None
        return _refusal()

    def _welcome(self, query: list[tuple[str, str]]) -> Response:
        """Answer the address with the token: the cookie, and the same address without it."""
        rest = urlencode([(name, value) for name, value in query if name != TOKEN])
        response = RedirectResponse(f"./?{rest}" if rest else "./", 303, _UNKEPT)
        # "strict" would refuse a user who follows a link to a run from a notebook or a wiki.
        response.set_cookie(self._cookie, self._secret, httponly=True, samesite="lax", path="/")
        return response

    def _is_secret(self, text: str) -> bool:
        return secrets.compare_digest(text.encode("utf-8", "replace"), self._secret.encode())

    def _is_bearer(self, value: str) -> bool:
        # Names of schemes may be in upper or lower case.
        scheme, given = value[: len(_BEARER)], value[len(_BEARER) :]
        return scheme.lower() == _BEARER and self._is_secret(given.strip())

    def _is_own_cookie(self, pair: str) -> bool:
        name, _, value = pair.partition("=")
        return name == self._cookie and self._is_secret(value)

    def _without_secret(self, scope: Scope) -> Scope:
        """Return ``scope`` as the application sees it."""
        headers = Headers(scope=scope)
        others = "; ".join(
            pair for pair in _cookies(headers) if not pair.startswith(f"{self._cookie}=")
        )
        kept = [
            (name, value)
            for name, value in headers.raw
            if name != b"cookie"
            and not (name == b"authorization" and self._is_bearer(value.decode("latin-1")))
        ]
        return {
            **scope,
            "headers": [*kept, (b"cookie", others.encode("latin-1"))] if others else kept,
        }


def _cookies(headers: Headers) -> list[str]:
    """Return each ``name=value``, also of a name that comes twice."""
    return [pair.strip() for line in headers.getlist("cookie") for pair in line.split(";")]


def _is_of_another_page(headers: Headers) -> bool:
    """Tell whether a browser sends the request from a page of another host or port.

    A browser sends its cookies with the requests of any page. Following a link is harmless.
    """
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != headers.get("host"):
        return True
    followed = headers.get("sec-fetch-mode") == "navigate"
    return headers.get("sec-fetch-site") in {"same-site", "cross-site"} and not followed


def _refusal() -> Response:
    return PlainTextResponse(REFUSAL, 403, _UNKEPT)
