r"""Answers in LaTeX: finding the last one in a reply, and telling whether it equals the gold answer.

Equal is what has the same normal form, or what math-verify (https://github.com/huggingface/Math-Verify) finds
equal. It can take for ever on a tower of powers, so it runs in processes of its own (`maths_process.py`)
that the kernel ends when one comparison has used too much processor time; such an answer counts as wrong.
"""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

Pair = tuple[str, list[str]]  # gold answer, and texts; the last expression of one of them must equal it

SECONDS = 2.0  # processor time of one comparison; comparisons of MATH answers took 0.19 at most
LONGEST = 600  # characters at the end of a reply that math-verify searches where there is no box
_BOX = re.compile(r"\\(?:boxed|fbox)\s*")
_MATH = re.compile(r"\$\$?|\\[(\[]")
_ENDS = {"$$": "$$", "$": "$", r"\(": r"\)", r"\[": r"\]"}
_ANSWER = re.compile(
    r"answer is:?\s*(.+?)(?:(?<!\s)\s*I hope it is correct.*)?$", re.IGNORECASE | re.MULTILINE
)
_NOISE = re.compile(r"\\left|\\right|\\displaystyle|\\[!,;:> ]|\\\$|\$|\\?%|\^\\circ|\^\{\\circ\}|\s")
_WORDS = re.compile(r"\\(?:text|textbf|mathrm|mbox|textrm)\{([^{}]*)\}")


def boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{}` (or `\fbox{}`, or `\boxed 7`); None where none is complete."""
    ends = _closing(text)
    for match in reversed(list(_BOX.finditer(text))):
        start = match.end()
        if text[start : start + 1] != "{":
            short = re.match(r"\\[A-Za-z]+|[^\s$}]+", text[start:])
            return short[0] if short else None
        if start in ends:
            return text[start + 1 : ends[start]].strip()
    return None


def _closing(text: str) -> dict[int, int]:
    """The place of each opening brace that is closed, and that of its closing brace."""
    ends: dict[int, int] = {}
    waiting: list[int] = []
    for brace in re.finditer(r"[{}]", text):
        if brace[0] == "{":
            waiting.append(brace.start())
        elif waiting:
            ends[waiting.pop()] = brace.start()
    return ends


def gold(answer: str) -> str:
    """The gold answer in a dataset's field: the last box of a whole solution, or the answer as it is."""
    return boxed(answer) or answer.strip().removeprefix("$").removesuffix("$")


def last_expression(reply: str) -> str | None:
    """What is boxed, else what is called the answer, else the last mathematics, else the last line."""
    lines = [line for line in reply.splitlines() if line.strip()]
    found = boxed(reply) or _called_answer(reply) or _last_math(reply)
    return found or (lines[-1].strip() if lines else None)


def normal(expression: str) -> str:
    """An expression without spaces, sizes, units' marks and the commands of words."""
    plain = _WORDS.sub(r"\1", expression)
    plain = _NOISE.sub("", plain.replace("dfrac", "frac").replace("tfrac", "frac"))
    return re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", plain).rstrip(".")


def grades(replies: Sequence[str], answers: Sequence[str], processes: int = 1) -> list[tuple[bool, bool]]:
    """(strict, flexible) of each reply: whether its last box and whether its last expression are right."""
    boxes = [boxed(reply) for reply in replies]
    pairs = [(gold(answer), reply) for answer, reply in zip(answers, replies, strict=True)]
    known = {pair: _reads_the_same(*pair) for pair in pairs}
    left = [pair for pair, is_same in known.items() if not is_same and pair[1].strip()]
    known |= dict(zip(left, _verify([(g, _texts(reply)) for g, reply in left], processes), strict=True))
    return [(known[pair] and box is not None, known[pair]) for pair, box in zip(pairs, boxes, strict=True)]


def _reads_the_same(gold_answer: str, reply: str) -> bool:
    read = last_expression(reply)
    if read is None:
        return False
    right_side = read if boxed(reply) else read.split("=")[-1]
    return normal(gold_answer) in (normal(read), normal(right_side))


def _texts(reply: str) -> list[str]:
    """What math-verify gets of a reply: its box alone, or what is called the answer and its end."""
    box = boxed(reply)
    if box is not None:
        return [rf"\boxed{{{box}}}"]
    called = _called_answer(reply)
    return [*([rf"\boxed{{{called}}}"] if called else []), reply[-LONGEST:]]


def _called_answer(text: str) -> str | None:
    """What follows the last "answer is", up to the end of its line."""
    found = _ANSWER.findall(text)
    return (_last_math(found[-1]) or found[-1]).strip(" .*") or None if found else None


def _last_math(text: str) -> str | None:
    """What stands last between dollars or their like; a mark that is never closed is passed over."""
    last, place = None, 0
    never: set[str] = set()  # marks without an end from here on: looked for once, not from each of them
    while match := _MATH.search(text, place):
        place = match.start() + 1
        for mark in dict.fromkeys((match[0], match[0].replace("$$", "$"))):
            begin = match.start() + len(mark)
            end = -1 if mark in never else text.find(_ENDS[mark], begin + 1)
            if end >= 0:
                last, place = text[begin:end], end + len(_ENDS[mark])
                break
            never.add(mark)
    return last


def _verify(pairs: Sequence[Pair], processes: int) -> list[bool]:
    results = [False] * len(pairs)
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for place in range(len(pairs)):
        todo.put(place)

    def serve() -> None:
        child: _Child | None = None
        try:
            while True:
                place = todo.get_nowait()
                child = child or _Child()
                results[place] = child.ask(pairs[place])
                if not child.alive:
                    child.close()
                    child = None
        except queue.Empty:
            if child is not None:
                child.close()

    count = min(processes, len(pairs))
    with ThreadPoolExecutor(max(1, count)) as threads:
        for future in [threads.submit(serve) for _ in range(count)]:
            future.result()
    return results


class _Child:
    """One comparing process."""

    def __init__(self) -> None:
        words = [sys.executable, "-m", "selfdev.tasks.maths_process", str(SECONDS)]
        environment = {**os.environ, "PYTHONHASHSEED": "0"}  # sympy sorts by hash here and there
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=environment, text=True, encoding="utf-8",
        )  # fmt: skip
        self.alive = True

    def ask(self, pair: Pair) -> bool:
        """Whether math-verify finds the two equal; False, and no longer alive, when it took too long."""
        assert self._process.stdin
        assert self._process.stdout
        try:
            print(json.dumps(pair), file=self._process.stdin, flush=True)
            said = self._process.stdout.readline()
        except BrokenPipeError:
            said = ""
        self.alive = bool(said)
        return said == "1\n"

    def close(self) -> None:
        """End the process and wait for it."""
        self._process.kill()
        self._process.communicate()
