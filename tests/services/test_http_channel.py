"""`Channel`: when requests are handled, and how a connection ends."""

from __future__ import annotations

import errno
import os
import shutil
import ssl
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import h11
import pytest
import trustme
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.services.running import PATIENCE, Twistd, connect, receive, receive_all
from tests.wire import BUFFER_SIZE, OneWayWire, Wire
from twistednet.protocols.flow import LINGER
from twistednet.services.folder import NAMES, READ_SIZE, FileProducer, Folder, FolderSite
from twistednet.services.http_channel import MAX_BUFFERED

SMALL = 100_000
"""The size of the file `small`: more than a transport buffers, less than is read at a time."""


def get(target: bytes, *headers: bytes) -> bytes:
    """A request for `target`."""
    return b"\r\n".join((b"GET " + target + b" HTTP/1.1", b"Host: x", *headers, b"", b""))


MALFORMED = [
    b"\r\n\r\n",
    b"\r\n\r\n\r\n\r\n",
    b"\r\n\r\n" + get(b"/a.txt"),
    b"\n\n",
    b"\x00" * 50 + b"\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    b"GET\r\n\r\n",
    b" GET / HTTP/1.1\r\n\r\n",
    b"GET\t/\tHTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1 x\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
    b"GET / HTTP/1.1\r\nno colon\r\nContent-Length: 5\r\n\r\nhello",
    b"GET / HTTP/1.1\r\n: no name\r\n\r\n",
    b"GET / HTTP/1.1\r\n continued: nothing\r\n\r\n",
    b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 600 + b"\r\n",
    b"GET / HTTP/1.1\r\na: " + b"b" * 17_000 + b"\r\n\r\n",
    b"G" * 20_000,
    b"GET /" + b"x" * 16_370 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    get(b"/", b"Content-Length: " + b"9" * 5000),
    get(b"/", b"Content-Length: " + b"9" * 5000, b"A: b"),
    get(b"/", b"Content-Length: -1"),
    get(b"/", b"Content-Length: 5", b"Content-Length: 6") + b"hello!",
    get(b"/", b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    get(b"/", b"Transfer-Encoding: gzip, chunked"),
    get(b"/", b"Transfer-Encoding: chunked") + b"f" * 5000 + b"\r\n",
    get(b"/", b"Transfer-Encoding: chunked") + b"-1\r\n",
    get(b"/", b"Transfer-Encoding: chunked") + b"1\r\nabc\r\n",
    get(b"/", b"Transfer-Encoding: chunked") + b"0\r\n" + b"a: b\r\n" * 12_000,
]
"""Requests that get 400, and nothing after them is looked at."""

ODD = [
    get(b"/a.txt", b"If-Modified-Since: ;"),
    get(b"/a.txt", b"If-Modified-Since: a-b-c"),
    get(b"/a.txt", b"If-Modified-Since: Sun, 06 Nov " + b"9" * 5000 + b" 08:49:37 GMT"),
    get(b"/a.txt", b"If-Modified-Since: Sun, 06 Nov " + b"9" * 4000 + b" 08:49:37 GMT"),
    get(b"/a.txt", b"If-Modified-Since: Sun, -1 Nov 1994 -1:-1:-1 GMT"),
    get(b"/a.txt", b"Range: bytes=" + b"9" * 5000 + b"-"),
    get(b"/a.txt", b"If-Range: \xff", b"Range: bytes=0-1"),
    get(b"/a.txt", b"Connection: \xff"),
    get(b"/a.txt", b"Cookie: =;;;=\xff"),
    get(b"/a.txt", b"Authorization: Basic ////"),
    get(b"/a.txt", b"Expect: \xff"),
    get(b"/a.txt", b"Upgrade: websocket", b"Connection: Upgrade"),
    get(b"/a.txt", b"Content-Type: multipart/form-data; boundary=\xff", b"Content-Length: 3") + b"abc",
    get(b"/a.txt", b"Transfer-Encoding: chunked") + b"1\r\nx\r\n" * 5000 + b"0\r\nno trailer\r\n\r\n",
    get(b"*"),
    get(b"?"),
    get(b"http://[::1"),
    get(b"/?%ff=%zz&&&==;"),
    get(b"/" + b"a/" * 4000),
    get(b"/" + b"%2f" * 4000),
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\r\n" + get(b"/a.txt"),
]
"""Requests that get some answer, and the next request gets its own."""


class WebWire(Wire):
    """A connection to a server that writes its headers piece by piece."""

    writeSequence = lambda self, data: self.write(b"".join(data))  # noqa: E731


class WebOneWayWire(OneWayWire):
    """The same over what can't be half-closed."""

    writeSequence = lambda self, data: self.write(b"".join(data))  # noqa: E731


def answers(received: bytes, *methods: bytes) -> list[Any]:
    """The heads of the answers in `received` to requests with `methods`, as a strict client reads them."""
    client = h11.Connection(h11.CLIENT)
    client.receive_data(received)
    heads = []
    for method in methods:
        client.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"x")]))
        client.send(h11.EndOfMessage())
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            assert isinstance(event, h11.Response | h11.Data), event
            if isinstance(event, h11.Response):
                heads.append(event)
        if client.their_state is h11.DONE and client.our_state is h11.DONE:
            client.start_next_cycle()
    assert client.trailing_data[0] == b""
    return heads


def closes(head: Any) -> bool:
    """Whether an answer says that it is the last one."""
    return (b"connection", b"close") in list(head.headers)


class ChannelTests(SynchronousTestCase):
    """`Channel`, in front of a folder, over a connection in memory."""

    def setUp(self) -> None:
        self.path = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.path)
        (self.path / "a.txt").write_bytes(b"hello")
        (self.path / "small").write_bytes(b"s" * SMALL)
        (self.path / "big").write_bytes(b"b" * 10 * READ_SIZE)
        (self.path / "folder").mkdir()
        self.clock = Clock()
        self.site = FolderSite(Folder(str(self.path)), reactor=self.clock)
        self.logged: list[LogEvent] = []
        observer = cast(ILogObserver, self.logged.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.wire = WebWire.to(self.site)
        self.channel: Any = self.wire.protocol

    def assert_nothing_logged(self) -> None:
        self.assertEqual([event for event in self.logged if "log_failure" in event], [])

    # Messages

    def test_unfinished(self) -> None:
        """A request is unfinished from its first byte until its head and body have come."""
        seen = [self.channel.unfinished]
        for piece in (b"G", b"ET /a.txt HTTP/1.1\r\nHost", b": x\r\n\r\n", b"\r", b"\n" + get(b"/a.txt")):
            self.wire.send(piece)
            seen.append(self.channel.unfinished)
        self.assertEqual(seen, [None, 0, 0, None, 1, None])
        self.wire.send(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n")
        self.assertEqual(self.channel.unfinished, 2)
        self.wire.send(b"a")
        self.assertEqual(self.channel.unfinished, 2)
        self.wire.send(b"bc")
        self.assertEqual((self.channel.unfinished, self.channel.messages), (None, 3))

    def test_answering_is_not_unfinished(self) -> None:
        """While an answer is sent, nothing is unfinished, whatever has come of the next request."""
        self.wire.arrive(get(b"/big") + b"GET ")
        self.assertIsNone(self.channel.unfinished)
        self.wire.turn()
        self.assertEqual(self.channel.unfinished, 1)

    # How much at once

    def test_one_request_a_turn(self) -> None:
        """Of many requests in one packet, one is answered before others get their turn."""
        self.wire.arrive(get(b"/a.txt") * 10)
        self.assertEqual(b"".join(self.wire.writes).count(b"hello"), 1)
        self.wire.turn()
        self.assertEqual(self.wire.received.count(b"hello"), 10)

    def test_body_in_pieces(self) -> None:
        """A body is dropped in pieces, one a turn, and the request after it is answered."""
        head = get(b"/a.txt", b"Transfer-Encoding: chunked")
        self.wire.arrive(head + b"1\r\nx\r\n" * 9000 + b"0\r\n\r\n" + get(b"/a.txt"))
        self.assertEqual(self.wire.writes, [])
        self.wire.turn()
        self.assertEqual(self.wire.received.count(b"hello"), 2)

    def test_pipelined_and_unread(self) -> None:
        """A client that asks on and on and reads nothing is answered no further than the transport's buffer."""
        self.wire.arrive(get(b"/small") * 5000)
        self.clock.pump([0.0] * 100)
        self.assertLess(len(self.wire.waiting), BUFFER_SIZE + 2 * SMALL)
        self.assertLess(len(self.channel._received), MAX_BUFFERED + BUFFER_SIZE)
        wire = WebWire.to(self.site)
        wire.arrive(get(b"/small") * 30)
        wire.turn()
        self.assertEqual(wire.received.count(b"HTTP/1.1 200 OK"), 30)

    def test_full_before_the_file(self) -> None:
        """A file is not read while the transport is full already."""
        self.channel.pauseProducing()
        with open(self.path / "big", "rb") as file:
            FileProducer(self.site.requestFactory(self.channel), file, 0, 10, self.clock.callLater).start()
            self.assertEqual((self.wire.writes, file.tell()), ([], 0))
            self.channel.stopProducing()
            self.assertTrue(file.closed)

    def test_long_list(self) -> None:
        """A list of many names is made in pieces, sorted all the same."""
        names = sorted(f"file{i}" for i in range(2 * NAMES + 7))
        for name in names:
            (self.path / "folder" / name).touch()
        self.wire.arrive(get(b"/folder/"))
        self.assertEqual(self.wire.writes, [])
        self.wire.turn()
        self.assertEqual([row.split(b'"')[0].decode() for row in self.wire.received.split(b'href="')[1:]], names)

    def test_list_and_reader(self) -> None:
        """A list is made as it is read, and no further when the client has gone."""
        for i in range(3000):
            (self.path / "folder" / f"{i:0200}").touch()
        self.wire.arrive(get(b"/folder/"))
        self.clock.pump([0.0] * 1000)
        self.assertLess(len(self.wire.waiting), BUFFER_SIZE + 10_000)
        self.wire.reset()
        self.clock.pump([0.0] * 10)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    # The end

    def test_half_close(self) -> None:
        """Requests that have come before the end of the client's stream are all answered."""
        for target, size in ((b"/a.txt", 5), (b"/small", SMALL), (b"/big", 10 * READ_SIZE)):
            wire = WebWire.to(self.site)
            wire.arrive(get(target) * 5 + b"GET /incompl")
            wire.end()
            heads = answers(wire.received, *[b"GET"] * 5)
            self.assertEqual([dict(head.headers)[b"content-length"] for head in heads], [b"%d" % size] * 5)
            self.assertTrue(wire.closed)

    def test_closing_first(self) -> None:
        """After the last answer the server ends its stream, and discards what still comes."""
        self.wire.arrive(get(b"/small", b"Connection: close") + b"z" * 1_000_000)
        self.wire.turn()
        self.assertTrue(closes(*answers(self.wire.received, b"GET")))
        self.assertTrue(self.wire.ended)
        self.assertFalse(self.wire.closed)
        self.wire.send(get(b"/a.txt"))
        self.assertNotIn(b"hello", self.wire.received)
        self.wire.end()
        self.assertTrue(self.wire.closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_linger(self) -> None:
        """A client that does not end its own stream is closed under after a while."""
        self.wire.send(get(b"/a.txt", b"Connection: close"))
        self.clock.advance(LINGER - 1)
        self.assertFalse(self.wire.closed)
        self.clock.advance(1)
        self.assertTrue(self.wire.closed)

    def test_drain_idle(self) -> None:
        """A connection on which nothing is asked is closed at once, also in the middle of a request."""
        for sent in (b"", get(b"/a.txt"), b"GET /a.t", b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na"):
            wire = WebWire.to(self.site).send(sent)
            cast(Any, wire.protocol).finish()
            wire.turn()
            self.assertTrue(wire.ended)

    def test_drain_before_the_headers(self) -> None:
        """An answer whose headers have not been sent says that it is the last one."""
        self.wire.arrive(get(b"/folder/") + get(b"/a.txt"))
        self.channel.finish()
        self.wire.turn()
        self.assertTrue(closes(*answers(self.wire.received, b"GET")))
        self.assertTrue(self.wire.ended)

    def test_drain_after_the_headers(self) -> None:
        """An answer that has begun is finished; of the requests behind it, the next is answered, as the last one."""
        self.wire.arrive(get(b"/big") + get(b"/a.txt") * 2)
        self.channel.finish()
        self.wire.arrive(get(b"/a.txt"))
        self.wire.turn()
        heads = answers(self.wire.received, b"GET", b"GET")
        self.assertEqual([closes(head) for head in heads], [False, True])
        self.assertTrue(self.wire.ended)
        self.wire = WebWire.to(self.site)
        self.wire.arrive(get(b"/big"))
        cast(Any, self.wire.protocol).finish()
        self.wire.turn()
        self.assertEqual(self.wire.received.count(b"b" * 10 * READ_SIZE), 1)
        self.assertTrue(self.wire.ended)

    # What strangers send

    def test_malformed(self) -> None:
        """What is not HTTP gets 400 once, and no traceback, over every kind of connection."""
        for request in MALFORMED:
            for kind in (WebWire, WebOneWayWire):
                wire = kind.to(self.site)
                wire.send(request)
                wire.send(request + b"\r\n\r\n\r\n\r\n")
                wire.end()
                self.assertEqual((wire.received.count(b"HTTP/1.1 400"), wire.closed), (1, True), request[:80])
                self.assertTrue(closes(*answers(wire.received, b"GET")))
        self.assert_nothing_logged()

    def test_odd(self) -> None:
        """Whatever can be read as a request is answered, and so is the next."""
        for request in ODD:
            wire = WebWire.to(self.site).send(request + get(b"/small")).end()
            self.assertTrue(wire.received.endswith(b"s" * SMALL), (request[:80], wire.received[:300]))
            self.assertNotIn(b"HTTP/1.1 500", wire.received)
        self.assert_nothing_logged()

    def test_odd_byte_by_byte(self) -> None:
        """So it is when each byte comes by itself."""
        for request in [*MALFORMED, *ODD]:
            if len(request) < 200:
                whole = WebWire.to(self.site).send(request).end().received
                pieces = WebWire.to(self.site).send(*[request[i : i + 1] for i in range(len(request))]).end().received
                self.assertEqual(pieces.split(b"\r\n")[0], whole.split(b"\r\n")[0], request)
        self.assert_nothing_logged()

    def test_strict_client(self) -> None:
        """A strict client can read the answers of one connection, whatever they are."""
        wanted = {
            get(b"/a.txt"): 200,
            get(b"/folder/"): 200,
            get(b"/folder"): 302,
            get(b"/nothing"): 404,
            get(b"/a.txt", b"Range: bytes=1-2"): 206,
            get(b"/a.txt", b"Range: bytes=9-"): 416,
            get(b"/a.txt", b"If-Modified-Since: Fri, 31 Dec 2100 23:59:59 GMT"): 304,
            get(b"/folder/").replace(b"GET", b"HEAD"): 200,
            get(b"/a.txt").replace(b"GET", b"HEAD"): 200,
            get(b"/a.txt", b"Content-Length: 3").replace(b"GET", b"POST") + b"abc": 405,
        }
        self.wire.send(b"".join(wanted))
        heads = answers(self.wire.received, *[request.split()[0] for request in wanted])
        self.assertEqual([head.status_code for head in heads], list(wanted.values()))

    def test_nothing_left(self) -> None:
        """Where descriptors or memory have run out, the client is told to come back."""

        for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):

            def fail(*_: object, number: int = number) -> None:
                raise OSError(number, os.strerror(number))

            for target, where, name in (
                (b"/a.txt", Folder, "openForReading"),
                (b"/folder/", os, "scandir"),
                (b"/a.txt", os, "stat"),
            ):
                patch = self.patch(where, name, fail)
                self.wire.send(get(target))
                cast(Any, patch).restore()
                (head,) = answers(self.wire.received, b"GET")
                self.assertEqual(head.status_code, 503)
                self.assertIn(b"retry-after", dict(head.headers))
                self.wire.received = b""
        self.wire.send(get(b"/a.txt"))
        self.assertTrue(self.wire.received.endswith(b"hello"))
        self.assert_nothing_logged()

    def test_list_fails(self) -> None:
        """A list that can't be finished ends the connection."""

        def fail(*_: object) -> None:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

        self.wire.arrive(get(b"/"))
        self.patch(Folder, "find", fail)
        self.wire.turn()
        self.assertTrue(self.wire.ended)
        self.assertFalse(self.wire.received.endswith(b"0\r\n\r\n"))
        self.assert_nothing_logged()


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A folder to serve."""
    root = tmp_path / "pages"
    (root / "folder").mkdir(parents=True)
    (root / "a.txt").write_bytes(b"hello")
    (root / "big").write_bytes(os.urandom(3_000_000))
    for i in range(100):
        (root / "folder" / f"file{i}").touch()
    return root


def test_closing_first_live(tmp_path: Path, pages: Path) -> None:
    """The last answer arrives whole, whatever the client has sent behind its request."""
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    where = (
        "tcp:0:interface=127.0.0.1",
        "haproxy:tcp:0:interface=127.0.0.1",
        "ssl:0:privateKey=server.pem:interface=127.0.0.1",
    )
    options = [word for endpoint in where for word in ("--listen", endpoint)]
    with Twistd(tmp_path, "files", "--root", str(pages), *options, endpoints=3) as twistd:
        for _ in range(5):
            for n, greeting in enumerate((b"", b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n", b"")):
                client = connect(twistd.port(n))
                if n == 2:
                    client = context.wrap_socket(client, server_hostname="localhost")
                with client:
                    client.sendall(greeting + get(b"/big", b"Connection: close") + b"z" * 1_000_000)
                    head, _, body = receive_all(client).partition(b"\r\n\r\n")
                assert b"Connection: close" in head
                assert body == (pages / "big").read_bytes()
        twistd.assert_stops_cleanly()


def test_timeouts_live(tmp_path: Path, pages: Path) -> None:
    """A head that is dripped is cut by the message time-out, a slow download by neither."""
    options = ("--message-timeout", "1", "--idle-timeout", "2", "--port", "0")
    with Twistd(tmp_path, "files", "--root", str(pages), *options, endpoints=1) as twistd:
        with connect(twistd.port()) as dripping, connect(twistd.port()) as slow:
            slow.sendall(get(b"/big", b"Connection: close"))
            received = 0
            dripping.sendall(b"GET / HTTP/1.1\r\nX: ")
            end = time.monotonic() + 5
            while time.monotonic() < end:
                received += len(receive(slow, 20_000))
                time.sleep(0.05)
                try:
                    dripping.sendall(b"x")
                except OSError:
                    pass
            received += len(receive_all(slow))
            assert received > 3_000_000
            dripping.settimeout(PATIENCE)
            try:
                assert dripping.recv(1) == b""
            except ConnectionError:
                pass
        twistd.wait_until_logged("message-timeout")
        twistd.assert_stops_cleanly()


def test_bystander_live(tmp_path: Path, pages: Path) -> None:
    """A client that asks for thousands of lists in one packet does not keep the others from being answered."""
    with Twistd(tmp_path, "files", "--root", str(pages), "--port", "0", "--drain", "0", endpoints=1) as twistd:
        with connect(twistd.port()) as flood:
            flood.sendall(get(b"/folder/") * 1000)
            flood.recv(100)
            for _ in range(5):
                with connect(twistd.port()) as client:
                    client.sendall(get(b"/a.txt", b"Connection: close"))
                    assert receive_all(client).endswith(b"hello")
            assert twistd.log.count("GET /folder/") < 1000
        twistd.assert_stops_cleanly()
