"""How fast is a server that answers each message with one of its own: the load, the measure, the comparison.

Theory of operation
-------------------

`twistednet.bench.generator` is the load: a process, or several, each with its share of the connections in one tight
epoll loop. On every connection it writes a *burst* of messages in one go, waits until the whole answer is back, byte
for byte what it should be, and starts again; so each connection has one burst under way at any time. Over UDP a burst
is one datagram, sent again when 50 ms have passed without an answer.

`twistednet.bench.measure` starts the generators, has them begin at the same moment, adds up what they report, and makes
a `Result` of it. `twistednet.bench.compare` does so with one server after another. `twistednet.bench.servers` has the
table of workloads, and of the servers of each: for the workload echo from `twistednet.bench.models` or a ``twistd``
command, for the others from `twistednet.bench.applications`, the same application on several reactors.
`twistednet.bench.chart` and `twistednet.bench.report` show what came of it.

To add a workload, add an entry to `twistednet.bench.applications.APPLICATIONS` and, unless messages are echoed, one to
`twistednet.bench.generator.ANSWERS`, which says what comes back.

All processes that are started here end with the one that started them, even if that is killed:
`twistednet.bench.tied` has the kernel see to it.

What the figures mean
---------------------

This is a *closed loop*: a connection asks its next question when it has the answer to the last. When the server stalls
for a second, the questions that users would have asked in that second are not asked, and don't appear in the
percentiles ("coordinated omission"). The latencies are therefore service times with so many connections at work, fit
for comparing servers; a user who arrives at a moment of their own choosing sees longer ones.

Latencies are taken to the microsecond, of whole bursts, and kept in an HDR histogram to three significant digits.

A generator that is busy more than 90 % of the time (on a core, or waiting for one) is itself what limits the rate; the
result says so, and its figures are then what the server can do at least.

A comparison measures each server in several rounds, all servers in each round. A server's figure is the median of its
rounds. Where the rounds of one server, or of the reference, differ by more than the two medians do, the ratio is marked
as lost in the noise.
"""
