"""The socket of a process's admin port, apart from what is answered there.

A worker's socket is opened before anything is loaded that counts.
"""

from __future__ import annotations

import socket

from config.sections import AdminSettings
from config.values import Role


class AdminPortError(Exception):
    """The admin port cannot be opened; the message names the setting."""


def open_listener(settings: AdminSettings, role: Role) -> socket.socket | None:
    """Return the listening socket of `role`, None where the settings want none.

    Raises:
        AdminPortError: it cannot be opened.
    """
    if settings.fd >= 0:
        return socket.socket(fileno=settings.fd)
    port = settings.port_of(role)
    if port == 0:
        return None
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, port), family=family)
    except OSError as error:
        raise AdminPortError(
            f"admin.{role}_port: cannot listen on {settings.host}, port {port}: "
            f"{error.strerror or error}; give every process of a host a port of its own, or 0"
        ) from error
