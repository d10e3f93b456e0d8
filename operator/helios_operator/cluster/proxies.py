"""Through which proxy the API server is spoken to, by HTTPS_PROXY, HTTP_PROXY and NO_PROXY as kubectl reads
them.

Called by `client`, and by `app` for kopf's connection: aiohttp, on which both stand, knows no networks such
as 10.0.0.0/8. It speaks to nobody. Pods are not its business: their channels use no proxy.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from helios_operator.errors import KubeconfigError

_PORTS = {"http": 80, "https": 443}
_WITH_PORT = re.compile(r"(?P<host>\[[^]]*\]|[^:]*):(?P<port>\d+)")
_SEPARATORS = re.compile(r"[,\s]+")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def proxy_for(server: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """The URL of the proxy to the server of this URL; None: it is spoken to directly. KubeconfigError when it
    is no HTTP proxy."""
    target = urlsplit(server)
    name = f"{target.scheme}_proxy"
    given = _value(name, environment)
    if not given or _is_excluded(
        target.hostname or "", target.port or _PORTS.get(target.scheme), environment
    ):
        return None
    proxy = given if "://" in given else f"http://{given}"
    if urlsplit(proxy).scheme not in _PORTS or not urlsplit(proxy).hostname:
        fix = "give http://HOST:PORT, or name the API server in NO_PROXY"
        raise KubeconfigError(name.upper(), f"{_without_password(proxy)} is no HTTP proxy", fix)
    return proxy


def _is_excluded(host: str, port: int | None, environment: Mapping[str, str]) -> bool:
    """This machine always is, as kubectl has it."""
    name, address = host.rstrip("."), _address(host)
    if name == "localhost" or (address is not None and address.is_loopback):
        return True
    return any(
        _covers(excluded, name, address)
        for excluded, its_port in _excluded(_value("no_proxy", environment))
        if its_port in (None, port)
    )


def _excluded(text: str) -> Iterator[tuple[str, int | None]]:
    """Hosts, domains, addresses and networks, each with the port that it is bound to."""
    for item in filter(None, _SEPARATORS.split(text.lower())):
        bound = _WITH_PORT.fullmatch(item)
        yield (bound["host"], int(bound["port"])) if bound else (item, None)


def _covers(excluded: str, host: str, address: Address | None) -> bool:
    if excluded == "*":
        return True
    if address is not None:
        network = _network(excluded)
        return network is not None and address.version == network.version and address in network
    domain = excluded.removeprefix("*").strip(".")
    return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _address(host: str) -> Address | None:
    """An IPv4 address that is written as IPv6 is the IPv4 address."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """A single address is a network of one."""
    try:
        return ipaddress.ip_network(text.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return None


def _value(name: str, environment: Mapping[str, str]) -> str:
    """The lower-case spelling counts where both are set, as elsewhere."""
    return (environment.get(name) or environment.get(name.upper()) or "").strip()


def _without_password(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//", url)
