"""A folder is served, and nothing else."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
import trustme
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.programs import run_console
from tests.services.options import MemoryReactor, ServiceTestCase
from tests.services.running import Twistd, connect, connect_unix, receive_all
from tests.wire import BUFFER_SIZE, Wire, every_cut, pieces
from twistednet.services import files
from twistednet.services.folder import READ_SIZE, Folder, FolderSite

SECRET = b"the secret"

ESCAPES = [
    b"/../secret",
    b"/../../secret",
    b"/../root/../secret",
    b"/./../secret",
    b"/sub/../../secret",
    b"/sub/../../../../../../../../etc/passwd",
    b"/..",
    b"/../",
    b"/../root.secret",
    b"//../secret",
    b"///etc/passwd",
    b"//etc/passwd",
    b"/%2e%2e/secret",
    b"/%2E%2E/secret",
    b"/.%2e/secret",
    b"/%2e./secret",
    b"/..%2fsecret",
    b"/..%2Fsecret",
    b"/%2e%2e%2fsecret",
    b"/%2fetc%2fpasswd",
    b"/sub/..%2f..%2fsecret",
    b"/sub%2f..%2f..%2fsecret",
    b"/..\\secret",
    b"/..%5csecret",
    b"/%2e%2e%5csecret",
    b"/sub\\..\\..\\secret",
    b"/%252e%252e/secret",
    b"/%252e%252e%252fsecret",
    b"/..%252fsecret",
    b"/%c0%ae%c0%ae/secret",
    b"/%c0%ae%c0%ae%c0%afsecret",
    b"/..%c0%afsecret",
    b"/..%c1%9csecret",
    b"/%e0%80%ae%e0%80%ae/secret",
    b"/%uff0e%uff0e/secret",
    b"/\xc0\xae\xc0\xae/secret",
    b"/..%00/secret",
    b"/%00/../secret",
    b"/a.txt%00.html",
    b"/a.txt/../../secret",
    b"/..;/secret",
    b"/....//secret",
    b"/...//secret",
    b"/~root/secret",
    b"/out/secret",
    b"/out",
    b"/out/",
    b"/secret-link",
    b"/sub/up/secret",
    b"/chain/secret",
    b"/sub/up/root/../secret",
    b"/sibling/file",
    b"/.hidden",
    b"/.git/config",
    b"/%2ehidden",
    b"/%2egit/config",
    b"/sub/.hidden",
    b"/visible/config",
    b"file:///etc/passwd",
    b"/?/../../secret",
    b"/sub/loop",
    b"/pipe",
    b"/" + b"a" * 5000,
    b"/" + b"x/" * 3000,
]


def build(folder: Path) -> Folder:
    """A folder with a bit of everything in it, and secrets around it."""
    root = folder / "root"
    (root / "sub").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / "index").mkdir()
    (folder / "root.secret").mkdir()
    (folder / "root.secret" / "file").write_bytes(SECRET)
    for path in (folder / "secret", root / ".hidden", root / "sub" / ".hidden", root / ".git" / "config"):
        path.write_bytes(SECRET)
    (root / "a.txt").write_bytes(b"hello")
    (root / "empty").write_bytes(b"")
    (root / "archive.tar.gz").write_bytes(b"\x1f\x8b")
    (root / "index" / "index.html").write_bytes(b"<p>index")
    (root / "sub" / "b.bin").write_bytes(bytes(range(256)))
    os.mkfifo(root / "pipe")
    for link, target in (
        ("inside", "sub"),
        ("out", ".."),
        ("secret-link", "../secret"),
        ("sub/up", "../.."),
        ("chain", "out"),
        ("sibling", "../root.secret"),
        ("visible", ".git"),
        ("sub/loop", "loop"),
    ):
        (root / link).symlink_to(target)
    return Folder(str(root))


class WebWire(Wire):
    """A connection to a server that writes its headers piece by piece."""

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))


class FolderTests(SynchronousTestCase):
    """`FolderSite`, over a connection in memory."""

    def setUp(self) -> None:
        self.path = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.path)
        self.folder = build(self.path)
        self.serve(self.folder)

    def serve(self, folder: Folder) -> None:
        self.clock = Clock()
        self.site = FolderSite(folder, reactor=self.clock)
        self.site.doStart()
        self.addCleanup(self.site.doStop)
        self.logged: list[LogEvent] = []
        observer = cast(ILogObserver, self.logged.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def ask(self, target: bytes, *headers: bytes, method: bytes = b"GET") -> tuple[int, dict[bytes, bytes], bytes]:
        """The status, the headers and the body of the answer to one request."""
        wire = WebWire.to(self.site)
        wire.send(b"\r\n".join((method + b" " + target + b" HTTP/1.0", *headers, b"", b"")))
        self.assertTrue(wire.closed)
        self.assertEqual([event for event in self.logged if "log_failure" in event], [])
        return self.parse(wire.received)

    def parse(self, answer: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        head, _, body = answer.partition(b"\r\n\r\n")
        status, *lines = head.split(b"\r\n")
        return int(status.split()[1]), dict(cast(Any, (line.split(b": ", 1) for line in lines))), body

    def test_file(self) -> None:
        """A file comes with its length and its type."""
        status, headers, body = self.ask(b"/a.txt")
        self.assertEqual((status, body), (200, b"hello"))
        self.assertEqual((headers[b"Content-Length"], headers[b"Content-Type"]), (b"5", b"text/plain"))
        self.assertEqual(self.ask(b"/sub/b.bin")[1:][1], bytes(range(256)))
        self.assertEqual(self.ask(b"/sub/b.bin?any=query")[0], 200)
        self.assertEqual(self.ask(b"/inside/b.bin")[0], 200)

    def test_types(self) -> None:
        """A type is never a guess, and a compressed file is a file as any other."""
        headers = self.ask(b"/archive.tar.gz")[1]
        self.assertEqual(headers[b"Content-Type"], b"application/gzip")
        self.assertNotIn(b"Content-Encoding", headers)
        (self.path / "root" / "README").write_bytes(b"x")
        self.assertEqual(self.ask(b"/README")[1][b"Content-Type"], b"application/octet-stream")

    def test_empty_file(self) -> None:
        """A file of no bytes is one."""
        status, headers, body = self.ask(b"/empty")
        self.assertEqual((status, headers[b"Content-Length"], body), (200, b"0", b""))
        self.assertEqual(self.ask(b"/empty", b"Range: bytes=0-")[0], 416)
        self.assertEqual(self.ask(b"/empty", b"Range: bytes=-5")[0], 416)

    def test_head(self) -> None:
        """HEAD is answered as GET is, without the body."""
        for target in (b"/a.txt", b"/", b"/nothing", b"/sub"):
            (status, headers, _), (again, same, body) = self.ask(target), self.ask(target, method=b"HEAD")
            self.assertEqual((again, body), (status, b""))
            if status == 200:
                self.assertEqual(same[b"Content-Length"], headers[b"Content-Length"])

    def test_ranges(self) -> None:
        """One range is sent by itself."""
        for asked, sent, where in (
            (b"0-0", b"h", b"0-0"),
            (b"1-3", b"ell", b"1-3"),
            (b"3-", b"lo", b"3-4"),
            (b"3-4", b"lo", b"3-4"),
            (b"3-5", b"lo", b"3-4"),
            (b"3-999999999999999999", b"lo", b"3-4"),
            (b"-2", b"lo", b"3-4"),
            (b"-5", b"hello", b"0-4"),
            (b"-500", b"hello", b"0-4"),
        ):
            status, headers, body = self.ask(b"/a.txt", b"Range: bytes=" + asked)
            self.assertEqual((status, body, headers[b"Content-Range"]), (206, sent, b"bytes %s/5" % where))
            self.assertEqual(headers[b"Content-Length"], b"%d" % len(sent))

    def test_range_past_the_end(self) -> None:
        """A range that has nothing in it is refused, with the length of the file."""
        for asked in (b"5-", b"5-9", b"999-", b"-0", b"3-1"):
            status, headers, body = self.ask(b"/a.txt", b"Range: bytes=" + asked)
            self.assertEqual((status, headers[b"Content-Range"], body), (416, b"bytes */5", b""))

    def test_ranges_ignored(self) -> None:
        """Several ranges, or what is none, get the whole file, and nothing of it is in the log."""
        for asked in (
            b"bytes=0-1,3-4",
            b"bytes=",
            b"bytes=-",
            b"bytes=a-b",
            b"lines=1-2",
            b"\xff",
            b"bytes=+1-2",
            b"x",
        ):
            status, _, body = self.ask(b"/a.txt", b"Range: " + asked)
            self.assertEqual((status, body), (200, b"hello"))
        self.assertEqual([event for event in self.logged if "Range" in str(event)], [])

    def test_range_if_unchanged(self) -> None:
        """A range of another state of the file than the client has is no use to it: it gets the whole."""
        when = self.ask(b"/a.txt")[1][b"Last-Modified"]
        self.assertEqual(self.ask(b"/a.txt", b"Range: bytes=1-", b"If-Range: " + when)[0], 206)
        self.assertEqual(self.ask(b"/a.txt", b"Range: bytes=1-", b'If-Range: "other"')[0], 200)

    def test_not_modified(self) -> None:
        """A client that has the file is told so."""
        when = self.ask(b"/a.txt")[1][b"Last-Modified"]
        self.assertEqual(self.ask(b"/a.txt", b"If-Modified-Since: " + when)[0], 304)
        self.assertEqual(self.ask(b"/a.txt", b"If-Modified-Since: \xff nonsense")[0], 200)

    def test_index(self) -> None:
        """A folder with an index.html is shown by that."""
        self.assertEqual(self.ask(b"/index/")[2], b"<p>index")

    def test_index_leads_out(self) -> None:
        """An index.html that is a link to elsewhere is none."""
        (self.path / "root" / "sub" / "index.html").symlink_to("../../secret")
        status, _, body = self.ask(b"/sub/")
        self.assertEqual(status, 200)
        self.assertNotIn(SECRET, body)
        self.assertNotIn(b"index.html", body)

    def test_folder_without_slash(self) -> None:
        """A folder's address ends with a slash; who leaves it out is told, and not led to another site."""
        for asked, told in ((b"/sub", b"/sub/"), (b"/sub?x=%ff", b"/sub/"), (b"/%73ub", b"/sub/")):
            status, headers, _ = self.ask(asked)
            self.assertEqual((status, headers[b"Location"]), (302, told))
        self.assertEqual(self.ask(b"//example.com")[0], 404)
        self.assertEqual(self.ask(b"//sub")[0], 404)

    def test_listing(self) -> None:
        """A folder without an index is listed: what is served of it, and only that."""
        status, headers, body = self.ask(b"/")
        self.assertEqual((status, headers[b"Content-Type"]), (200, b"text/html; charset=utf-8"))
        self.assertEqual(
            [line.split(b'"')[1] for line in body.splitlines() if b"href=" in line],
            [b"a.txt", b"archive.tar.gz", b"empty", b"index/", b"inside/", b"sub/"],
        )

    def test_listing_names(self) -> None:
        """Names in any encoding, with any characters, are shown harmlessly and lead to their files."""
        names = [
            b"caf\xe9",
            b"<script>",
            b'"quoted" & more',
            b"50%25",
            b"a?b#c",
            b"javascript:x",
            b"\xe2\x82\xac",
            b"a\nb",
        ]
        folder = os.fsencode(self.path / "root" / "sub")
        for name in names:
            Path(os.fsdecode(os.path.join(folder, name))).write_bytes(name)
        body = self.ask(b"/sub/")[2]
        self.assertNotIn(b"<script>", body)
        self.assertIn("€".encode(), body)
        targets = [piece.split(b'"')[0] for piece in body.split(b'href="')[1:]]
        self.assertEqual({self.ask(b"/sub/" + target)[2] for target in targets} - {bytes(range(256))}, set(names))

    def test_hidden(self) -> None:
        """Names with a dot in front are there when they are asked to be."""
        self.assertEqual(self.ask(b"/.hidden")[0], 404)
        self.serve(Folder(self.folder.path, hidden=True))
        self.assertEqual(self.ask(b"/.hidden")[2], SECRET)
        self.assertEqual(self.ask(b"/visible/config")[2], SECRET)
        self.assertIn(b".git/", self.ask(b"/")[2])
        self.assertEqual([self.ask(b"/" + up)[0] for up in (b".", b"..", b"../secret", b"./a.txt")], [404] * 4)

    def test_root_is_a_link(self) -> None:
        """The folder itself may be named by a link, and have a dot in its path."""
        (self.path / ".link").symlink_to("root")
        self.serve(Folder(str(self.path / ".link")))
        self.assertEqual(self.ask(b"/a.txt")[2], b"hello")
        self.assertEqual(self.ask(b"/out/secret")[0], 404)

    def test_unreadable(self) -> None:
        """What may not be read is refused, and what has gone is not found; neither is a matter for the log."""

        def refused(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        def gone(*_: object) -> None:
            raise FileNotFoundError(2, "No such file or directory")

        self.patch(Folder, "openForReading", refused)
        self.assertEqual(self.ask(b"/a.txt")[0], 403)
        self.patch(Folder, "openForReading", gone)
        self.assertEqual(self.ask(b"/a.txt")[0], 404)
        self.patch(os, "scandir", refused)
        self.assertEqual(self.ask(b"/sub/")[0], 403)

    def test_other_methods(self) -> None:
        """Only GET and HEAD are allowed, whatever the target."""
        for method in (b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PROPFIND", b"get"):
            for target in (b"/a.txt", b"/", b"/%ff", b"/nothing"):
                status, headers, _ = self.ask(target, method=method)
                self.assertEqual((status, headers[b"Allow"]), (405, b"GET, HEAD"))

    def test_upload_dropped(self) -> None:
        """What comes with a request is not kept."""
        wire = WebWire.to(self.site)
        wire.send(b"POST /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n")
        (content,) = [request.content for request in cast(Any, wire.protocol).requests]
        self.assertEqual(content.name, os.devnull)
        wire.send(*[b"x" * 1_000_000] * 10)
        self.assertEqual(self.parse(wire.received)[0], 405)
        wire.end()

    def test_log(self) -> None:
        """A request is one line of the log, with nothing raw in it."""
        self.ask(b'/%ff%1b[31m"', b"User-Agent: a\x1bb", b"Referer: \x07\xfe")
        (line,) = [text for text in map(formatEvent, self.logged) if "HTTP/1.0" in text]
        self.assertIn("404", line)
        self.assertTrue(line.isascii() and line.isprintable(), line)

    def test_no_http(self) -> None:
        """What is no HTTP is refused without a word in the log."""
        for nonsense in (
            b"\xff\xff\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET / HTTP/9\r\n\r\n",
            b"GET / HTTP/1.1\r\nbad\r\n\r\n",
        ):
            wire = WebWire.to(self.site).send(nonsense)
            wire.end()
            self.assertTrue(wire.closed)
            self.assertTrue(wire.received.startswith(b"HTTP/1.1 400"), wire.received)
        self.assertEqual([event for event in self.logged if "log_failure" in event], [])

    def test_cut_at_every_position(self) -> None:
        """A request means the same wherever it is cut."""
        request = b"GET /sub/b.bin HTTP/1.1\r\nHost: x\r\nRange: bytes=65-70\r\nConnection: close\r\n\r\n"
        for first, second in every_cut(request):
            wire = WebWire.to(self.site).send(first, second)
            self.assertEqual(self.parse(wire.received)[::2], (206, b"ABCDEF"))
            self.assertTrue(wire.closed)

    @given(st.lists(st.integers(0, 60)))
    def test_random_pieces(self, sizes: list[int]) -> None:
        """Several requests of one connection are answered in order, however they are cut, and then it is closed."""
        requests = b"".join(
            b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % target for target in (b"/a.txt", b"/empty", b"/a.txt")
        )
        wire = WebWire.to(self.site).send(*pieces(requests, sizes)).end()
        self.assertEqual((wire.received.count(b"HTTP/1.1 200 OK"), wire.received.count(b"hello")), (3, 2))
        self.assertTrue(wire.closed)

    def test_half_close(self) -> None:
        """A client that ends its stream with its request gets the whole answer, whether it reads fast or slowly."""
        size = 10 * READ_SIZE + 1
        (self.path / "root" / "big").write_bytes(os.urandom(size))
        for version in (b"HTTP/1.0", b"HTTP/1.1"):
            wire = WebWire.to(self.site)
            wire.arrive(b"GET /big %s\r\nHost: x\r\n\r\n" % version)
            wire._peer_ended = True
            while wire.read(50_000):
                pass
            wire.end()
            self.assertEqual(self.parse(wire.received)[2], (self.path / "root" / "big").read_bytes())
            self.assertTrue(wire.closed)

    def test_half_close_in_request(self) -> None:
        """A request that is not complete gets no answer."""
        for part in (b"", b"GET /a.txt HTT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf"):
            wire = WebWire.to(self.site).send(part).end()
            self.assertEqual((wire.received, wire.closed), (b"", True))

    def big(self, size: int) -> WebWire:
        """A connection that has asked for a sparse file of `size` bytes, and reads nothing so far."""
        with open(self.path / "root" / "big", "wb") as file:
            file.truncate(size)
        wire = WebWire.to(self.site)
        wire.arrive(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        return wire

    def test_never_reads(self) -> None:
        """A file as long as you like waits on the disk for a reader that doesn't read."""
        wire = self.big(2**40)
        self.assertLess(len(wire.waiting), BUFFER_SIZE + 2 * READ_SIZE)
        (producer,) = [request.producer for request in cast(Any, wire.protocol).requests]
        wire.reset()
        self.assertTrue(producer.file.closed)

    def test_grows(self) -> None:
        """A file that grows while it is sent is sent as long as was said, and the next answer is right."""
        wire = self.big(4 * READ_SIZE)
        with open(self.path / "root" / "big", "ab") as file:
            file.write(b"more")
        wire.turn()
        wire.send(b"GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n")
        first, second = wire.received.split(b"HTTP/1.1 200 OK")[1:]
        self.assertEqual(len(first.partition(b"\r\n\r\n")[2]), 4 * READ_SIZE)
        self.assertTrue(second.endswith(b"\r\n\r\nhello"))
        wire.end()

    def test_shrinks(self) -> None:
        """When a file shrinks while it is sent, the connection is closed: the rest will never come."""
        wire = self.big(10 * READ_SIZE)
        os.truncate(self.path / "root" / "big", READ_SIZE)
        wire.turn()
        self.assertTrue(wire.closed)
        self.assertLess(len(wire.received), 4 * READ_SIZE)

    def test_disk_fails(self) -> None:
        """A file that can't be read to its end closes the connection too."""
        wire = self.big(10 * READ_SIZE)
        (producer,) = [request.producer for request in cast(Any, wire.protocol).requests]

        class Broken:
            closed = False

            def read(self, size: int) -> bytes:
                raise OSError(5, "Input/output error")

            def close(self) -> None:
                self.closed = True

        producer.file.close()
        producer.file = Broken()
        wire.turn()
        self.assertTrue(wire.closed)
        self.assertEqual([event for event in self.logged if "log_failure" in event], [])

    def test_idle(self) -> None:
        """A connection on which nothing is asked is closed in the end."""
        wire = WebWire.to(self.site)
        self.clock.advance(61)
        self.assertTrue(wire.disconnecting)


class OptionsTests(ServiceTestCase):
    """``twistd files``."""

    def test_root(self) -> None:
        """What is served is a folder, the current one by default."""
        options = files.Options()
        options.parseOptions([])
        self.assertEqual(options["root"], os.getcwd())
        options = files.Options()
        options.parseOptions(["--root", "/usr", "--hidden"])
        self.assertEqual((options["root"], options["hidden"]), ("/usr", 1))

    def test_bad_root(self) -> None:
        """What is no folder is refused in one line."""
        for path in ("/nonexistent", "/etc/passwd", ""):
            self.assert_refused(files.Options, f"--root {path}: not a folder", "--root", path)

    def test_unreadable_root(self) -> None:
        """So is a folder that can't be read."""
        self.patch(os, "access", lambda *_: False)
        self.assert_refused(files.Options, "--root /usr: not a folder that can be read", "--root", "/usr")

    def test_help(self) -> None:
        """The help text has the service's own options."""
        self.assert_help(files.Options, "--root", "--hidden")

    def test_service(self) -> None:
        """The service listens where it is told to, and serves the folder."""
        options = files.Options()
        options.parseOptions(["--root", "/usr"])
        reactor = MemoryReactor()
        service = files.makeService(options, reactor=reactor)
        service.startService()
        ((port, site, _, interface),) = cast(Any, reactor.tcpServers)
        self.assertEqual((port, interface), (8000, "127.0.0.1"))
        self.assertEqual((site.resource.path, site.resource.hidden, site.displayTracebacks), ("/usr", False, False))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A folder with a bit of everything in it."""
    return build(tmp_path)


def exchange(port: int, request: bytes) -> bytes:
    """Send `request` as it is, and return all that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while data := client.recv(65536):
            answer += data
        return answer


@pytest_twisted.ensureDeferred
async def test_no_way_out(live_reactor: Any, folder: Folder) -> None:
    """No way of writing an address leads out of the folder, or to what is hidden in it."""
    port = live_reactor.listenTCP(0, FolderSite(folder), interface="127.0.0.1")
    try:
        number = port.getHost().port
        for path in ESCAPES:
            for version in (b"HTTP/1.0", b"HTTP/1.1"):
                request = b"GET " + path + b" " + version + b"\r\nHost: localhost\r\n\r\n"
                answer = await deferToThread(exchange, number, request)
                refused = path in (b"//etc/passwd", b"/?/../../secret") or answer.split()[1] in (b"404", b"400")
                assert refused, (path, answer)
                assert SECRET not in answer, path
                assert b"root:" not in answer, path
        # The same server does answer.
        answer = await deferToThread(exchange, number, b"GET /a.txt HTTP/1.0\r\n\r\n")
        assert answer.endswith(b"\r\n\r\nhello")
    finally:
        await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_half_close_live(live_reactor: Any, folder: Folder) -> None:
    """A real client that ends its stream with its requests gets every answer in full."""
    body = os.urandom(5_000_000)
    (Path(folder.path) / "big").write_bytes(body)
    port = live_reactor.listenTCP(0, FolderSite(folder), interface="127.0.0.1")
    try:
        for requests in (b"GET /big HTTP/1.0\r\n\r\n", b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n" * 3):
            answer = await deferToThread(exchange, port.getHost().port, requests)
            assert answer.count(body) == requests.count(b"GET")
            assert answer.endswith(body)
    finally:
        await port.stopListening()


def test_endpoints(tmp_path: Path) -> None:
    """``twistd files`` serves over TCP, IPv6, TLS and a Unix socket; a bad folder is one line, and status 1."""
    (tmp_path / "a.txt").write_bytes(b"hello")
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    where = (
        "tcp:0:interface=127.0.0.1",
        "tcp:0:interface=\\:\\:1",
        "ssl:0:privateKey=server.pem:interface=127.0.0.1",
        "unix:web",
    )
    options = [word for endpoint in where for word in ("--listen", endpoint)]
    request = b"GET /a.txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with Twistd(tmp_path, "files", *options, endpoints=4) as twistd:
        secure = context.wrap_socket(connect(twistd.port(2)), server_hostname="localhost")
        for client in (connect(twistd.port(0)), connect(twistd.port(1), "::1"), secure, connect_unix(tmp_path / "web")):
            with client:
                client.sendall(request)
                assert receive_all(client).endswith(b"\r\n\r\nhello")
        assert twistd.log.count('"GET /a.txt HTTP/1.1" 200 5') == 4
        twistd.assert_stops_cleanly()
    command = "twistd", "--nodaemon", "files", "--root", "nowhere"
    refused = run_console(*command, cwd=tmp_path, capture_output=True)
    expected = b"twistd files: --root nowhere: not a folder (see twistd files --help)\n"
    assert (refused.returncode, refused.stdout, refused.stderr) == (1, b"", expected)
