"""``RAY_ADDRESS``: whether it is one that a sweep can join, and whether anybody answers there."""

from __future__ import annotations

import socket
from typing import Final

from segan_ray.errors import SweepError

CONNECT_S: Final = 4.0
FORM: Final = "To join a cluster from one of its machines set RAY_ADDRESS=HOST:PORT, as head:6379."


def nobody_answers(address: str, reason: str = "") -> SweepError:
    """Return what is said where no cluster is."""
    return SweepError(
        f"No Ray cluster answers at RAY_ADDRESS={address}{reason and f' ({reason})'}. Start it, "
        "correct the address, or unset it to run on this machine. A cluster that asks for another "
        "token than RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH has does not answer either."
    )


def check_address(address: str) -> None:
    """Make sure that something listens at ``address``: Ray itself would try for ten minutes.

    Raises:
        SweepError: if nothing does within seconds, or the address is of another kind.
    """
    if address == "auto":
        return
    scheme, _, place = address.rpartition("://")
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
    host, _, port = place.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise SweepError(f"RAY_ADDRESS={address} is not HOST:PORT. {FORM}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise nobody_answers(address, error.strerror or str(error)) from None
