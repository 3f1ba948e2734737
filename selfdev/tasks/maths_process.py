"""The process that compares expressions: one line of JSON in (gold, texts), one line out ("1" or "0").

Each comparison has its own limit of processor time, set with the kernel: when it is over, this process is
gone, whatever sympy is doing just then. Processor time, because a result must not depend on how busy the
machine is.
"""

from __future__ import annotations

import json
import logging
import resource
import signal
import sys

MEMORY = 4 * 2**30  # bytes of address space


def main() -> None:
    """Serve until stdin ends; the only argument is the limit in seconds."""
    from math_verify import parse, verify

    seconds = float(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    logging.disable()  # it warns that it has no time limit of its own
    for line in sys.stdin:
        gold, texts = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF ends a process that does not handle it
        try:
            wanted = parse(rf"\boxed{{{gold}}}", parsing_timeout=None)
            found = (parse(text, parsing_timeout=None) for text in texts)
            same = any(verify(wanted, expression, timeout_seconds=None) for expression in found)
        except (Exception, RecursionError, MemoryError):
            same = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(int(same), flush=True)


if __name__ == "__main__":
    main()
