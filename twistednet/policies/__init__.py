"""What an operator wraps around any factory or datagram protocol, ours or not, to have it survive strangers.

A policy knows nothing of what is said over the wire, and keeps what flow promises: half-close and back-pressure.
"""
