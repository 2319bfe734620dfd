"""Where the API is and how it is authenticated, as far as the document says. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from source_rest_api.openapi.document import Document, LostReferenceError, Node, listing, mapping
from source_rest_api.openapi.guess import Gap, Guess
from source_rest_api.openapi.names import snake
from source_rest_api.openapi.operations import Operation

NO_HOST = "https://<host>"
KEY_PARAMS = ("api_key", "apikey", "x_api_key", "access_token", "api_token", "authorization")
MOST_WORDS = 160
NOT_THE_KEY = ("otp", "sudo", "csrf", "xsrf", "tenant")  # what goes along with credentials, and is none
NONE = {"auth_type": "none"}


def base_url_of(document: Document, operations: Sequence[Operation] = ()) -> tuple[Guess, list[Gap]]:
    """The first server of the document, with the defaults of its variables; if it has none, that of its operations."""
    given, reason = _swagger_server(document) if document.is_swagger else _server(document, operations)
    url = urljoin(document.url, given) if document.url else given
    if not re.match(r"https?://[^\s/]", url):
        url = f"{NO_HOST}{url if url.startswith('/') else ''}"
        gap = Gap("base_url", "the document does not say on which host the API is", NO_HOST)
        return Guess(url.rstrip("/") or NO_HOST, "the document names no host"), [gap]
    gaps = []
    if re.search(r"[{}<>]", url):
        gaps.append(Gap("base_url", "the document gives no value for a part of it", url))
    elif urlsplit(url).hostname in ("localhost", "127.0.0.1"):
        gaps.append(Gap("base_url", "the document names a machine of its author's"))
    return Guess(url.rstrip("/"), reason), gaps


def is_elsewhere(operation: Operation, document: Document, base_url: str) -> bool:
    """Whether an operation has a server of its own, which is not that of the configuration."""
    return bool(operation.server) and urljoin(document.url, operation.server).rstrip("/") != base_url


def _server(document: Document, operations: Sequence[Operation]) -> tuple[str, str]:
    servers = listing(document.root.get("servers"))
    own = Counter(operation.server for operation in operations if operation.server)
    if not servers and own:
        url, count = own.most_common(1)[0]
        return url, f"the server of {count} of {len(operations)} operations; the document itself names none"
    server = mapping(servers[0]) if servers else {}
    url = str(server.get("url") or "/")
    variables = mapping(server.get("variables"))
    for name, variable in variables.items():
        default = mapping(variable).get("default")
        if default is not None:
            url = url.replace(f"{{{name}}}", str(default))
    reason = "the document's server" if len(servers) == 1 else f"the first of {len(servers)} servers"
    if variables:
        reason += f", with the defaults of {', '.join(variables)}"
    return url, reason


def _swagger_server(document: Document) -> tuple[str, str]:
    host, base = (str(document.root.get(name) or "") for name in ("host", "basePath"))
    schemes = [str(scheme) for scheme in listing(document.root.get("schemes"))]
    scheme = "https" if "https" in schemes or not schemes else schemes[0]
    if not host:
        return (base if base.startswith("/") else f"/{base}"), "the document's basePath, at the document's own host"
    return f"{scheme}://{host}/{base.lstrip('/')}", "the document's host and basePath"


@dataclass(frozen=True, slots=True)
class Access:
    """Credentials, what goes along with them, and what must be filled in.

    Attributes:
        taken: names of parameters that the credentials set, in lower case.
        schemes: the names of the schemes that were chosen.
    """

    credentials: Guess
    headers: Sequence[Mapping[str, str]] = ()
    query_params: Sequence[Mapping[str, str]] = ()
    gaps: Sequence[Gap] = ()
    taken: frozenset[str] = frozenset()
    schemes: frozenset[str] = frozenset()


def access_of(document: Document, operations: Sequence[Operation], base_url: str) -> Access:
    """The way in that most of the operations take; of several, the one that needs the least."""
    schemes = _schemes(document)
    everywhere = listing(document.root.get("security"))
    counts: Counter[tuple[str, ...]] = Counter()
    for operation in operations:
        given = everywhere if operation.security is None else operation.security
        counts.update({tuple(sorted(mapping(way))) for way in given if mapping(way)})
    ways = [way for way in counts if all(name in schemes for name in way)]
    if not ways and not everywhere and schemes:
        ways = [(name,) for name in schemes]
    usable = [(way, found) for way in ways for found in [_way(way, schemes, base_url)] if found is not None]
    if usable:
        most = max(counts[way] for way, _ in usable)
        best = [(way, found) for way, found in usable if counts[way] == most]
        way, access = min(best, key=lambda one: _rank(one[1]))
        others = [" and ".join(other) for other in ways if other != way]
        also = f"; the document also has {', '.join(others)}" if others else ""
        guess = Guess(access.credentials.value, f"{' and '.join(way)} of the document{also}")
        return Access(guess, access.headers, access.query_params, access.gaps, access.taken, frozenset(way))
    if ways:
        names = ", ".join(sorted({name for way in ways for name in way}))
        gap = Gap("credentials", f"the document asks for {names}, which cannot be said from it: set credentials")
        return Access(Guess(NONE, "no scheme of the document that this source knows"), gaps=[gap])
    return _in_parameters(operations)


def _schemes(document: Document) -> dict[str, Mapping[str, Node]]:
    given = document.root.get("securityDefinitions")
    if not document.is_swagger:
        given = mapping(document.root.get("components")).get("securitySchemes")
    found = {}
    for name, node in mapping(given).items():
        try:
            found[name] = mapping(document.resolve(node))
        except LostReferenceError:
            continue
    return found


def _way(names: Iterable[str], schemes: Mapping[str, Mapping[str, Node]], base_url: str) -> Access | None:
    """Credentials for one way in; further API keys of it go into headers and parameters. None if it is not known."""
    main: Access | None = None
    headers: list[Mapping[str, str]] = []
    params: list[Mapping[str, str]] = []
    gaps: list[Gap] = []
    taken: set[str] = set()
    for name in names:
        scheme = schemes[name]
        found = _scheme(name, scheme, base_url)
        if found is None:
            return None
        taken |= found.taken
        if main is None:
            main = found
            gaps += found.gaps
        elif found.credentials.value["auth_type"] == "api_key":
            place = "headers" if found.credentials.value["inject_into"] == "header" else "query_params"
            pair = {"name": str(scheme.get("name", "")), "value": f"<{name}>"}
            (headers if place == "headers" else params).append(pair)
            gaps.append(Gap(place, f"your {name}", pair["value"]))
        else:
            return None
    if main is None:
        return None
    return Access(main.credentials, headers, params, gaps, frozenset(taken))


def _scheme(name: str, scheme: Mapping[str, Node], base_url: str) -> Access | None:
    kind, words = str(scheme.get("type", "")), f"{name} {scheme.get('description', '')}".lower()
    if kind == "basic" or (kind == "http" and str(scheme.get("scheme", "")).lower() == "basic"):
        return _access({"auth_type": "basic", "username": "<username>", "password": "<password>"}, {"authorization"})
    if kind == "http" and str(scheme.get("scheme", "")).lower() == "bearer":
        return _access({"auth_type": "bearer", "token": "<access token>"}, {"authorization"})
    if kind == "apiKey" and scheme.get("in") in ("header", "query"):
        key = str(scheme.get("name", ""))
        if scheme["in"] == "header" and key.lower() == "authorization" and "bearer" in words:
            return _access({"auth_type": "bearer", "token": "<access token>"}, {"authorization"})
        settings = {"auth_type": "api_key", "inject_into": scheme["in"], "name": key, "api_key": f"<{name}>"}
        return _access(settings, {key.lower()}, str(scheme.get("description") or "")) if key else None
    if kind == "oauth2":
        return _oauth(scheme, base_url)
    if kind == "openIdConnect":
        return _access({"auth_type": "bearer", "token": "<access token>"}, {"authorization"})
    return None


def _oauth(scheme: Mapping[str, Node], base_url: str) -> Access | None:
    flows = {snake(name): mapping(flow) for name, flow in mapping(scheme.get("flows")).items()}
    if "flow" in scheme:  # Swagger 2 has one, under other names
        flows = {{"application": "client_credentials", "accessCode": "authorization_code"}.get(
            str(scheme["flow"]), str(scheme["flow"])): scheme}  # fmt: skip
    client = {"client_id": "<client id>", "client_secret": "<client secret>"}
    for name, kind, more in (
        ("client_credentials", "oauth_client_credentials", {}),
        ("authorization_code", "oauth_refresh_token", {"refresh_token": "<refresh token>"}),
    ):
        flow = flows.get(name, {})
        given = str(flow.get("refreshUrl") or flow.get("tokenUrl") or "") if more else str(flow.get("tokenUrl") or "")
        url = urljoin(f"{base_url}/", given)
        if given and re.match(r"https?://[^\s/]", url):
            return _access({"auth_type": kind, "token_url": url, **client, **more}, {"authorization"})
    return _access({"auth_type": "bearer", "token": "<access token>"}, {"authorization"}) if flows else None


def _access(settings: Mapping[str, Any], taken: Iterable[str], words: str = "") -> Access:
    said = f" ({' '.join(words.split())[:MOST_WORDS]})" if words else ""
    gaps = [
        Gap(f"credentials.{name}", f"your {value.strip('<>')}{said}", value)
        for name, value in settings.items()
        if isinstance(value, str) and value.startswith("<")
    ]
    return Access(Guess(dict(settings), ""), gaps=gaps, taken=frozenset(taken))


def _rank(access: Access) -> int:
    """The less a way needs, the lower; what is no credential by its name comes last."""
    order = ("bearer", "api_key", "basic", "oauth_client_credentials", "oauth_refresh_token")
    settings = access.credentials.value
    name = str(settings.get("name", "")).lower()
    needs = 10 * (len(access.headers) + len(access.query_params)) + 2 * order.index(settings["auth_type"])
    is_in_url = settings.get("inject_into") == "query"
    return needs + int(is_in_url) + 100 * int(any(word in name for word in NOT_THE_KEY))


def _in_parameters(operations: Sequence[Operation]) -> Access:
    """An API key that the document has among the parameters of its operations."""
    counts = Counter(
        (parameter.name, parameter.where)
        for operation in operations
        for parameter in operation.parameters
        if parameter.where in ("header", "query") and snake(parameter.name) in KEY_PARAMS
    )
    (name, where), count = counts.most_common(1)[0] if counts else (("", ""), 0)
    if count * 2 > len(operations):
        found = _scheme("API key", {"type": "apiKey", "in": where, "name": name}, "")
        assert found is not None  # it has a name and a place
        guess = Guess(found.credentials.value, f"most operations take a parameter {name!r}")
        return Access(guess, gaps=found.gaps, taken=found.taken)
    gap = Gap("credentials", "the document names none: set credentials if the API wants some")
    return Access(Guess(NONE, "the document has no security schemes"), gaps=[gap])
