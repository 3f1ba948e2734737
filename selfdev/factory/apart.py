"""Work of the factory in processes of its own: on a GPU, what it held there is free once it has ended.

The parent starts this file with a pickled job of its own making, alone or through `accelerate launch`, and
reads on its output how far the work is. Of several processes the first one writes the result.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from selfdev.errors import SelfdevError, one_line
from selfdev.store.temporary import temporary_folder
from selfdev.workers.offspring import die_with

STEP = "selfdev step"  # how a line begins that tells of progress
Tell = Callable[[int, int], None]


def apart(
    work: Callable[..., Any], args: tuple[Any, ...], tell: Tell, accelerate: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Any:  # fmt: skip
    """`work(*args, progress)` in a process of its own, or in those of an accelerate config; its result.

    `tell` gets (steps done, steps in all) and may raise, which ends the processes. SelfdevError with the
    sentence of the work's own, or where it ran out of memory; RuntimeError with its last words otherwise.
    """
    with temporary_folder() as folder:
        job = folder / "job"
        job.write_bytes(pickle.dumps((work, args)))
        words = [sys.executable, "-P", "-m", __name__, str(os.getpid()), str(job)]
        words += [str(accelerate)] if accelerate else []
        with (
            (folder / "errors").open("w+", encoding="utf-8", errors="replace") as errors,
            subprocess.Popen(
                words,
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
                errors="replace",
                env={**_environment(), **(environment or {})},
                start_new_session=True,  # Ctrl-C is for the driver, which ends them at the next step
            ) as process,  # fmt: skip
        ):
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    if line.startswith(STEP):
                        done, total = line.removeprefix(STEP).split()
                        tell(int(done), int(total))
            except BaseException:
                process.kill()  # Linux ends the others with it
                raise
            code = process.wait()
            errors.seek(0)
            said = errors.read()
        return _result(folder / "result", code, said)


def _environment() -> dict[str, str]:
    """That of here, in which modules are not looked for in the folder where the user is."""
    there = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(there)}


def _result(file: Path, code: int, said: str) -> Any:
    if file.is_file():
        fine, result = pickle.loads(file.read_bytes())
        if fine:
            return result
        raise SelfdevError(result)
    if "out of memory" in said.lower():
        raise SelfdevError(
            "the training of the factory ran out of memory; lower dpo.micro_batch or factory.max_new_tokens,"
            " or give dpo.accelerate a config that cuts the model over several GPUs (docs/cluster.md)."
        )
    raise RuntimeError(f"a process of the factory's training ended with {code}: {said[-3000:]}")


def together() -> bool:
    """Whether accelerate has started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def processes() -> int:
    """How many processes do this work together."""
    return int(os.environ["WORLD_SIZE"]) if together() else 1


def cut_up() -> bool:
    """Whether accelerate will cut the model over these processes, by FSDP."""
    return together() and os.environ.get("ACCELERATE_USE_FSDP") == "true"


def is_first() -> bool:
    """Whether this is the process that writes."""
    return not together() or os.environ["RANK"] == "0"


def _launch(parent: int, job: Path, accelerate: Path) -> None:
    """Start the processes of an accelerate config on this job, and wait for them."""
    die_with(parent)
    from accelerate.commands.launch import launch_command, launch_command_parser

    words = ["--config_file", str(accelerate), "-m", __spec__.name, str(os.getpid()), str(job)]
    launch_command(launch_command_parser().parse_args(words))


def _work(parent: int, job: Path) -> None:
    """Do the job; a sentence for the user travels back as a result."""
    die_with(parent)
    work, args = pickle.loads(job.read_bytes())
    try:
        found = (True, work(*args, _tell))
    except SelfdevError as error:
        found = (False, str(error))
    if is_first():
        draft = job.with_name("result.part")
        draft.write_bytes(pickle.dumps(found))
        draft.replace(job.with_name("result"))


def _tell(done: int, total: int) -> None:
    if is_first():
        print(STEP, done, total, flush=True)


def launched_by(file: Path) -> int:
    """How many processes an accelerate config starts; SelfdevError where it cannot be read or wants more than
    one machine."""
    import yaml

    try:
        said = yaml.safe_load(file.read_text(encoding="utf-8"))
        number, machines = int(said["num_processes"]), int(said.get("num_machines", 1))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        why = error.strerror if isinstance(error, OSError) else one_line(repr(error))[:120]
        raise SelfdevError(
            f"dpo.accelerate {file} is no config of accelerate with num_processes"
            f" ({why}); make one with accelerate config, or start from"
            " configs/accelerate/."
        ) from None
    if machines != 1 or number < 1:
        raise SelfdevError(
            f"dpo.accelerate {file} has {number} processes on {machines} machines, and training starts on the"
            " driver's machine alone; set num_machines to 1 and num_processes to its GPUs."
        )
    return number


if __name__ == "__main__":
    if len(sys.argv) > 3:
        _launch(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        _work(int(sys.argv[1]), Path(sys.argv[2]))
