"""``twistd discard``, ``chargen``, ``daytime``, ``time``, ``qotd`` and ``systat``: their options and their services."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

from twisted.internet.protocol import DatagramProtocol

from tests.services.options import MemoryReactor, ServiceTestCase, behind_guard
from tests.services.test_commands import COMMAND_OPTIONS
from tests.wire import Wire
from twistednet.protocols.simple import (
    QUOTES,
    ChargenDatagramProtocol,
    ChargenFactory,
    DaytimeDatagramProtocol,
    DaytimeFactory,
    DiscardDatagramProtocol,
    DiscardFactory,
    QotdDatagramProtocol,
    QotdFactory,
    SystatDatagramProtocol,
    SystatFactory,
    TimeDatagramProtocol,
    TimeFactory,
)
from twistednet.services import chargen, daytime, discard, qotd, systat, time
from twistednet.services.base import ListeningService, StartError


class SimpleServiceTests(ServiceTestCase):
    """`Options` and `makeService` of each."""

    SERVICES: ClassVar[Sequence[tuple[Any, int, type, type[DatagramProtocol]]]] = (
        (discard, 9, DiscardFactory, DiscardDatagramProtocol),
        (systat, 11, SystatFactory, SystatDatagramProtocol),
        (daytime, 13, DaytimeFactory, DaytimeDatagramProtocol),
        (qotd, 17, QotdFactory, QotdDatagramProtocol),
        (chargen, 19, ChargenFactory, ChargenDatagramProtocol),
        (time, 37, TimeFactory, TimeDatagramProtocol),
    )

    def setUp(self) -> None:
        # What this machine has is not what is tested.
        self.patch(systat, "SYSTAT_COMMAND", ("/bin/sh",))

    def started(self, module: Any, *arguments: str) -> MemoryReactor:
        """The reactor in which the service that `arguments` make listens."""
        reactor, options = MemoryReactor(), module.Options()
        options.parseOptions(arguments)
        module.makeService(options, reactor).privilegedStartService()
        return reactor

    def test_defaults(self) -> None:
        """Its factory on the port that its RFC has for it, on the loopback interface; no datagrams."""
        for module, port, factory, _ in self.SERVICES:
            reactor = self.started(module)
            [(listens_on, served, _, interface)] = cast("list[tuple[int, Any, int, str]]", reactor.tcpServers)
            self.assertEqual((listens_on, interface), (port, "127.0.0.1"))
            self.assertIsInstance(served, factory)
            self.assertEqual(reactor.udp, [])
            # A factory's clock is the reactor's, where it has been given one; no global reactor was needed.
            if module not in (discard, chargen):
                self.assertIs(served.reactor, reactor)

    def test_udp(self) -> None:
        """With --udp its datagram protocol too, on the same port and interface."""
        for module, port, _, protocol in self.SERVICES:
            for arguments, where in (
                ([], (port, "127.0.0.1")),
                (["--port", "7000", "-i", "0.0.0.0"], (7000, "0.0.0.0")),
            ):
                reactor = self.started(module, "--udp", *arguments)
                [(listens_on, served, interface)] = reactor.udp
                self.assertEqual((listens_on, interface), where)
                self.assertIsInstance(behind_guard(served), protocol)
                self.assertEqual(reactor.tcpServers[0][::3], where)

    def test_datagram_endpoints(self) -> None:
        """Without --udp, a datagram endpoint serves datagrams only, each with a protocol of its own."""
        for module, _, _, protocol in self.SERVICES:
            reactor = self.started(module, "--listen", "udp:81", "--listen", "unixdgram:/nowhere/s")
            unguarded: Any = reactor.unix_datagrams[0][1]
            served = [behind_guard(reactor.udp[0][1]), unguarded.protocol]
            self.assertIsNot(*served)
            for one in served:
                self.assertIsInstance(one, protocol)

    def test_refused(self) -> None:
        """A bad option is one line."""
        for module, *_ in self.SERVICES:
            make = module.Options
            self.assert_refused(make, "--port -1: not a whole number from 0 to 65535", "--port", "-1")
            self.assert_refused(make, "option --udp must not have an argument", "--udp=1")
            self.assert_refused(make, "option --bogus not recognized", "--bogus")
            self.assert_refused(make, f"9: {make.command} takes options only", "9")

    def test_help(self) -> None:
        """The help text is complete."""
        for module, *_ in self.SERVICES:
            own = {qotd: ["--quotes"], systat: COMMAND_OPTIONS}.get(module, [])
            self.assert_help(module.Options, "--udp", *own)


class QotdServiceTests(ServiceTestCase):
    """`Options` and `makeService` of qotd."""

    def file(self, content: str | bytes) -> str:
        """The path of a file with `content`."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        path = Path(folder, "quotes")
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    def quotes(self, content: str | bytes) -> list[str]:
        """The quotations in a file with `content`."""
        options = qotd.Options()
        options.parseOptions(["--quotes", self.file(content)])
        return list(options["quotes"])

    def assert_file_refused(self, content: str | bytes, why: str) -> None:
        """A file with `content` is refused, in one line that says `why`."""
        self.assertNotIn("\n", why)
        path = self.file(content)
        self.assert_refused(qotd.Options, f"--quotes {path}: {why}", "--quotes", path)

    def test_our_own(self) -> None:
        """Without a file they are the package's."""
        options = qotd.Options()
        options.parseOptions([])
        self.assertIs(options["quotes"], QUOTES)

    def test_file(self) -> None:
        """A line with nothing but % stands between two; the lines of one end in CR LF."""
        self.assertEqual(
            self.quotes("One.\n%\nTwo lines,\n  the second further in.\n%\n100 %\n%% %\n"),
            ["One.", "Two lines,\r\n  the second further in.", "100 %\r\n%% %"],
        )

    def test_one(self) -> None:
        """A file may have one quotation, with a line ending or without."""
        for content in ("\xe9t\xe9", "\xe9t\xe9\n", "\n\xe9t\xe9\n\n", "\xe9t\xe9\r\n"):
            self.assertEqual(self.quotes(content), ["\xe9t\xe9"])

    def test_nothing_between(self) -> None:
        """Empty quotations are none, wherever the % stands: first, last, twice, in a file of DOS."""
        for content in (
            "One.\n%\nTwo.\n%\n",
            "%\nOne.\n%\nTwo.",
            "One.\n%\n%\nTwo.\n%",
            "One.\r\n%\r\n\r\n%\r\nTwo.\r\n",
        ):
            self.assertEqual(self.quotes(content), ["One.", "Two."])

    def test_byte_order_mark(self) -> None:
        """A byte order mark is no part of the first quotation."""
        self.assertEqual(self.quotes("\ufeffOne.\n"), ["One."])

    def test_length(self) -> None:
        """A quotation has fewer than 512 bytes, its line ending among them."""
        self.assertEqual(self.quotes("x" * 509), ["x" * 509])
        self.assert_file_refused("x" * 510, f"a quotation of 512 bytes or more: {'x' * 40}\u2026")
        accents = "\xe9" * 255
        self.assert_file_refused(f"One.\n%\n{accents}", f"a quotation of 512 bytes or more: {accents[:40]}\u2026")

    def test_long_lines(self) -> None:
        """A long quotation of several lines, or with escape sequences, is refused in one plain line too."""
        for content in ("One\nTwo\n" * 100, "One\x1b[2J" * 100):
            path = self.file(content)
            error = self.assertRaises(StartError, self.under_twistd(qotd.Options()).parseOptions, ["--quotes", path])
            self.assertTrue(str(error.code).isprintable(), error.code)
            self.assertIn(f"--quotes {path}: a quotation of 512 bytes or more: One", str(error.code))

    def test_empty(self) -> None:
        """A file without a quotation is one line."""
        for content in ("", "\n\n", "\n%\n"):
            self.assert_file_refused(content, "no quotation")

    def test_not_utf_8(self) -> None:
        """A file in another encoding is one line."""
        path = self.file(b"caf\xe9 noir")
        error = self.assertRaises(StartError, self.under_twistd(qotd.Options()).parseOptions, ["--quotes", path])
        self.assertRegex(
            str(error.code), rf"\Atwistd qotd: --quotes {path}: [^\n]*utf-8[^\n]* \(see twistd qotd --help\)\Z"
        )

    def test_unreadable(self) -> None:
        """A file that is not there, or not a file, is one line."""
        for path, why in (("/nowhere/quotes", "No such file or directory"), ("/", "Is a directory")):
            self.assert_refused(qotd.Options, f"--quotes {path}: {why}", "--quotes", path)

    def test_served(self) -> None:
        """Both forms say the file's quotations."""
        reactor, options = MemoryReactor(), qotd.Options()
        options.parseOptions(["--udp", "--quotes", self.file("Two lines,\nno more.")])
        qotd.makeService(options, reactor).privilegedStartService()
        answer = b"Two lines,\r\nno more.\r\n"
        wire = Wire.to(cast(QotdFactory, reactor.tcpServers[0][1])).send()
        wire.turn()
        self.assertEqual((wire.received, wire.ended), (answer, True))
        datagrams = behind_guard(reactor.udp[0][1])
        self.assertEqual(datagrams.answer(b""), answer)


class SystatServiceTests(ServiceTestCase):
    """`Options` and `makeService` of systat."""

    def test_no_command(self) -> None:
        """Where there is no w, or none that can be run, the service does not start, and one line says why."""
        for path in ("/nowhere/w", "/etc/passwd"):
            self.patch(systat, "SYSTAT_COMMAND", (path,))
            for arguments in ([], ["--udp"], ["--listen", "udp:81"]):
                options = systat.Options()
                options.parseOptions(arguments)
                error = self.assertRaises(StartError, systat.makeService, options, MemoryReactor())
                self.assertEqual(error.code, f"twistd systat: this machine has no {path}")

    def test_global_reactor(self) -> None:
        """The global reactor runs the command when none is given."""
        from twisted.internet import reactor

        self.patch(systat, "SYSTAT_COMMAND", ("/bin/sh",))
        options = systat.Options()
        options.parseOptions(["--udp"])
        stream, datagram = self.listening(systat.makeService(options))
        self.assertIs(cast(Any, stream.target).wrapped.reactor, reactor)
        self.assertIsInstance(datagram, ListeningService)
