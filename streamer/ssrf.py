"""Addresses that strangers give us to connect to: nothing inside the network, unless the administrator says so.

A name is resolved once, every address that it has is checked, and the caller connects to the one that is given back: a
name that means something else a moment later leads nowhere new.
"""

import ipaddress
import socket
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from streamer.errors import SettingsError, UsageError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[..., Sequence[tuple[Any, ...]]]

PRIVATE_NETWORKS: Final = ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
_PORTS: Final = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_MAX_URL: Final = 2048


@dataclass(frozen=True, slots=True)
class Place:
    """Where an address leads.

    Attributes:
        host: As it was given.
        port: Given, or the scheme's own.
        address: To connect to; checked.
    """

    host: str
    port: int
    address: str


def parse_networks(texts: Collection[str]) -> tuple[Network, ...]:
    """Networks of the settings.

    Raises:
        SettingsError: One is none.
    """
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as error:
        raise SettingsError(f"api.allowed_networks holds no network: {error}; give some like 10.0.0.0/8") from error


def check_url(
    url: str, schemes: Collection[str], allowed: Sequence[Network], resolve: Resolve = socket.getaddrinfo
) -> Place:
    """Where a URL leads, if it may be connected to.

    Args:
        url: Never repeated in an error, as it may hold a password.
        schemes: Those that are taken.
        allowed: Networks that may be reached although they are not public.
        resolve: As `socket.getaddrinfo`.

    Raises:
        UsageError: It is no such URL, its name is unknown, or any of its addresses is not public and not allowed.
    """
    host, port = _parts(url, schemes)
    try:
        found = resolve(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"host {host[:80]!r} cannot be resolved; check its name") from error
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    if not addresses:
        raise UsageError(f"host {host[:80]!r} has no address; check its name")
    for address in addresses:
        if not _may_be_reached(address, allowed):
            raise UsageError(
                f"host {host[:80]!r} leads to {address}, which is not a public address; an administrator may allow its "
                "network with api.allowed_networks"
            )
    return Place(host, port, str(addresses[0]))


def _parts(url: str, schemes: Collection[str]) -> tuple[str, int]:
    expected = f"{'://, '.join(sorted(schemes))}:// is expected"
    if len(url) > _MAX_URL or any(ord(char) <= 32 or ord(char) == 127 or 0xD800 <= ord(char) < 0xE000 for char in url):
        raise UsageError(f"the URL is too long or holds a blank or control character; {expected}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"the URL cannot be understood; {expected}") from error
    if parts.scheme.lower() not in schemes:
        raise UsageError(f"a URL with scheme {parts.scheme[:16]!r} is not taken here; {expected}")
    if not host or "\\" in url:
        raise UsageError(f"the URL names no host; {expected}")
    return host, port or _PORTS[parts.scheme.lower()]


def _may_be_reached(address: Address, allowed: Sequence[Network]) -> bool:
    """Also judged by the IPv4 address that an IPv6 one may stand for."""
    meant = [address, *_embedded(address)]
    return all(
        any(one in network for network in allowed if network.version == one.version)
        or (one.is_global and not one.is_multicast)
        for one in meant
        if not (one is address and len(meant) > 1)
    )


def _embedded(address: Address) -> list[Address]:
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [one for one in found if one is not None]
