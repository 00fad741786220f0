"""What a server is started with: checked once, passed in, never changed."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from ..model.backends import BackendName
    from ..model.ort_providers import Device

DEFAULT_PORT = 8377
DEFAULT_TTL_S = 600.0
SMALLEST_TOKEN = 16
"""Characters; ours has 43. What a person chooses shorter than this can be guessed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How a library is served.

    `model`, `backend`, `device`, `precision`: as for `Library.open`. `host`: the address to listen on;
    `port` 0 is any free one. `token`: what every client must show; None on loopback only. `model_ttl_s`:
    models are unloaded after so many seconds without a use, 0 keeps them. `max_searches` run at once and
    `max_waiting` wait for their turn; further ones are told to come again. `allow_remote_urls`: whether
    inputs of the `/v1` routes may be fetched from elsewhere; `allow_local_paths`: whether they may be files
    below indexed folders. `page`: the folder of the page's files; None serves none. `allowed_hosts`: further
    names that this server is known by, without a port. `can_pick_folder`: whether the window around the page
    has a way to choose a folder.
    """

    library: Path
    model: str | None = None
    backend: BackendName | None = None
    device: Device = "cpu"
    precision: str | None = None
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    token: str | None = None
    model_ttl_s: float = DEFAULT_TTL_S
    max_body_bytes: int = 64 << 20
    max_searches: int = 4
    max_waiting: int = 16
    allow_remote_urls: bool = False
    allow_local_paths: bool = False
    page: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    can_pick_folder: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise InputError(f"port {self.port}: a port is a number from 0 to 65535; 0 takes any free one.")
        if self.model_ttl_s < 0:
            raise InputError(f"model_ttl_s {self.model_ttl_s:g}: give seconds, or 0 to keep the models.")
        if min(self.max_body_bytes, self.max_searches) < 1 or self.max_waiting < 0:
            raise InputError("A server needs room for a request: its limits must be at least 1.")
        if self.token is not None and len(self.token) < SMALLEST_TOKEN:
            raise InputError(f"The token has fewer than {SMALLEST_TOKEN} characters and could be guessed.")
        if self.token is None and not is_loopback(self.host):
            raise InputError(
                f"host {self.host}: other machines could reach the library there, so a token is needed."
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address. A name is loopback only when it is `localhost`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return False


def is_wildcard(host: str) -> bool:
    """Whether an address stands for all addresses of this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return host == ""
