"""The reactors of twistednet."""

from twisted.application.reactors import Reactor

fastest = Reactor("twistednet", "twistednet.reactor", "Connections at the speed of uvloop, or of asyncio.")
uvloop = Reactor("twistednet-uvloop", "twistednet.reactor.uvloopreactor", "Connections at the speed of uvloop.")
plain = Reactor("twistednet-asyncio", "twistednet.reactor.asyncioreactor", "Connections at the speed of asyncio.")
