"""The verb `export`: a local program as a merge method of mergekit, one Python file that needs no selfdev."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from selfdev.checkpoints import SCOPES, ModelView, TensorSlot
from selfdev.errors import SelfdevError
from selfdev.fingerprint import make_probes
from selfdev.gate import gate
from selfdev.library import load_program
from selfdev.locality import WHOLE, dependence, probe_sets
from selfdev.records import Program, State
from selfdev.sandbox import Limits, Sandbox
from selfdev.store.temporary import temporary_folder

TARGETS = ("mergekit",)
# The probes' parameters: two layers, so that a program which looks at its neighbours is seen to do so.
PROBES = tuple(
    f"model.layers.{layer}.{module}.weight"
    for layer in (0, 1)
    for module in ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm")
)
EXPERTS = (3, 2, 4, 5, 6, 1, 7, 8)  # a program may be made for one number of experts: the first that it takes
FILE = '''"""mergekit merge method `{method}`, written by selfdev {version} from the program below.

Tested with mergekit 0.1.5. Import this file before mergekit runs, or run mergekit-yaml with the method by

    python {file} CONFIG.yml OUT_DIR

where CONFIG.yml has the seed as `base_model`, the experts under `models` in the order that the program was
made for, and `merge_method: {method}`. Parameters outside the scope {scope!r} stay the seed's.
"""

import math
import re

import mergekit.merge_methods as _mergekit
import torch

_IN_SCOPE = re.compile({pattern!r})

# The program, as it ran in selfdev.

{code}

# The method: mergekit brings one parameter at a time, and the program sees it alone.


@_mergekit.merge_method(
    name={method!r},
    contract=_mergekit.InputContract(base=_mergekit.BasePolicy.REQUIRED, min_inputs=2),
)
def _method(group: _mergekit.TensorGroup) -> torch.Tensor:
    name, seed = group.metadata.name or "weight", group.base.tensor
    if not _IN_SCOPE.search(name):
        return seed
    models = {{"seed": {{name: seed}}}}
    for place, entry in enumerate(group.non_base, 1):
        models[f"expert_{{place}}"] = {{name: entry.tensor}}
    return merge_models(models, seed.device)[name].to(seed.dtype)


_mergekit.register(_method)

if __name__ == "__main__":
    from mergekit.scripts.run_yaml import main

    main()
'''


@dataclass(frozen=True, slots=True)
class ExportResult:
    """Where the file is and what the method is called in mergekit's configs."""

    program: str
    to: str
    method: str
    out: str
    parameters: dict[str, object]


def export(
    program: str,
    to: str,
    out: Path | str,
    *,
    parameters: Mapping[str, object] | None = None,
    scope: str = "mlp",
    accept_weaker: bool = False,
) -> ExportResult:
    """Write a local program (built-in name or path) as a merge method; `scope` as in merge.

    Raises SelfdevError for a program that is refused or not local, and when `out` cannot be written.
    """
    if to not in TARGETS:
        raise SelfdevError(f"{to!r} is nothing to export to; choose {' or '.join(TARGETS)}")
    target = Path(out)
    if target.exists():
        raise SelfdevError(f"{target} is there already; choose another file or remove it")
    pattern = _pattern(scope)
    try:
        accepted = load_program(program, parameters)
    except gate.Rejected as refusal:
        raise SelfdevError(f"program {program} is refused by the gate ({refusal}); correct it") from None
    found = measure(accepted, accept_weaker)
    if found is not None:
        raise SelfdevError(
            f"program {program} is not local: {found}; mergekit merges one parameter at a time, so export a"
            " program whose result for a parameter depends on that parameter alone"
        )
    name = Path(program).stem
    method = f"selfdev_{re.sub(r'[^0-9A-Za-z]+', '_', name)}"
    text = FILE.format(
        method=method, version=version("selfdev"), file=target.name, scope=scope, pattern=pattern,
        code=accepted.code.strip(),
    )  # fmt: skip
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SelfdevError(
            f"{target} could not be written ({error.strerror}); choose another file"
        ) from error
    return ExportResult(name, to, method, str(target), gate.parameters(accepted.code))


def measure(program: Program, accept_weaker: bool) -> str | None:
    """Why a program is not local, parameter by parameter, on small made-up models; None when it is."""
    reasons = []
    for count in EXPERTS:
        crashed, reason = _measure(program, count, accept_weaker)
        if not crashed:
            return reason
        reasons.append(reason)
    return reasons[0]


def _measure(program: Program, experts: int, accept_weaker: bool) -> tuple[bool, str | None]:
    """Whether it crashes with so many experts, and why it is not local."""
    slots = tuple(
        TensorSlot(name, "F32", (8,) if "norm" in name else (8, 8), Path(), 0, 0) for name in PROBES
    )
    names = ["seed", *(f"expert_{place}" for place in range(1, experts + 1))]
    with temporary_folder() as scratch:
        probes = make_probes([ModelView(name, slots) for name in names], scratch)
        sets = probe_sets(probes, [[name] for name in PROBES])
        with Sandbox(sets, Limits(20.0, 4.0), accept_weaker=accept_weaker) as sandbox:
            crashed = sandbox.run(program, 0, on=WHOLE).outcome.state is State.CRASHED
            return crashed, dependence(sandbox, program, sets)


def _pattern(scope: str) -> str:
    pattern = SCOPES.get(scope, scope)
    try:
        re.compile(pattern)
    except re.error as error:
        raise SelfdevError(
            f"scope {scope!r} is no regular expression ({error}); use mlp, all or a valid one"
        ) from None
    return pattern
