"""Has the factory collapsed: does it write the same few behaviours over and over?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from selfdev.records import Attempt, State

HUNDRED = 100  # programs among which distinct behaviours are counted
ENDED_BY_US = (State.MERGED, State.UNSCORED)  # no score yet, or none through a fault of ours


def distinct_in(counts: Sequence[int], written: int, drawn: int) -> float:
    """Expected number of distinct behaviours among `drawn` of `written` programs, drawn without replacement.

    `counts` has the programs of each behaviour; programs that failed have none (Hurlbert 1971, eq. 16).
    """
    drawn = min(drawn, written)
    whole = math.comb(written, drawn)
    return sum(1 - math.comb(written - count, drawn) / whole for count in counts)


def diversity(attempts: Sequence[Attempt]) -> float | None:
    """Distinct scored behaviours per 100 programs of an iteration; None where too few have an end to say.

    Below a hundred programs they are scaled up, so an iteration of a few differing programs is not collapsed.
    """
    ended = [a for a in attempts if a.outcome.state not in ENDED_BY_US]
    if not ended or len(ended) < len(attempts) / 2:
        return None
    counts = Counter(a.fingerprint for a in ended if a.outcome.state is State.SCORED)
    drawn = min(HUNDRED, len(ended))
    return distinct_in(list(counts.values()), len(ended), drawn) * HUNDRED / drawn


def collapsed(attempts: Sequence[Attempt], below: float) -> bool:
    """Whether the programs of an iteration have fewer than `below` distinct behaviours per 100."""
    found = diversity(attempts)
    return found is not None and found < below


def warning(iteration: int, attempts: Sequence[Attempt], below: float, stopped: bool) -> str | None:
    """What a run says of an iteration that has collapsed; None when it has not."""
    if not collapsed(attempts, below):
        return None
    end = "the search stopped there" if stopped else "what it learned after that is doubtful"
    return (
        f"COLLAPSE: the programs of iteration {iteration} have {diversity(attempts):.1f} distinct behaviours"
        f" per 100, fewer than factory.collapse_below = {below:g}; {end}."
    )
