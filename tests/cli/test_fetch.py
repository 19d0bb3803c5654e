"""``twistednet fetch``."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest
import trustme

from tests import programs
from tests.cli.running import ENVIRONMENT, Program, Terminal, refusing_port, run, silent_server, tcp_server
from tests.programs import run_console
from tests.services.running import PATIENCE, SCRIPTS, Twistd
from twistednet.cli.fetch import in_units
from twistednet.cli.http import http_url

SUMMARY = re.compile(
    r"(?P<status>.+): (?P<bytes>\d+) bytes, first byte after [\d.]+ s, all after [\d.]+ s, [\d.]+ (bytes|kB|MB|GB)/s\n"
)


def answer(body: bytes = b"", status: bytes = b"200 OK", *headers: bytes) -> bytes:
    """An answer with a length."""
    return b"\r\n".join((b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers, b"", body))


def receive_request(connection: socket.socket) -> bytes:
    """One request, with its body."""
    request = b""
    while b"\r\n\r\n" not in request:
        request += connection.recv(65536)
    length = re.search(rb"content-length: (\d+)", request, re.IGNORECASE)
    while length and len(request.partition(b"\r\n\r\n")[2]) < int(length[1]):
        request += connection.recv(65536)
    return request


class Server:
    """A port of 127.0.0.1 whose clients get `answers`, one each; what they have asked is in `requests`."""

    def __init__(self, answers: tuple[bytes, ...], tls: ssl.SSLContext | None) -> None:
        self.requests: list[bytes] = []
        self._answers = answers
        self._tls = tls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(PATIENCE)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        for reply in self._answers:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(PATIENCE)
                try:
                    secure = self._tls.wrap_socket(connection, server_side=True) if self._tls else connection
                    with secure:
                        self.requests.append(receive_request(secure))
                        secure.sendall(reply.replace(b"PORT", b"%d" % self.port))
                except OSError:
                    pass  # the client doesn't like our certificate, or what we send

    def close(self) -> None:
        self._socket.close()
        self._thread.join(PATIENCE)


@contextmanager
def http_server(*answers: bytes, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """A `Server`, until the end of the ``with`` statement."""
    server = Server(answers, tls)
    try:
        yield server
    finally:
        server.close()


def check_summary(text: str, status: str, size: int) -> None:
    """What is written on standard error is the summary, and nothing else."""
    found = SUMMARY.fullmatch(text)
    assert found, text
    assert (found["status"], int(found["bytes"])) == (status, size)


# What is printed


@pytest.mark.parametrize("body", [b"", b"hello", b"\0\xff\r\n" * 50_000])
def test_body(body: bytes) -> None:
    """The body comes on standard output as it is, what there is to say of it on standard error."""
    with http_server(answer(body)) as server:
        status, output, errors = run("fetch", server.url)
    assert (status, output) == (0, body)
    check_summary(errors, "200 OK", len(body))
    assert server.requests[0].startswith(b"GET / HTTP/1.1\r\n")
    assert b"accept-encoding" not in server.requests[0].lower()


@pytest.mark.parametrize(
    ("reply", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", b"abcde"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", b"x"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (answer(b"\x1f\x8bnot really", b"200 OK", b"Content-Encoding: gzip"), b"\x1f\x8bnot really"),
        (answer(b"no phrase", b"200"), b"no phrase"),
        (answer(b"not followed", b"300 Multiple Choices", b"Location: /x"), b"not followed"),
        (answer(b"nowhere to go", b"302 Found"), b"nowhere to go"),
    ],
)
def test_kinds_of_answers(reply: bytes, body: bytes) -> None:
    """A body may be in chunks, or end with the connection, and is never unpacked."""
    with http_server(reply) as server:
        status, output, errors = run("fetch", server.url)
    assert (status, output) == (0, body), errors
    assert SUMMARY.fullmatch(errors)


def test_json() -> None:
    """With --json there is one object instead of the body, and nothing else."""
    with http_server(answer(b"hello", b"200 OK", b"X-Twice: a", b"X-Twice: b", b"Content-Encoding: gzip")) as server:
        status, output, errors = run("fetch", "--json", server.url + "/x")
    found = json.loads(output)
    assert (status, errors) == (0, "")
    assert set(found) == {"url", "status", "bytes", "seconds", "first_byte_seconds", "bytes_per_second", "headers"}
    assert (found["url"], found["status"], found["bytes"]) == (f"{server.url}/x", 200, 5)
    assert 0 < found["first_byte_seconds"] <= found["seconds"] < PATIENCE
    assert found["bytes_per_second"] == pytest.approx(5 / found["seconds"], rel=0.01, abs=1)
    assert found["headers"] == {"X-Twice": "a, b", "Content-Encoding": "gzip", "Content-Length": "5"}


def test_head() -> None:
    """With --head the headers are printed as they came."""
    reply = b"HTTP/1.1 200 OK\r\ncontent-LENGTH:   7\r\nX: y\r\n\r\n"
    with http_server(reply, reply) as server:
        status, output, errors = run("fetch", "--head", server.url)
        assert (status, output) == (0, reply)
        check_summary(errors, "200 OK", 0)
        status, output, _ = run("fetch", "--head", "--json", server.url)
        assert (status, json.loads(output)["headers"]["Content-Length"]) == (0, "7")
    assert server.requests[0].startswith(b"HEAD / HTTP/1.1\r\n")


def test_raw() -> None:
    """With --raw both sides of the conversation are printed, byte for byte, the chunks' sizes included."""
    moved = answer(b"", b"302  Moved  about", b"location:/there")
    reply = b"HTTP/1.1 200 OK\r\ntransfer-encoding:chunked\r\n\r\n05\r\nhello\r\n0\r\n\r\n"
    with http_server(moved, reply) as server:
        status, output, errors = run("fetch", "--raw", "--data", "a=b", server.url)
    assert (status, output) == (0, server.requests[0] + moved + server.requests[1] + reply)
    assert server.requests[0].endswith(b"\r\n\r\na=b")
    check_summary(errors, "200 OK", 5)


def test_raw_error() -> None:
    """--raw shows an error's page too."""
    reply = answer(b"no such page", b"404 Not Found")
    with http_server(reply) as server:
        assert run("fetch", "--raw", server.url) == (
            1,
            server.requests[0] + reply,
            "twistednet fetch: 404 Not Found\n",
        )


def test_raw_and_output(tmp_path: Path) -> None:
    """With -o, --raw prints the conversation, and the file has the body."""
    with http_server(answer(b"hello")) as server:
        status, output, _ = run("fetch", "--raw", "-o", tmp_path / "x", server.url)
    assert (status, output) == (0, server.requests[0] + answer(b"hello"))
    assert (tmp_path / "x").read_bytes() == b"hello"


# What is asked


def test_headers() -> None:
    """--header adds headers, and replaces our own."""
    headers = ("A: 1", "A:2", "User-Agent: me", "Accept-Encoding: br")
    with http_server(answer()) as server:
        status, _, errors = run("fetch", server.url, *(word for header in headers for word in ("--header", header)))
    assert status == 0, errors
    lines = server.requests[0].split(b"\r\n")
    for line in (b"A: 1", b"A: 2", b"User-Agent: me", b"Accept-Encoding: br", b"Host: 127.0.0.1:%d" % server.port):
        assert lines.count(line) == 1, lines
    assert server.requests[0].lower().count(b"accept-encoding") == 1


def test_data() -> None:
    """--data is sent as a form is."""
    with http_server(answer()) as server:
        status, _, _ = run("fetch", server.url, "--data", "name=a b&c", "--data", "ä=é=1", "--data", "empty=")
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert (status, body) == (0, b"name=a+b%26c&%C3%A4=%C3%A9%3D1&empty=")
    assert head.startswith(b"POST / HTTP/1.1\r\n")
    assert b"\r\nContent-Type: application/x-www-form-urlencoded" in head


def test_url() -> None:
    """What stands in the URL is asked for; a name and a password in it are sent as such, to that server only."""
    with http_server(answer(b"", b"302 Found", b"Location: http://localhost:PORT/x"), answer()) as server:
        status, _, errors = run("fetch", f"http://me:p%40ss@127.0.0.1:{server.port}/a b/é?q=1&r#top")
    assert status == 0, errors
    assert server.requests[0].startswith(b"GET /a%20b/%C3%A9?q=1&r HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Basic bWU6cEBzcw==\r\n" in server.requests[0]
    assert b"authorization" not in server.requests[1].lower()


def test_ipv6(tmp_path: Path) -> None:
    """The server may be an IPv6 address, with a redirect there."""
    (tmp_path / "folder").mkdir()
    endpoint = "tcp6:0:interface=\\:\\:1"
    with Twistd(tmp_path, "files", "--root", str(tmp_path), "--listen", endpoint, endpoints=1) as twistd:
        status, output, errors = run("fetch", "--json", f"http://[::1]:{twistd.port()}/folder")
    assert (status, errors) == (0, "")
    assert json.loads(output)["url"] == f"http://[::1]:{twistd.port()}/folder/"


# Redirects


def test_redirects() -> None:
    """A redirect is followed from where it stands, with the cookies that came with it."""
    with http_server(
        answer(b"", b"301 Moved", b"Location: /a/b", b"Set-Cookie: c=1"),
        answer(b"ignored", b"307 There", b"Location: c?x=y#z"),
        answer(b"found"),
    ) as server:
        status, output, _ = run("fetch", "--json", server.url + "/start")
    assert (status, json.loads(output)["url"]) == (0, f"{server.url}/a/c?x=y")
    assert [request.split()[1] for request in server.requests] == [b"/start", b"/a/b", b"/a/c?x=y"]
    assert b"\r\nCookie: c=1\r\n" in server.requests[1]


@pytest.mark.parametrize(
    ("code", "asked"), [(301, b"GET"), (302, b"GET"), (303, b"GET"), (307, b"POST"), (308, b"POST")]
)
def test_redirected_form(code: int, asked: bytes) -> None:
    """A form is sent again where the redirect says so, and only there."""
    with http_server(answer(b"", b"%d X" % code, b"Location: /x"), answer()) as server:
        assert run("fetch", "--data", "a=b", server.url)[0] == 0
    assert server.requests[1].startswith(asked + b" /x ")
    assert server.requests[1].endswith(b"\r\n\r\na=b") == (asked == b"POST")


def test_redirect_loop() -> None:
    """Redirects without end are given up."""
    with http_server(*[answer(b"", b"302 Found", b"Location: /")] * 21) as server:
        assert run("fetch", server.url) == (1, b"", f"twistednet fetch: {server.url}/: more than 20 redirects\n")


def test_redirect_to_nowhere() -> None:
    """A redirect to what is no web address is not followed, and not printed raw."""
    for location, shown in (
        (b"file:///etc/passwd", "file:///etc/passwd"),
        (b"http://\xff\x1b[31m", "http://\\xff\\x1b[31m"),
    ):
        with http_server(answer(b"", b"302 Found", b"Location: " + location)) as server:
            status, output, errors = run("fetch", server.url)
        assert (status, output) == (1, b"")
        assert errors == f"twistednet fetch: {server.url}/: redirects to {shown}\n"


def test_secrets_stay() -> None:
    """What was meant for one server is not told to another."""
    with (
        http_server(answer()) as other,
        http_server(answer(b"", b"302 X", b"Location: %b" % other.url.encode())) as server,
    ):
        run("fetch", server.url, "--header", "Authorization: x", "--header", "Cookie: y", "--header", "Other: z")
        assert b"Authorization: x" in server.requests[0]
        assert b"Other: z" in other.requests[0]
        assert b"Authorization" not in other.requests[0]
        assert b"Cookie" not in other.requests[0]


# Failures


@pytest.mark.parametrize("phrase", ["404 Not Found", "500 Oh\x1b[31m no", "503", "451 Unavailable"])
def test_error(phrase: str, tmp_path: Path) -> None:
    """An HTTP error is its own message; neither its page nor a file is there."""
    shown = {"500 Oh\x1b[31m no": "500 Oh\\x1b[31m no", "503": "503 Service Unavailable"}.get(phrase, phrase)
    for more in ((), ("-o", tmp_path / "x")):
        with http_server(answer(b"page", phrase.encode())) as server:
            assert run("fetch", server.url, *more) == (1, b"", f"twistednet fetch: {shown}\n")
    assert list(tmp_path.iterdir()) == []


def test_error_json() -> None:
    """With --json, so is what went wrong an object."""
    with http_server(answer(b"", b"404 Not Found")) as server:
        status, output, errors = run("fetch", "--json", server.url)
    assert (status, errors) == (1, "")
    assert json.loads(output) == {"error": "404 Not Found", "address": server.url + "/", "status": 1}


def test_refused() -> None:
    """Where nobody listens, it is 3."""
    with refusing_port(socket.SOCK_STREAM) as port:
        expected = f"twistednet fetch: http://127.0.0.1:{port}/: nobody listens there\n"
        assert run("fetch", f"http://127.0.0.1:{port}") == (3, b"", expected)


def test_unknown_host() -> None:
    """Where there is no such host, it is 5."""
    status, output, errors = run("fetch", "http://nobody.invalid/x")
    assert (status, output) == (5, b"")
    assert errors == "twistednet fetch: http://nobody.invalid/x: there is no such name\n"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_silence(scheme: str) -> None:
    """Where no answer comes, it is 4."""
    with silent_server() as port:
        url = f"{scheme}://127.0.0.1:{port}/"
        expected = f"twistednet fetch: {url}: no answer in 0.5 seconds\n"
        assert run("fetch", "--timeout", "0.5", url) == (4, b"", expected)


def test_no_connection() -> None:
    """Where no connection comes about, it is 4 as well."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):  # it is full
            status, _, errors = run("fetch", "--timeout", "0.5", f"http://127.0.0.1:{port}/")
    assert (status, errors) == (4, f"twistednet fetch: http://127.0.0.1:{port}/: no answer in 0.5 seconds\n")


def talking(*parts: bytes, pause: float = 0.0) -> Callable[[socket.socket], None]:
    """What sends `parts` to whoever asks, with a pause after each."""

    def talk(connection: socket.socket) -> None:
        receive_request(connection)
        for part in parts:
            try:
                connection.sendall(part)
            except OSError:  # the client has gone
                return
            time.sleep(pause)

    return talk


def test_stalls(tmp_path: Path) -> None:
    """A body that stops in the middle is waited for as long as for an answer; no file is left."""
    with tcp_server(talking(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", pause=1.5)) as port:
        status, _, errors = run("fetch", "--timeout", "0.5", "-o", tmp_path / "x", f"http://127.0.0.1:{port}/")
    assert (status, errors) == (4, f"twistednet fetch: http://127.0.0.1:{port}/: no answer in 0.5 seconds\n")
    assert list(tmp_path.iterdir()) == []


def test_slow_server() -> None:
    """A body that goes on coming may take longer than the time-out."""
    with tcp_server(talking(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n", *[b"x"] * 8, pause=0.2)) as port:
        status, output, _ = run("fetch", "--timeout", "1", f"http://127.0.0.1:{port}/")
    assert (status, output) == (0, b"x" * 8)


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"",
    ],
)
def test_cut_off(reply: bytes, tmp_path: Path) -> None:
    """An answer that is not complete is none; what was there before is there still."""
    (tmp_path / "x").write_bytes(b"before")
    for more in ((), ("-o", tmp_path / "x")):
        with http_server(reply) as server:
            status, _, errors = run("fetch", server.url, *more)
        assert (status, errors) == (1, f"twistednet fetch: {server.url}/: closed before the answer was complete\n")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x", b"before")]


@pytest.mark.parametrize(
    "reply",
    [
        b"220 mail.example SMTP\r\n",
        b"\xff\xfe\x1b\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/x.y 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: odd\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a size\r\n",
    ],
)
def test_no_http(reply: bytes) -> None:
    """What is no HTTP is told in one line."""
    with http_server(reply) as server:
        status, output, errors = run("fetch", server.url)
    assert (status, output) == (1, b"")
    assert errors == f"twistednet fetch: {server.url}/: not HTTP\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("localhost:8000",),
        ("ftp://localhost/",),
        ("http://",),
        ("http://localhost:99999/",),
        ("http://localhost:x/",),
        ("http://[::1/",),
        ("http://localhost/", "--header", "no colon"),
        ("http://localhost/", "--header", "a b: c"),
        ("http://localhost/", "--header", "a: b\nc: d"),
        ("http://localhost/", "--data", "no equals"),
        ("http://localhost/", "--raw", "--json"),
        ("http://localhost/", "--head", "--data", "a=b"),
        ("http://localhost/", "--timeout", "0"),
        (),
    ],
)
def test_usage(arguments: tuple[str, ...]) -> None:
    """Wrong usage is 2, with a line that says what was wrong."""
    status, output, errors = run("fetch", *arguments)
    assert (status, output) == (2, b"")
    assert errors.startswith("Usage: twistednet fetch [OPTIONS] URL\n")
    assert errors.count("Error: ") == 1
    assert "Traceback" not in errors


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, dict[str, str]]:
    """A certificate authority, and the environment in which it is trusted."""
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority = trustme.CA()
    authority.cert_pem.write_to_path(path)
    return authority, {**ENVIRONMENT, "SSL_CERT_FILE": str(path)}


def tls_context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    """A server's TLS context with a certificate for `name`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def fetch_in(environment: dict[str, str], *arguments: str) -> tuple[int, bytes, str]:
    """`run` in another environment."""
    done = run_console("twistednet", "fetch", *arguments, capture_output=True, env=environment)
    return done.returncode, done.stdout, done.stderr.decode()


def test_tls(authority: tuple[trustme.CA, dict[str, str]]) -> None:
    """Where the certificate is good, TLS is used; --raw shows what is inside."""
    with http_server(answer(b"hello"), answer(b"hello"), tls=tls_context(authority[0], "127.0.0.1")) as server:
        status, output, errors = fetch_in(authority[1], server.url)
        assert (status, output) == (0, b"hello"), errors
        status, output, errors = fetch_in(authority[1], "--raw", server.url)
        assert (status, output) == (0, server.requests[1] + answer(b"hello"))


def test_tls_unknown_authority(authority: tuple[trustme.CA, dict[str, str]]) -> None:
    """A certificate from nobody we know is refused, and nothing is asked."""
    with http_server(answer(b"hello"), tls=tls_context(authority[0], "127.0.0.1")) as server:
        assert run("fetch", server.url) == (
            1,
            b"",
            f"twistednet fetch: {server.url}/: TLS: certificate verify failed\n",
        )
    assert server.requests == []


def test_tls_wrong_name(authority: tuple[trustme.CA, dict[str, str]]) -> None:
    """So is a certificate for another name."""
    with http_server(answer(b"hello"), tls=tls_context(authority[0], "example.com")) as server:
        expected = f"twistednet fetch: {server.url}/: TLS: the certificate is not for this name\n"
        assert fetch_in(authority[1], server.url) == (1, b"", expected)
    assert server.requests == []


def test_tls_none() -> None:
    """A server that talks something else than TLS is told in one line."""

    def greet(connection: socket.socket) -> None:
        connection.sendall(b"220 mail.example SMTP\r\n" * 3)
        while connection.recv(65536):
            pass

    with tcp_server(greet) as port:
        status, output, errors = run("fetch", f"https://127.0.0.1:{port}/")
    assert (status, output) == (1, b"")
    assert re.fullmatch(rf"twistednet fetch: https://127.0.0.1:{port}/: TLS: [\w ]+\n", errors), errors


# Where the body goes


def test_output(tmp_path: Path) -> None:
    """-o writes a file, as any new file is made, and replaces one that is there, also behind a link."""
    old = tmp_path / "old"
    old.write_bytes(b"a longer text than the new one")
    (tmp_path / "link").symlink_to("old")
    with http_server(*[answer(b"hello")] * 3) as server:
        for name in ("new", "old", "link"):
            status, output, errors = run("fetch", "-o", tmp_path / name, server.url)
            assert (status, output) == (0, b"")
            check_summary(errors, "200 OK", 5)
    (tmp_path / "usual").touch()
    assert {path.name for path in tmp_path.iterdir()} == {"new", "old", "link", "usual"}
    assert (tmp_path / "new").read_bytes() == old.read_bytes() == b"hello"
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_output_elsewhere(tmp_path: Path) -> None:
    """What is no file is written to; - is standard output."""
    os.mkfifo(tmp_path / "pipe")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()
    with http_server(*[answer(b"hello")] * 3) as server:
        assert run("fetch", "-o", "/dev/null", server.url)[0] == 0
        assert run("fetch", "-o", "-", server.url)[:2] == (0, b"hello")
        assert run("fetch", "-o", tmp_path / "pipe", server.url)[0] == 0
    reader.join(PATIENCE)
    assert got == [b"hello"]


def test_output_impossible(tmp_path: Path) -> None:
    """A file that can't be written is told in one line, before anything is asked."""
    for path, why in ((tmp_path / "no" / "x", "No such file or directory"), (tmp_path, "Is a directory")):
        assert run("fetch", "-o", path, "http://127.0.0.1:1/") == (1, b"", f"twistednet fetch: {path}: {why}\n")
    with http_server(answer(b"hello")) as server:
        expected = "twistednet fetch: /dev/full: No space left on device\n"
        assert run("fetch", "-o", "/dev/full", server.url) == (1, b"", expected)


def test_interrupted(tmp_path: Path) -> None:
    """Ctrl-C leaves no file."""
    server = tcp_server(talking(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", pause=2))
    with server as port, Program("fetch", "-o", tmp_path / "x", f"http://127.0.0.1:{port}/") as program:
        give_up = time.monotonic() + PATIENCE
        while not any(path.stat().st_size for path in tmp_path.iterdir()):
            assert time.monotonic() < give_up
            time.sleep(0.01)
        program.process.send_signal(signal.SIGINT)
        assert program.wait() == (130, "")
    assert list(tmp_path.iterdir()) == []


def test_slow_reader() -> None:
    """A reader that takes its time makes the server wait, for longer than the time-out; nothing is kept or lost."""
    piece = bytes(range(256)) * 256
    sent = 0

    def talk(connection: socket.socket) -> None:
        nonlocal sent
        receive_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(piece) * 800))
        for _ in range(800):
            connection.sendall(piece)
            sent += len(piece)

    with tcp_server(talk) as port, Program("fetch", "--timeout", "0.5", f"http://127.0.0.1:{port}/") as program:
        program.read(1)
        time.sleep(1.5)
        assert sent < 16_000_000  # in the buffers of the sockets and the pipe; ours has a piece
        assert peak_memory(program.process.pid) < 90_000_000
        rest = program.stdout.read()
        status, errors = program.wait()
    assert (status, rest) == (0, (piece * 800)[1:])
    check_summary(errors, "200 OK", len(piece) * 800)


def peak_memory(pid: int) -> int:
    """The most memory that a process has had so far, in bytes."""
    (peak,) = re.findall(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(peak) * 1024


def test_nobody_reads() -> None:
    """A reader that goes away ends it."""
    for option in ((), ("--raw",)):
        with http_server(answer(b"x" * 10_000_000)) as server, Program("fetch", *option, server.url) as program:
            program.read(10)
            program.stdout.close()
            assert program.wait() == (1, "twistednet fetch: nobody reads standard output\n")


def test_from_files(tmp_path: Path) -> None:
    """A file comes from our own server as it is, however long it is, in the memory that a short one takes."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "short").write_bytes(b"hello")
    with open(folder / "long", "wb") as file:
        file.write(b"begin")
        file.truncate(300_000_000)
        file.seek(0, os.SEEK_END)
        file.write(b"end")
    arguments = ("files", "--root", str(folder), "--port", "0")
    with Twistd(tmp_path, *arguments, endpoints=1) as twistd:
        peaks = {}
        before = peak_memory(twistd.process.pid)
        for name in ("short", "long"):
            url = f"http://127.0.0.1:{twistd.port()}/{name}"
            command = [SCRIPTS / "twistednet", "fetch", "-o", tmp_path / "got", url]
            process = programs.Popen(command, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            assert process.returncode == 0
            peaks[name] = usage.ru_maxrss * 1024
            programs.run(["cmp", tmp_path / "got", folder / name], check=True)
        assert peaks["long"] - peaks["short"] < 8_000_000
        assert peak_memory(twistd.process.pid) - before < 8_000_000
        assert run("fetch", f"http://127.0.0.1:{twistd.port()}/none")[0] == 1
        twistd.assert_stops_cleanly()


# The terminal


def test_progress(tmp_path: Path) -> None:
    """At a terminal, a bar is there while the body goes to a file, and gone afterwards."""
    parts = [b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n", *[b"x" * 1000] * 4]
    with tcp_server(talking(*parts, pause=0.3)) as port:
        with Terminal("fetch", "-o", tmp_path / "x", f"http://127.0.0.1:{port}/") as terminal:
            assert terminal.wait() == 0
        assert "━" in terminal.transcript.decode()
        assert re.search(r"[123]\.0/4\.0 kB", terminal.transcript.decode())
        assert "\x1b[2K" in terminal.transcript.decode()
        assert SUMMARY.search(terminal.transcript.decode().replace("\r", ""))


def test_no_progress() -> None:
    """A body that goes to the terminal itself is not disturbed."""
    server = tcp_server(talking(answer(b"hello\n"), pause=0.3))
    with server as port, Terminal("fetch", f"http://127.0.0.1:{port}/") as terminal:
        assert terminal.wait() == 0
    shown = terminal.transcript.decode().replace("\r", "")
    assert shown.startswith("hello\n")
    check_summary(shown.removeprefix("hello\n"), "200 OK", 6)


# The parts


def test_http_url() -> None:
    """A URL is asked for as the standard has it."""
    assert http_url("HTTP://LocalHost").to_text() == "http://localhost/"
    assert http_url("http://[::1]:80/a?b#c").to_text() == "http://[::1]/a?b"
    assert http_url("http://bücher.example/ü").to_text() == "http://xn--bcher-kva.example/%C3%BC"
    with pytest.raises(click.UsageError):
        http_url("mailto:a@example.com")


def test_units() -> None:
    """A rate is told in the unit that suits it."""
    assert [in_units(n) for n in (0, 999, 1000, 2.5e6, 1.1e9, 5e12)] == [
        "0 bytes",
        "999 bytes",
        "1 kB",
        "2.5 MB",
        "1.1 GB",
        "5000 GB",
    ]
