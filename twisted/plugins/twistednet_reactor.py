"""The reactors of twistednet."""

from twisted.application.reactors import Reactor

fastest = Reactor("twistednet", "twistednet.reactor", "Connections at the speed of uvloop, or of asyncio.")
plain = Reactor("twistednet-asyncio", "twistednet.reactor.on_asyncio", "Connections at the speed of asyncio.")
