"""The programs of the network-programming textbooks, built properly on Twisted.

`twistednet.protocols` holds the wire protocols and their factories, for embedding; `twistednet.services` the
``twistd`` commands that serve them; `twistednet.cli` the ``twistednet`` command with a client for each.
"""
