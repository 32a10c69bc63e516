"""The second gate: asked for each address at the moment at which it would be dialled.

The rules are `delivery.egress`'s. What is added here is the one thing that they cannot know: which
addresses this machine has. A public name may stand for them, and what listens there may trust
whoever comes from this machine.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from delivery.egress import Policy, check_address
from delivery.errors import DestinationDenied

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
"""family, type, protocol, canonical name, socket address: as `socket.getaddrinfo` gives it."""

_ANY_PORT = 9


def is_own_address(address: str) -> bool:
    """Tell whether `address` is one of this machine's; nothing is sent.

    A datagram socket that is connected to an address of the machine itself gets that very address
    as its own. What is asked is the system's routing, so it holds for addresses that come and go.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, _ANY_PORT))
            return ip_address(probe.getsockname()[0]) == ip_address(address)
    except OSError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Says whether an address may be dialled.

    Attributes:
        policy: the rules.
        is_own: tells the machine's own addresses, which are dialled only where a setting opens
            them.
    """

    policy: Policy
    is_own: Callable[[str], bool] = is_own_address

    def __call__(self, host: str, address: str, port: int) -> None:
        """Return when `address`, which `host` stands for, may be dialled at `port`.

        Raises:
            DestinationDenied: it may not.
        """
        ground = check_address(address, self.policy, host=host, port=port)
        if ground == "public" and self.is_own(address):
            raise DestinationDenied


def anywhere(_host: str, _address: str, _port: int) -> None:
    """Let every address pass: for what the operator named in the settings."""
