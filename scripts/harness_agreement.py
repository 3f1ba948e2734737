"""The same model on the same questions, by lm-evaluation-harness with transformers and by selfdev.

Needs the extra lm-eval: python scripts/harness_agreement.py [--model lab:a/seed] [--count 500]
Prints one JSON object with the right answers of both, under both readings, and the questions they differ on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from selfdev.api import model_path
from selfdev.tasks.tasks import STOPS, load_task

TASK = """task: selfdev_lab
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
output_type: generate_until
test_split: test
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{answer}}}}"
num_fewshot: 0
generation_kwargs: {{until: {stops}, do_sample: false, temperature: 0.0, max_gen_toks: 48}}
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    ignore_case: true
    ignore_punctuation: false
    regexes_to_ignore: [",", "\\\\$", "(?s).*#### ", "\\\\.$"]
filter_list:
  - name: strict-match
    filter: [{{function: regex, regex_pattern: "#### (\\\\-?[0-9\\\\.\\\\,]+)"}}, {{function: take_first}}]
  - name: flexible-extract
    filter:
      - {{function: regex, group_select: -1, regex_pattern: "(-?[$0-9.,]{{2,}})|(-?[0-9]+)"}}
      - {{function: take_first}}
"""


def compare(model: str, count: int) -> dict[str, object]:
    """Right answers of transformers under the harness, of our engine under it, and of our own scorer."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from selfdev.engine import scorer
    from selfdev.engine.engine import Engine
    from selfdev.tasks import harness

    path = model_path(model)
    asked = load_task("lab").test[:count]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "questions.jsonl")
        rows = [json.dumps({"prompt": q.prompt, "answer": q.answer}) for q in asked]
        file.write_text("\n".join(rows), encoding="utf-8")
        Path(scratch, "task.yaml").write_text(
            TASK.format(file=file, stops=json.dumps(STOPS)), encoding="utf-8"
        )
        theirs = harness.read_score(
            simple_evaluate(
                model=HFLM(str(path), dtype="float32", device="cpu", batch_size=64), tasks=["selfdev_lab"],
                task_manager=TaskManager(include_path=scratch), bootstrap_iters=0, log_samples=True,
            ),
            "selfdev_lab",
        )  # fmt: skip
        engine = Engine(path, dtype="float32")
        living = harness.score(engine, "selfdev_lab", {}, folder=Path(scratch))
    ours = scorer.score(engine, scorer.prepare(engine, asked, 48, 64), {})
    scores = {"harness": theirs, "harness_on_engine": living, "selfdev": ours}
    return {
        "model": model,
        "n": len(asked),
        **{name: {"strict": sum(s.strict), "flexible": sum(s.flexible)} for name, s in scores.items()},
        "different": [
            i for i in range(len(asked)) if len({(s.strict[i], s.flexible[i]) for s in scores.values()}) > 1
        ],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="lab:a/seed")
    parser.add_argument("--count", type=int, default=500)
    given = parser.parse_args()
    print(json.dumps(compare(given.model, given.count)))
