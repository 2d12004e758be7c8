"""guard: foreign Hosts, foreign Origins, requests without a key and large bodies reach no route."""

import asyncio
import json
import socket

import pytest
from helpers.http_server import JSON, answer, everything, request, serving

from edge_eft.server.guard import Guard, host_name, is_loopback, is_open, origin_of

KEYS = ("secret-1", "schlüssel")


@pytest.fixture(scope="module")
def reached():
    return []


def echo(reached):
    """An application that tells what reached it."""

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{kind}"
                await send({"type": f"lifespan.{kind}.complete"})
            return
        body = (await receive())["body"]
        reached.append((scope["method"], scope["path"], body))
        if scope["path"] == "/fails":
            raise RuntimeError("the prompt")
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"%d" % len(body)})

    return app


@pytest.fixture(scope="module")
def plain(reached):
    with serving(Guard(echo(reached), hosts=["0.0.0.0", "box.example"], max_body=1000)) as live:
        yield live


@pytest.fixture(scope="module")
def cors(reached):
    origins = ("https://app.example", "app://obsidian.md")
    with serving(Guard(echo(reached), origins=origins, keys=KEYS)) as live:
        yield live


@pytest.fixture(scope="module")
def keyed(reached):
    with serving(Guard(echo(reached), keys=KEYS, open_paths=["/health"])) as live:
        yield live


def refused(live, reached, status, code, path="/", method="GET", body=None, **headers):
    """The message of a refusal in OpenAI's shape, after which no route was reached."""
    reached.clear()
    seen, about, said = live.ask(path, method, body, **headers)
    assert seen == status, said
    assert about["content-type"] == "application/json"
    error = json.loads(said)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert "\n" not in error["message"]
    assert reached == []
    return error["message"]


# -- Host ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST:1", "localhost:65535", "a.localhost", "a.b.localhost:8080"),
        *("127.0.0.1", "127.0.0.1:8080", "127.9.9.9", "[::1]", "[::1]:80", "[0:0:0:0:0:0:0:1]"),
        *("[::ffff:127.0.0.1]", "host.docker.internal:8080", "box.example", "0.0.0.0:8080"),
        socket.gethostname(),
    ],
)
def test_our_own_hosts_are_served(plain, host):
    assert plain.ask(Host=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8080", "localhost.evil.example", "evil-localhost"),
        *("127.0.0.1.evil.example", "127.0.0.1.nip.io", "10.0.0.1", "[fe80::1]", "1.2.3.4:8080"),
        *("localhost:8080:8080", "localhost:", "localhost:abc", "localhost/", "user@localhost"),
        *("localhost,evil.example", "evil.example#.localhost", "localhost ", "[::1", "::1", "[]"),
        *("", ".localhost", "xbox.example", "a.box.example", "2130706433", "0x7f.1", "[::1%25lo]"),
    ],
)
def test_a_foreign_or_malformed_host_is_refused(plain, reached, host):
    if host == "localhost ":  # h11 strips what is around a value
        host = "local host"
    refused(plain, reached, 403, "host_not_allowed", Host=host)


def test_a_refused_host_is_told_how_it_may_come_in(plain, reached):
    message = refused(plain, reached, 403, "host_not_allowed", Host="my.box:80")
    assert "--allow-host my.box" in message
    assert ":80" not in message


def test_no_host_and_two_hosts_are_refused(plain, reached):
    for data in (
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    ):
        reached.clear()
        with plain.connect(data) as client:
            assert answer(everything(client))[0] in (400, 403)
        assert reached == []


def test_two_hosts_are_refused_whatever_the_protocol_lets_through(reached):
    sent = []

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"host", b"evil.example")]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
    asyncio.run(Guard(echo(reached))(scope, None, send))
    assert sent[0]["status"] == 403


def test_a_forwarded_host_says_nothing(plain, reached):
    headers = {"X_Forwarded_Host": "localhost", "Forwarded": "host=localhost"}
    refused(plain, reached, 403, "host_not_allowed", Host="evil.example", **headers)


# -- Origin --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE"])
@pytest.mark.parametrize(
    "origin",
    [
        *("https://evil.example", "http://localhost:3000", "null", "", "http://127.0.0.1"),
        *("http://localhost.evil.example", "http://localhost@evil.example", "http://localhost/"),
        *("http://localhost http://localhost", "localhost", "file://", "*"),
    ],
)
def test_a_foreign_origin_is_refused(plain, reached, method, origin):
    refused(plain, reached, 403, "origin_not_allowed", "/", method, Origin=origin, **JSON)


def test_the_refusal_of_a_page_shows_the_option_that_lets_it_in(plain, reached):
    def told(origin):
        return refused(plain, reached, 403, "origin_not_allowed", Origin=origin)

    assert told("https://Its.example:444").endswith("start it with --cors https://its.example:444")
    assert told("https://a.b$(x)").endswith("start it with --cors 'https://a.b$(x)'")
    assert told("null").endswith(
        "--cors and its origin, which it has if it comes from a web server"
    )


def test_two_origins_are_refused(plain, reached):
    data = request("/", Origin="http://localhost").replace(b"\r\n\r\n", b"\r\nOrigin: null\r\n\r\n")
    with plain.connect(data) as client:
        assert answer(everything(client))[0] == 403


@pytest.mark.parametrize(
    ("host", "origin"),
    [("localhost:8080", "http://localhost:8080"), ("[::1]:8080", "http://[::1]:8080")],
)
def test_our_own_page_is_served_and_without_cors_headers(plain, host, origin):
    status, headers, _ = plain.ask(Host=host, Origin=origin)
    assert status == 200
    assert not [name for name in headers if name.startswith("access-control")]
    assert headers["x-content-type-options"] == "nosniff"


def test_without_cors_nobody_gets_cors_headers(plain):
    asks = {"Access_Control_Request_Method": "POST"}
    for answered in (plain.ask(), plain.ask("/", "OPTIONS", Origin="http://a.example", **asks)):
        assert not [name for name in answered[1] if name.startswith("access-control")]


@pytest.mark.parametrize("origin", ["https://app.example", "app://obsidian.md"])
def test_a_named_origin_is_reflected_also_on_errors(cors, origin):
    for status, key in ((200, KEYS[0]), (401, "wrong")):
        seen, headers, _ = cors.ask(Origin=origin, X_Api_Key=key)
        assert seen == status
        assert headers["access-control-allow-origin"] == origin
        assert headers["vary"] == "origin"
        assert "access-control-allow-credentials" not in headers


@pytest.mark.parametrize(
    "origin", ["http://app.example", "https://app.example:444", "https://xapp.example", "null"]
)
def test_with_cors_others_are_refused_still(cors, reached, origin):
    refused(cors, reached, 403, "origin_not_allowed", Origin=origin, X_Api_Key=KEYS[0])


def test_a_preflight_needs_no_key_and_reaches_no_route(cors, reached):
    reached.clear()
    asks = {
        "Origin": "https://app.example",
        "Access_Control_Request_Method": "POST",
        "Access_Control_Request_Headers": "authorization, content-type",
        "Access_Control_Request_Private_Network": "true",
    }
    status, headers, body = cors.ask("/v1/chat/completions", "OPTIONS", **asks)
    assert (status, body) == (204, b"")
    assert headers["access-control-allow-headers"] == "authorization, content-type"
    assert headers["access-control-allow-private-network"] == "true"
    assert "POST" in headers["access-control-allow-methods"].upper()
    assert reached == []


def test_with_a_star_every_origin_but_null_is_served(reached):
    with serving(Guard(echo(reached), origins=["*"])) as live:
        headers = live.ask(Origin="https://any.example")[1]
        assert headers["access-control-allow-origin"] == "https://any.example"
        refused(live, reached, 403, "origin_not_allowed", Origin="null")
        refused(live, reached, 403, "host_not_allowed", Origin="https://a.b", Host="evil.example")


# -- content type and body -----------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "kind",
    [
        *(None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"),
        *("text/plain; application/json", "application/jsonx", "text/plain,application/json"),
    ],
)
def test_without_a_json_content_type_nothing_changes(plain, reached, method, kind):
    message = refused(
        plain, reached, 415, "unsupported_media_type", "/", method, {}, Content_Type=kind
    )
    assert "Content-Type: application/json" in message


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
def test_json_is_served(plain, reached, kind):
    assert plain.ask("/", "POST", b"{}", Content_Type=kind)[2] == b"2"


def test_two_content_types_are_refused(plain):
    data = request("/", "POST", b"{}", Content_Type="application/json")
    data = data.replace(b"\r\n\r\n", b"\r\nContent-Type: text/plain\r\n\r\n")
    with plain.connect(data) as client:
        assert answer(everything(client))[0] == 415


def test_a_body_up_to_the_limit_is_served_and_a_larger_one_not(plain, reached):
    assert plain.ask("/", "POST", b"x" * 1000, **JSON)[2] == b"1000"
    large = ("/", "POST", b"x" * 1001)
    assert "1,000 bytes" in refused(plain, reached, 413, "too_large", *large, **JSON)


def test_a_large_length_is_refused_before_the_body_comes(plain, reached):
    head = request("/", "POST", Content_Length="5000000000", **JSON)
    with plain.connect(head) as client:
        assert answer(client.recv(65536))[0] == 413


def test_a_large_body_in_chunks_is_refused(plain, reached):
    reached.clear()
    data = request("/", "POST", Transfer_Encoding="chunked", **JSON)
    chunk = b"100\r\n" + b"x" * 256 + b"\r\n"
    with plain.connect(data + chunk * 4) as client:
        assert answer(client.recv(65536))[0] == 413
    with plain.connect(data + chunk * 3 + b"0\r\n\r\n") as client:
        assert answer(everything(client))[2] == b"768"
    assert [len(body) for _, _, body in reached] == [768]


def test_the_connection_serves_on_after_a_refusal(plain):
    large = request("/", "POST", b"x" * 300_000, close=False, **JSON)
    with plain.connect(large) as client:
        first = b""
        while not first.endswith(b"}}"):
            first += client.recv(65536)
        assert answer(first)[0] == 413
        client.sendall(request("/"))
        assert answer(everything(client))[0] == 200


def test_a_route_that_fails_is_a_500_that_tells_nothing(plain, caplog):
    status, _, body = plain.ask("/fails")
    assert status == 500
    assert json.loads(body)["error"]["type"] == "server_error"
    assert b"the prompt" not in body
    assert "RuntimeError at " in caplog.text
    assert "the prompt" not in caplog.text


# -- keys ----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_taken_from_either_header(keyed, key):
    raw = key.encode().decode("latin-1")
    assert keyed.ask(Authorization=f"Bearer {raw}")[0] == 200
    assert keyed.ask(Authorization=f"bearer  {raw}")[0] == 200
    assert keyed.ask(X_Api_Key=raw)[0] == 200
    assert keyed.ask(X_Api_Key=raw, Authorization="Bearer other")[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "secret-1"},
        {"Authorization": "Basic secret-1"},
        {"Authorization": "Bearer secret-12"},
        {"Authorization": "Bearer secret-"},
        {"X_Api_Key": ""},
        {"X_Api_Key": "SECRET-1"},
        {"X_Api_Key": "schl\xfcssel"},
        {"X_Api_Key": "\xff\xfe"},
        {"Cookie": "secret-1"},
    ],
)
def test_without_the_key_nothing_is_served(keyed, reached, headers, caplog):
    for path in ("/", "/v1/models", "/health/", "//health", "/Health", "/health%2f"):
        message = refused(keyed, reached, 401, "invalid_api_key", path, **headers)
        assert "secret" not in message
    assert "secret" not in caplog.text


def test_a_key_in_the_query_is_not_one(keyed, reached):
    refused(keyed, reached, 401, "invalid_api_key", "/?api_key=secret-1")


def test_health_needs_no_key_but_to_change_it_would(keyed, reached):
    assert keyed.ask("/health")[0] == 200
    assert keyed.ask("/health", "HEAD")[0] == 200
    refused(keyed, reached, 401, "invalid_api_key", "/health", "POST", {}, **JSON)


@pytest.mark.parametrize(
    ("path", "opened"),
    [
        *(("/", True), ("/page/a", True), ("/page/", True), ("/page/a/../b", True)),
        *(("/page", False), ("/pagea", False), ("/a/page/", False), ("//page/a", False)),
        *(("/health/a", False), ("/a", False), ("", False)),
    ],
)
def test_a_path_that_ends_in_a_slash_opens_what_is_below_and_the_root_itself_alone(path, opened):
    assert is_open(path, ("/", "/health", "/page/")) is opened


def test_the_body_of_a_request_without_a_key_is_not_read(keyed):
    with keyed.connect(request("/", "POST", Content_Length="1000", **JSON)) as client:
        assert answer(client.recv(65536))[0] == 401


# -- what options are read by ----------------------------------------------------------------


def test_hosts_and_origins_as_options_have_them():
    assert host_name("Box.Example:80") == "box.example"
    assert host_name("[::0001]") == "::1"
    assert host_name("http://box") is None
    assert origin_of("HTTPS://A.example:1") == "https://a.example:1"
    assert origin_of("*") == "*"
    for wrong in ("a.example", "https://a.example/", "https://", "null", "https://*.example"):
        assert origin_of(wrong) is None
    assert all(map(is_loopback, ("::1", "127.1.2.3", "a.localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "localhosts", "10.0.0.1")))
