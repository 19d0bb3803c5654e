"""The ``twistd`` commands of twistednet."""

from twisted.application.service import ServiceMaker

accumulator = ServiceMaker(
    "twistednet accumulator", "twistednet.services.accumulator", "One string of all clients' letters.", "accumulator"
)
echo = ServiceMaker("twistednet echo", "twistednet.services.echo", "Echo, over TCP and UDP (RFC 862).", "echo")
reverse = ServiceMaker("twistednet reverse", "twistednet.services.reverse", "Each line, reversed.", "reverse")
udpok = ServiceMaker("twistednet udpok", "twistednet.services.udpok", "OK... and each datagram, over UDP.", "udpok")
wps = ServiceMaker("twistednet wps", "twistednet.services.wps", "The output of w or ps, from afar.", "wps")
