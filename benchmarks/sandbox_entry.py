"""Time from "run this program" to "function entered", all layers on, for models of several sizes.

    make bench                                 # writes benchmarks/sandbox_entry.json
    python benchmarks/sandbox_entry.py         # the same; 50 runs per size

The rule is at most 15 ms in the median on 2 cores, whatever the size: models are mapped, not copied.
"after_a_pause" is the usual case, a merged model being scored between two programs; "back_to_back" is the
worst, the next worker being forked and confined while the program already waits for it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import struct
import tempfile
import time
from pathlib import Path
from typing import Any

from common import machine

from selfdev.checkpoints import ModelView, open_checkpoint, views
from selfdev.records import Program
from selfdev.sandbox import Limits, Sandbox

OUT = Path(__file__).parent / "sandbox_entry.json"
LIMIT_MS = 15
SIZES = {"1M": 1_000_000, "500M": 500_000_000}
MODELS = ("seed", "one", "two", "three")
WIDTH = 1000
# Ends at once, so that the result of a large model is neither written nor checked.
PROGRAM = Program("def merge_models(models, device):\n    raise KeyError\n")


def write_model(folder: Path, parameters: int) -> None:
    """A checkpoint of zeros in bfloat16, ten tensors, that takes no room on disk."""
    rows = parameters // (10 * WIDTH)
    nbytes = rows * WIDTH * 2
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    for layer in range(10):
        offsets = [layer * nbytes, (layer + 1) * nbytes]
        name = f"model.layers.{layer}.mlp.weight"
        header[name] = {"dtype": "BF16", "shape": [rows, WIDTH], "data_offsets": offsets}
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + 10 * nbytes)


def models(folder: Path, parameters: int) -> tuple[ModelView, ...]:
    """A seed and three experts of this size."""
    for name in MODELS:
        write_model(folder / name, parameters)
    seed, *experts = (open_checkpoint(folder / name, name) for name in MODELS)
    return views(seed, experts, "mlp", None)


def measure(parameters: int, runs: int) -> dict[str, Any]:
    """Milliseconds until the function is entered: median, 90th percentile, best."""
    with tempfile.TemporaryDirectory() as folder:
        shown = models(Path(folder), parameters)
        with Sandbox({"models": shown}, Limits(10, 4)) as sandbox:
            return {
                "parameters": parameters,
                "models": len(MODELS),
                "after_a_pause": timed(sandbox, runs, 0.05),
                "back_to_back": timed(sandbox, runs, 0.0),
                "layers": sorted(sandbox.layers),
            }


def timed(sandbox: Sandbox, runs: int, pause: float) -> dict[str, float]:
    """Median, 90th percentile and best of the milliseconds until the function was entered."""
    entered = []
    for seed in range(runs):
        time.sleep(pause)
        entered.append(1000 * (sandbox.run(PROGRAM, seed).entered or 0))
    entered.sort()
    return {
        "runs": runs,
        "median_ms": round(statistics.median(entered), 2),
        "p90_ms": round(entered[int(0.9 * runs)], 2),
        "best_ms": round(entered[0], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    results = {name: measure(size, given.runs) for name, size in SIZES.items()}
    given.out.write_text(json.dumps({"machine": machine(), **results}, indent=2) + "\n", encoding="utf-8")
    for name, found in results.items():
        usual, worst = found["after_a_pause"]["median_ms"], found["back_to_back"]["median_ms"]
        print(
            f"{name}: {usual} ms after a pause, {worst} ms back to back (medians; at most {LIMIT_MS} asked)"
        )
    print(f"written: {given.out}")


if __name__ == "__main__":
    main()
