"""What can be imported from the package."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

import twistednet.protocols
from tests import programs


class ExportsTests(SynchronousTestCase):
    """`twistednet.protocols`."""

    def test_every_name_is_there(self) -> None:
        """Every name in ``__all__`` is there, documented, and in order."""
        names = twistednet.protocols.__all__
        self.assertEqual(names, sorted(names))
        for name in names:
            self.assertTrue(getattr(twistednet.protocols, name).__doc__, name)

    def test_no_global_reactor(self) -> None:
        """Importing the protocols and making the factories installs no reactor."""
        import sys

        code = (
            "import sys; from twistednet.protocols import *;"
            "EchoFactory(), ReverseFactory(), CommandFactory(), AccumulatorFactory(), UdpOkProtocol();"
            "sys.exit('twisted.internet.reactor' in sys.modules)"
        )
        self.assertEqual(programs.run([sys.executable, "-c", code], timeout=30).returncode, 0)
