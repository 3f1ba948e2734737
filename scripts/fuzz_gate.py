"""Throw damaged programs and random bytes at the gate: nothing but Rejected may come out, unexecuted.

    python scripts/fuzz_gate.py                     # 100,000 mutated programs and 10,000 byte strings
    python scripts/fuzz_gate.py --texts 500 --bytes 500

Prints one JSON object; exit code 1 when anything was wrong. The same numbers give the same texts.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator

from selfdev.factory.factory import prompt
from selfdev.gate import gate
from selfdev.library import BUILTIN

SEED = 20_240
SLOW = 1.0  # seconds
TOKENS = (
    *(
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ":",
        ",",
        "=",
        "==",
        "->",
        "@",
        "**",
        "...",
        "\\",
        "'",
        '"',
        '"""',
        "#",
        "```",
    ),
    *(
        "\n",
        "\n\n",
        "\t",
        "    ",
        " ",
        "\r\n",
        "\x00",
        "\ufeff",
        "\ud800",
        "\u2028",
        "\u202e",
        "ö",
        "𝐨𝐬",
        "0" * 50,
        "0x" + "f" * 5000,
    ),
    *(
        "def ",
        "class ",
        "return ",
        "yield ",
        "await ",
        "lambda: ",
        "import os\n",
        "from torch import *\n",
        "async ",
    ),
    *(
        "if ",
        "for ",
        "while ",
        "try:",
        "except:",
        "with ",
        "match ",
        "case ",
        "global ",
        "del ",
        "not ",
        "None",
    ),
    *(
        "open",
        "eval",
        "exec",
        "__import__",
        "__class__",
        "getattr",
        "globals()",
        "torch.os",
        "merge_models",
        "f'{",
    ),
    *(
        "def merge_models(models, device):\n",
        "```python\n",
        "~~~\n",
        "((((((((",
        "-" * 400,
        "[" * 150,
        "a." * 300,
    ),
)
# Raised by the interpreter when something is run, opened or connected; parsing raises none of them.
FORBIDDEN = ("exec", "open", "import", "os.", "socket.", "subprocess.", "ctypes.")


def corpus() -> list[str]:
    """Honest programs to start from: the built-in ones and the prompt's example, bare and in a chat."""
    texts = [path.read_text() for path in sorted(BUILTIN.glob("[a-z]*.py"))]
    texts.append(prompt())
    return texts + [f"Here you are:\n\n```python\n{text}```\nThat is all.\n" for text in texts]


def mutated(rng: random.Random, texts: list[str]) -> str:
    """One text with one to eight injuries."""
    text = rng.choice(texts)
    for _ in range(rng.randint(1, 8)):
        a, b = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        b = min(b, a + rng.choice((1, 5, 40, 400)))
        match rng.randrange(7):
            case 0:
                text = text[:a] + text[b:]
            case 1:
                text = text[:b] + text[a:]
            case 2:
                text = text[:a] + rng.choice(TOKENS) + text[a:]
            case 3:
                text = text[:a] + rng.choice(TOKENS) + text[b:]
            case 4:
                text = text[:b] if b > 20 else text
            case 5:
                other = rng.choice(texts)
                text = text[:a] + other[rng.randrange(len(other)) :]
            case _:
                text = text[:a] + text[a:b].upper()[::-1] + text[b:]
    return text


def random_bytes(rng: random.Random) -> str:
    """Bytes as a tokenizer would decode them."""
    raw = rng.randbytes(rng.randrange(400))
    return raw.decode("utf-8", rng.choice(("replace", "surrogateescape", "ignore")))


def cases(texts: int, byte_strings: int) -> Iterator[str]:
    """Everything to try, in a fixed order."""
    rng = random.Random(SEED)
    start = corpus()
    yield from (f"print({token})\n{start[0]}" for token in TOKENS)  # each of them once where it would run
    for _ in range(texts):
        yield mutated(rng, start)
    for _ in range(byte_strings):
        yield random_bytes(rng)


def fuzz(texts: int, byte_strings: int) -> dict[str, object]:
    """Try them all; counts, the slowest in seconds, and whatever was wrong."""
    seen: list[str] = []
    watching = False

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        # For the line of a syntax error the interpreter looks for a file of the name it gave the text.
        if watching and event.startswith(FORBIDDEN) and arguments[:1] != ("<unknown>",):
            seen.append(event)

    gate.check("é = 1\n" + corpus()[0])  # the parser imports unicodedata for the first such name
    sys.addaudithook(hook)
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    slowest = 0.0
    for number, text in enumerate(cases(texts, byte_strings)):
        begin = time.perf_counter()
        watching = True
        try:
            gate.check(text)
            counts["accepted"] += 1
        except gate.Rejected:
            counts["rejected"] += 1
        except Exception as error:
            wrong.append(f"{number}: {type(error).__name__}: {error}")
        watching = False
        slowest = max(slowest, time.perf_counter() - begin)
        if seen:
            wrong.append(f"{number}: {seen.pop()} while checking")
            seen.clear()
    if slowest > SLOW:
        wrong.append(f"one text took {slowest:.1f} s")
    return {**counts, "slowest_seconds": round(slowest, 4), "wrong": wrong[:20]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--bytes", type=int, default=10_000)
    arguments = parser.parse_args()
    found = fuzz(arguments.texts, arguments.bytes)
    print(json.dumps(found))
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
