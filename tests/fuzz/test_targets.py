"""The targets of the fuzzer with what is known to be hard, and with bytes at random: that they hold, and can fail."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.targets import SEEDS, TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_target(name: str) -> None:
    """Each target holds for its seeds, and for what chance makes of them."""
    chance = random.Random(name)
    for seed in SEEDS[name]:
        TARGETS[name](seed)
        for _ in range(50):
            changed = bytearray(seed)
            for _ in range(chance.randrange(4)):
                at = chance.randrange(len(changed) + 1)
                changed[at : at + chance.randrange(3)] = chance.choice((b"\n", b"\r", b"\xff", b" ", b"0", seed[at:]))
            TARGETS[name](bytes(changed))
