"""``RAY_ADDRESS``: whether a sweep can join a cluster there, and whether a cluster answers."""

from __future__ import annotations

import os
import socket
from typing import Final

from segan_ray.errors import SweepError, said

CONNECT_S: Final = 4.0
UNCHECKED: Final = ("", "local", "auto")
"""Values with which Ray starts a cluster of its own, or looks for the cluster of this machine."""
CLUSTER_ID: Final = "/ray.rpc.NodeInfoGcsService/GetClusterId"
"""Ray's own first request; its control service answers only clients that it admits."""
FORM: Final = "To join a cluster from one of its machines set RAY_ADDRESS=HOST:PORT, as head:6379."


def no_answer(address: str, reason: str = "") -> SweepError:
    """Return the error that no cluster answers at ``address``."""
    return SweepError(
        f"No Ray cluster answers at RAY_ADDRESS={address}{reason and f' ({reason})'}. Start it, "
        "correct the address, or unset it to run on this machine."
    )


def check_reachable() -> None:
    """Make sure that something listens at ``RAY_ADDRESS``, if set: Ray would try for ten minutes.

    This runs before Ray is imported, which takes seconds.

    Raises:
        SweepError: if nothing listens there, or if the address is of another kind.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    if address in UNCHECKED:
        return
    scheme, _, target = address.rpartition("://")
    if scheme in ("http", "https"):
        raise SweepError(
            f"RAY_ADDRESS={address} is a dashboard's, which takes jobs: segan-ray submit --address "
            f"{address} -- tune …. {FORM}"
        )
    if scheme:
        raise SweepError(
            f"RAY_ADDRESS={address} is for Ray Client, by which no sweep can be run. {FORM} From "
            "elsewhere send it as a job: segan-ray submit."
        )
    host, _, port = target.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise SweepError(f"RAY_ADDRESS={address} is not HOST:PORT. {FORM}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise no_answer(address, error.strerror or str(error)) from None


def check_cluster(address: str) -> None:
    """Make sure that a cluster answers this process at ``address``, HOST:PORT.

    Raises:
        SweepError: if no Ray cluster listens there, or if it asks for a token not set here.
    """
    import grpc
    from ray._private.grpc_utils import init_grpc_channel
    from ray.exceptions import AuthenticationError

    try:
        # As Ray would: with its TLS and its token, and past every proxy.
        with init_grpc_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
            channel.unary_unary(CLUSTER_ID)(b"", timeout=CONNECT_S)
    except AuthenticationError as error:
        raise no_token(address, error) from None
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            is_sent = os.environ.get("RAY_AUTH_MODE") == "token"
            what = "the one of this process is another" if is_sent else "this process sends none"
            raise refused(address, what) from None
        silent = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        what = "what listens there says nothing" if silent else "what listens there is not Ray"
        raise no_answer(address, what) from None


def no_token(address: str, error: Exception) -> SweepError:
    """Return the error that Ray finds no token to send, with the first sentence of Ray's advice."""
    return refused(address, said(error).partition(". ")[0])


def refused(address: str, reason: str) -> SweepError:
    """Return the error that a cluster refuses this process."""
    return SweepError(
        f"The Ray cluster at RAY_ADDRESS={address} asks for its token, and {reason}. Set "
        "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's."
    )
