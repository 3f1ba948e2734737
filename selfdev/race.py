"""Stopping hopeless programs early, so that questions go where they decide.

A program is stopped after its first block of dev questions when it is far below the seed: when even the upper
Hoeffding bound of its accuracy lies under the seed's (Hoeffding races, Maron and Moore 1994). The chance
to stop a program that is in truth as good as the seed is at most `ERROR`, the seed's accuracy taken as known.
"""

from __future__ import annotations

import math

from selfdev.records import Score

ERROR = 0.001


def is_hopeless(first: Score, seed_accuracy: float) -> bool:
    """Whether a program with these first results is surely worse than the seed."""
    return first.accuracy + math.sqrt(math.log(1 / ERROR) / (2 * first.n)) < seed_accuracy
