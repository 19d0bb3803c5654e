"""Test suites of other projects, on our reactor and on the one they were written for.

``python -m tests.outside`` runs a sample of Twisted's own suite, ``python -m tests.outside --all`` all of it and the
suites of the other projects in `suites`. Each suite runs once on each reactor, in a process of its own, and the
outcomes are compared test by test: what passes on the reference reactor has to pass on ours, or to be listed in
``exceptions.toml`` with the reason why it can't.
"""
