"""Finding the code in what a model wrote: a fenced block with prose around it, or bare code."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from functools import lru_cache

FUNCTION = "merge_models"
MAX_TRIES = 20  # places where the code might end; each costs a parse
_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n`]*$", re.MULTILINE)
_CODE_START = re.compile(
    r"^(import |from \w[\w.]* import |def |async def |class |@|#|[A-Z_][A-Z0-9_]*\s*(:[^=\n]+)?=|\"\"\"|''')"
)
_CODE_LINE = re.compile(
    r"^(import |from |def |async def |class |if |for |with |try|@|#|[)\]}]|\w+\s*(:[^=]+)?[-+*/]?=)"
)


def extract(text: str) -> str:
    """The code in a completion: the fenced block that defines merge_models, or else the bare code."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff")
    blocks = [block for block in _fenced(text) if block.strip()]
    defining = [block for block in blocks if f"def {FUNCTION}" in block]
    if defining:
        del defining[:-MAX_TRIES]
        # The last one that parses: models first show a draft, then the final version.
        return next((b for b in reversed(defining) if _parses(b)), defining[-1])
    if blocks and f"def {FUNCTION}" not in text:
        return max(blocks, key=len)
    return _bare(text)


def _fenced(text: str) -> Iterator[str]:
    """The inside of each fence; one that is never closed reaches to the end."""
    start: tuple[int, str] | None = None
    for fence in _FENCE.finditer(text):
        if start is None:
            start = (fence.end() + 1, fence.group(1))
        elif fence.group(1).startswith(start[1]):
            yield _dedent(text[start[0] : fence.start()])
            start = None
    if start is not None:
        yield _dedent(text[start[0] :])


def _dedent(block: str) -> str:
    """A block indented as a whole (under a list item) moved to the margin."""
    lines = block.split("\n")
    filled = [line for line in lines if line.strip()]
    margin = min((len(line) - len(line.lstrip(" ")) for line in filled), default=0)
    return "\n".join(line[margin:] for line in lines) if margin else block


def _bare(text: str) -> str:
    """Code without a fence: from the first line that looks like code to the prose after it, if any."""
    if _parses(text) and f"def {FUNCTION}" in text:
        return text
    lines = text.split("\n")
    first = next((i for i, line in enumerate(lines) if _CODE_START.match(line)), None)
    if first is None:
        return ""
    lines = lines[first:]
    defined = next((i for i, line in enumerate(lines) if line.startswith(f"def {FUNCTION}")), len(lines))
    after = range(defined + 1, len(lines))
    prose = [i for i in after if lines[i][:1].strip() and not _CODE_LINE.match(lines[i])]
    for i in prose[:MAX_TRIES]:
        if _parses("\n".join(lines[:i])):
            return "\n".join(lines[:i])
    return "\n".join(lines)


@lru_cache(maxsize=4)  # extraction has just parsed what the check parses next
def quiet_parse(code: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an invalid escape in a string is the writer's business
        return ast.parse(code)


def _parses(code: str) -> bool:
    try:
        quiet_parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True
