"""``twistd greeter``: its options and its service."""

from __future__ import annotations

from typing import cast

from tests.services.options import MemoryReactor, ServiceTestCase
from tests.wire import Wire
from twistednet.protocols.greeter import GreeterFactory
from twistednet.services.greeter import Options, makeService


class GreeterServiceTests(ServiceTestCase):
    """`Options` and `makeService`."""

    def factory(self, *arguments: str) -> GreeterFactory:
        """The factory that `arguments` make."""
        self.reactor, options = MemoryReactor(), Options()
        options.parseOptions(arguments)
        makeService(options, self.reactor).privilegedStartService()
        [(self.port, factory, _, self.interface)] = self.reactor.tcpServers
        self.assertIsInstance(factory, GreeterFactory)
        return cast(GreeterFactory, factory)

    def test_defaults(self) -> None:
        """A `GreeterFactory` with the textbook's words, on its port, on the loopback interface."""
        factory = self.factory()
        self.assertEqual((self.port, self.interface), (15000, "127.0.0.1"))
        self.assertEqual((factory.greeting, factory.goodbye), ("Hello Yourself", "Goodbye"))
        self.assertIs(factory.reactor, self.reactor)

    def test_texts(self) -> None:
        """--greeting and --goodbye are what is said; one of them may be nothing."""
        for greeting, goodbye in (("Gr\xfc\xdf Gott", "Servus"), ("", "Bye"), ("Hi there", "")):
            wire = Wire.to(self.factory("--greeting", greeting, "--goodbye", goodbye)).send(b"hello\n")
            self.assertEqual((wire.received, wire.ended), (f"{greeting}\n{goodbye}\n".encode(), True))

    def test_refused(self) -> None:
        """A bad option is one line."""
        self.assert_refused(Options, "--port x: not a whole number from 0 to 65535", "--port", "x")
        self.assert_refused(Options, "option --greeting requires argument", "--greeting")
        self.assert_refused(Options, "option --udp not recognized", "--udp")
        self.assert_refused(Options, "hello: greeter takes options only", "hello")

    def test_bad_texts(self) -> None:
        """A text is one line of UTF-8: what could not be sent as such is refused when the service starts."""
        for option in ("greeting", "goodbye"):
            for text in ("two\nlines", "caf\udce9"):
                self.assert_refused(Options, f"--{option} {text!r}: not one line of UTF-8", f"--{option}", text)

    def test_help(self) -> None:
        """The help text is complete."""
        self.assert_help(Options, "--greeting", "--goodbye")
