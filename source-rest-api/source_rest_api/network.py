"""Connections: certificates, which addresses may be reached, and how much of an answer is taken.

The guard looks at the address that is connected to, after the name was resolved, and connects to that very address: a
name that resolves to something else a moment later changes nothing, and redirects pass through it too. Addresses of
cloud metadata services are never reached. Behind an HTTP proxy it is the proxy that resolves names; then only addresses
that stand in the URL itself can be refused.
"""

from __future__ import annotations

import os
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, DecodeError, HTTPError, NameResolutionError, NewConnectionError
from urllib3.util.connection import create_connection

from source_rest_api.errors import config_error
from source_rest_api.form import Form
from source_rest_api.formats import TooLarge

POOL_SIZE = 32  # as many as there can be workers
CHUNK = 1 << 20
SLOWEST = 1024  # bytes in a second, once timeout_seconds are over
METADATA = tuple(
    map(
        ip_network,
        ("169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32", "fd00:ec2::/32"),
    )
)
NAT64 = ip_network("64:ff9b::/96")

Address = IPv4Address | IPv6Address


def session_of(form: Form) -> requests.Session:
    """A session for requests that are not the CDK's: token endpoints and logins."""
    session = requests.Session()
    prepare(session, form)
    return session


def prepare(session: requests.Session, form: Form) -> None:
    """Give a session the form's certificates, its guard and its name."""
    adapter = adapter_of(form)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    if form.user_agent:
        session.headers["User-Agent"] = form.user_agent


def adapter_of(form: Form) -> GuardedAdapter:
    """Connections with the form's certificates, to the addresses that it allows."""
    is_cloud = os.environ.get("DEPLOYMENT_MODE", "").lower() == "cloud"
    return GuardedAdapter(
        context=tls_context(form.ca_bundle, form.client_certificate, form.client_key),
        allow_private=form.allow_private_hosts and not is_cloud,
    )


def read_body(response: requests.Response, limit: int, seconds: int, *, decode: bool = True) -> bytes:
    """A whole body, and its connection given back.

    Args:
        response: whose body was not read yet.
        limit: the most bytes.
        seconds: after which a body must not come slower than ``SLOWEST``.
        decode: whether what ``Content-Encoding`` says is undone.

    Raises:
        TooLarge: it has more.
        requests.exceptions.RequestException: as ``iter_content`` does.
    """
    chunks: list[bytes] = []
    size, begun = 0, time.monotonic()
    with response:
        for chunk in _arriving(response, decode=decode):
            chunks.append(chunk)
            size += len(chunk)
            if size > limit:
                raise TooLarge
            passed = time.monotonic() - begun
            if passed > seconds and size < passed * SLOWEST:
                raise requests.exceptions.Timeout
    return b"".join(chunks)


def _arriving(response: requests.Response, *, decode: bool) -> Iterator[bytes]:
    """Pieces of a body as they come, so that one that drips is noticed; requests waits for a whole piece.

    Raises:
        requests.exceptions.RequestException: as ``iter_content`` does.
    """
    try:
        while piece := response.raw.read1(CHUNK, decode_content=decode):
            yield piece
    except DecodeError as cause:
        raise requests.exceptions.ContentDecodingError(cause) from None
    except HTTPError as cause:
        raise requests.exceptions.ConnectionError(cause) from None


def tls_context(ca_bundle: str, certificate: str, key: str) -> ssl.SSLContext | None:
    """What the form's PEM texts say; None if it has none. Certificates of ``ca_bundle`` count beside the public ones.

    Raises:
        AirbyteTracedException: a config_error if a text is no PEM, or the key is not the certificate's.
    """
    if not ca_bundle and not certificate:
        return None
    context = ssl.create_default_context()
    if ca_bundle:
        try:
            context.load_verify_locations(cadata=ca_bundle)
        except (ssl.SSLError, ValueError):
            raise config_error("ca_bundle holds no certificates in PEM form.") from None
    if certificate:
        # Python's ssl reads a private key from a file only: it is there for this one call, for this user alone.
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(f"{certificate.strip()}\n{key.strip()}\n")
            file.flush()
            try:
                context.load_cert_chain(file.name)
            except (ssl.SSLError, ValueError):
                raise config_error(
                    "client_certificate and client_key are no certificate in PEM form and the key that belongs to it."
                ) from None
    return context


class GuardedAdapter(HTTPAdapter):
    """Connects to allowed addresses only."""

    def __init__(self, *, context: ssl.SSLContext | None, allow_private: bool):
        self._tls: dict[str, Any] = {"ssl_context": context} if context is not None else {}
        self._allow_private = allow_private
        super().__init__(pool_connections=POOL_SIZE, pool_maxsize=POOL_SIZE)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **pool: Any) -> None:
        """Part of requests' interface."""
        super().init_poolmanager(connections, maxsize, block, **pool, **self._tls)
        manager: PoolManager = self.poolmanager
        manager.pool_classes_by_scheme = {
            "http": _pool_class(HTTPConnectionPool, HTTPConnection, self._allow_private),
            "https": _pool_class(HTTPSConnectionPool, HTTPSConnection, self._allow_private),
        }

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Part of requests' interface."""
        return super().proxy_manager_for(proxy, **kwargs, **self._tls)

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Part of requests' interface: refuses addresses in the URL, whoever would connect to them."""
        host = requests.compat.urlsplit(request.url or "").hostname or ""
        literal = _address(host)
        if literal is not None:
            refuse(literal, host, allow_private=self._allow_private)
        return super().send(request, *args, **kwargs)


def refuse(address: Address, host: str, *, allow_private: bool) -> None:
    """Raise a config_error for an address that must not be reached."""
    inner = unwrapped(address)
    if any(inner in network for network in METADATA if network.version == inner.version):
        raise config_error(f"{host} is an address of a cloud's metadata service, which is never asked. Check base_url.")
    if not allow_private and not inner.is_global:
        raise config_error(
            f"{host} is no public address. Set allow_private_hosts if the API is in a private network and this "
            "connector may reach it."
        )


def unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 one leads to (mapped, NAT64, 6to4, Teredo), or the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address.teredo is not None:
        return address.teredo[1]
    return address.ipv4_mapped or address.sixtofour or address


def _pool_class(pool: type[Any], connection: type[Any], allow_private: bool) -> type[Any]:
    def connect(self: HTTPConnection) -> socket.socket:
        return _connect(self, allow_private=allow_private)

    guarded = type(f"Guarded{connection.__name__}", (connection,), {"_new_conn": connect})
    return type(f"Guarded{pool.__name__}", (pool,), {"ConnectionCls": guarded})


def _connect(connection: HTTPConnection, *, allow_private: bool) -> socket.socket:
    """As urllib3's ``HTTPConnection._new_conn``, but with the addresses looked at before one is connected to."""
    host, port = connection.host.strip("[]"), connection.port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as cause:
        raise NameResolutionError(host, connection, socket.gaierror(str(cause))) from None
    for *_, place in found:
        address = _address(str(place[0]))
        if address is not None:
            refuse(address, host, allow_private=allow_private)
    problem: OSError | None = None
    for *_, place in found:
        try:
            return create_connection(
                (str(place[0]), port), connection.timeout, socket_options=connection.socket_options
            )
        except OSError as cause:
            problem = cause
    if isinstance(problem, TimeoutError):
        raise ConnectTimeoutError(connection, f"Connection to {host} timed out") from None
    raise NewConnectionError(connection, f"No connection to {host}") from None


def _address(text: str) -> Address | None:
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return None
