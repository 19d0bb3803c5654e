"""The ``twistd`` commands of twistednet."""

from twisted.application.service import ServiceMaker

accumulator = ServiceMaker(
    "twistednet accumulator", "twistednet.services.accumulator", "One string of all clients' letters.", "accumulator"
)
chargen = ServiceMaker(
    "twistednet chargen", "twistednet.services.chargen", "Lines of characters without end (RFC 864).", "chargen"
)
daytime = ServiceMaker(
    "twistednet daytime", "twistednet.services.daytime", "The date and the time, in words (RFC 867).", "daytime"
)
discard = ServiceMaker(
    "twistednet discard", "twistednet.services.discard", "Reads everything, answers nothing (RFC 863).", "discard"
)
echo = ServiceMaker("twistednet echo", "twistednet.services.echo", "Echo, over TCP and UDP (RFC 862).", "echo")
files = ServiceMaker("twistednet files", "twistednet.services.files", "The files of a folder, over HTTP.", "files")
greeter = ServiceMaker(
    "twistednet greeter", "twistednet.services.greeter", "A greeting and a goodbye, to whatever comes.", "greeter"
)
qotd = ServiceMaker("twistednet qotd", "twistednet.services.qotd", "The quotation of the day (RFC 865).", "qotd")
repeat = ServiceMaker("twistednet repeat", "twistednet.services.repeat", "A message, ten thousand times.", "repeat")
reverse = ServiceMaker("twistednet reverse", "twistednet.services.reverse", "Each line, reversed.", "reverse")
support = ServiceMaker(
    "twistednet support", "twistednet.services.support", "An internet provider's support bot.", "support"
)
systat = ServiceMaker("twistednet systat", "twistednet.services.systat", "Who is logged in (RFC 866).", "systat")
time = ServiceMaker("twistednet time", "twistednet.services.time", "The time, as four bytes (RFC 868).", "time")
udpok = ServiceMaker("twistednet udpok", "twistednet.services.udpok", "OK... and each datagram, over UDP.", "udpok")
wps = ServiceMaker("twistednet wps", "twistednet.services.wps", "The output of w or ps, from afar.", "wps")
