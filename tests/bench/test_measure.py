"""A run: what several generators have seen together."""

from __future__ import annotations

from twisted.internet import error
from twisted.trial.unittest import SynchronousTestCase

from tests.bench.loads import seen
from twistednet.bench.generator import Tally
from twistednet.bench.measure import (
    LONGEST,
    BenchError,
    GeneratorProcess,
    Settings,
    failure,
    histogram,
    percentiles,
    result,
)


class PercentileTests(SynchronousTestCase):
    """Percentiles of latencies that are known."""

    def test_known(self) -> None:
        """Of 1 to 1,000 microseconds, once each, the percentiles are themselves."""
        found = percentiles(histogram([(microseconds, 1) for microseconds in range(1, 1001)]))
        self.assertEqual(
            found, {"min": 1, "mean": 500.5, "p50": 500, "p90": 900, "p99": 990, "p99.9": 999, "max": 1000}
        )

    def test_one_outlier(self) -> None:
        """One slow answer in a thousand shows at the top, and nowhere else."""
        found = percentiles(histogram([(100, 999), (5_000_000, 1)]))
        self.assertEqual((found["p50"], found["p99"], found["p99.9"]), (100, 100, 100))
        self.assertApproximates(found["max"], 5_000_000, 5_000)

    def test_order(self) -> None:
        """They never fall, and are never above the most, or off by more than a thousandth."""
        found = percentiles(histogram([(123_457, 10), (987_653, 10)]))
        values = [found[name] for name in ("min", "p50", "p90", "p99", "p99.9", "max")]
        self.assertEqual(values, sorted(values))
        self.assertApproximates(found["p50"], 123_457, 124)
        self.assertApproximates(found["max"], 987_653, 988)

    def test_ends(self) -> None:
        """Less than a microsecond counts as one, more than an hour as an hour; of nothing there are none."""
        self.assertEqual(percentiles(histogram([(0, 1)]))["max"], 1)
        self.assertApproximates(percentiles(histogram([(2 * LONGEST, 1)]))["max"], LONGEST, LONGEST / 1000)
        self.assertEqual(percentiles(histogram([])), {})


class ResultTests(SynchronousTestCase):
    """What becomes of tallies."""

    def test_together(self) -> None:
        """The messages of all generators are added up, and their latencies are in one histogram."""
        tallies = [
            Tally(2.0, [[(100, 10)], [(200, 10)]], sent_again=1, late=2, busy=0.25),
            Tally(2.0, [[(100, 30)], [(400, 10)], []], sent_again=3, late=4, busy=0.5),
        ]
        found = result(Settings(burst=5, size=10), tallies, 1.0)
        self.assertEqual((found.messages, found.messages_per_second), (300, 150))
        self.assertEqual(found.bytes_per_second, 1500)
        self.assertEqual((found.sent_again, found.late, found.busy), (4, 6, [0.25, 0.5]))
        self.assertEqual((found.latency_us["p50"], found.latency_us["max"]), (100, 400))
        self.assertEqual(
            [(part.at, part.messages_per_second, part.p50_us, part.p99_us) for part in found.over_time],
            [(1.0, 200.0, 100, 100), (2.0, 100.0, 200, 400)],
        )

    def test_last_interval(self) -> None:
        """The last interval is as long as it was; a moment that is left over is none."""
        found = result(Settings(), [Tally(1.5, [[(1, 10)], [(1, 10)]])], 1.0)
        self.assertEqual([(part.at, part.messages_per_second) for part in found.over_time], [(1, 10), (1.5, 20)])
        found = result(Settings(), [Tally(1.05, [[(1, 10)], [(1, 10)]])], 1.0)
        self.assertEqual([part.at for part in found.over_time], [1])
        self.assertEqual(found.messages, 20)

    def test_quiet_interval(self) -> None:
        """Where nothing was answered there is no latency."""
        found = result(Settings(), [Tally(2.0, [[], [(1, 10)]])], 1.0)
        self.assertEqual([(part.messages_per_second, part.p50_us) for part in found.over_time], [(0, None), (10, 1)])

    def test_generator_limited(self) -> None:
        """A generator that is busy nearly all the time was the limit, one of several too."""
        self.assertFalse(seen(100, busy=0.9).generator_limited)
        self.assertTrue(seen(100, busy=0.91).generator_limited)
        several = result(Settings(), [Tally(1.0, [[(1, 1)]], busy=share) for share in (0.1, 0.95)], 1.0)
        self.assertTrue(several.generator_limited)
        self.assertIs(several.as_json()["generator_limited"], True)


class SettingsTests(SynchronousTestCase):
    """How connections are divided among processes."""

    def test_divided(self) -> None:
        """Each has its share, its own numbers, and at least one."""
        for connections, processes, shares in ((50, 1, [50]), (5, 2, [3, 2]), (2, 4, [1, 1]), (60, 3, [20] * 3)):
            loads = Settings(connections=connections, processes=processes).loads([])
            self.assertEqual([load.connections for load in loads], shares)
            numbers = [load.first + n for load in loads for n in range(load.connections)]
            self.assertEqual(numbers, list(range(connections)))


class GeneratorProcessTests(SynchronousTestCase):
    """What a generator process says, cut in any way."""

    def process(self) -> tuple[GeneratorProcess, list[int]]:
        """A process that has not been started, and what it reports."""
        reports: list[int] = []
        return GeneratorProcess(Settings().loads([])[0], reports.append), reports

    def test_lines(self) -> None:
        """It is ready, it reports, and it is done, however its output is cut."""
        said = b'{"ready": true}\n{"bursts": 3}\n{"seconds": 1.0, "latencies": [[[5, 3]]], "busy": 0.5}\n'
        for size in (1, 7, len(said)):
            process, reports = self.process()
            for at in range(0, len(said), size):
                process.outReceived(said[at : at + size])
            self.assertIsNone(self.successResultOf(process.ready))
            self.assertEqual(reports, [3])
            tally = self.successResultOf(process.done)
            self.assertEqual((tally.seconds, tally.busy), (1.0, 0.5))

    def test_failures(self) -> None:
        """What it says has failed, has."""
        process, _ = self.process()
        process.outReceived(b'{"failed": "refused", "message": ""}\n')
        self.failureResultOf(process.ready, error.ConnectionRefusedError)
        self.failureResultOf(process.done, error.ConnectionRefusedError)
        self.assertIsInstance(failure("timed out", ""), error.TimeoutError)
        self.assertEqual(str(failure("wrong", "closed")), "closed")

    def test_dies(self) -> None:
        """One that ends without a word has failed; its last line on standard error is the reason."""
        from twisted.python.failure import Failure

        process, _ = self.process()
        process.errReceived(b"Traceback\nMemoryError\n")
        process.processEnded(Failure(error.ProcessTerminated(1)))
        failed = self.failureResultOf(process.ready, BenchError)
        self.assertEqual(failed.getErrorMessage(), "a load generator has ended: MemoryError")
        self.failureResultOf(process.done, BenchError)
        self.assertIsNone(self.successResultOf(process.ended))
