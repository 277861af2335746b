"""Compares the first losses of the text lab on the GPU with those on the CPU, as a part of benchmarks.gpu.

    python -m benchmarks.losses --out FILE

The same seed gives the same parameters and the same batches. It also gives the same dropout masks, because they are
computed from the seed with integers. So in float32 the losses differ only by rounding, which training amplifies from
step to step. The expected size of this difference is measured: it is the difference between the float32 run and the
float64 run of the CPU, step by step.
"""

import sys
from dataclasses import replace
from typing import Any

from benchmarks.part import Part, main
from gpulstm import device
from gpulstm.labs.text_corpus import Corpus, default_corpus
from gpulstm.labs.text_training import Settings, new_model, new_trainer, streams

STEPS = 50
# Two float32 runs each stray from float64 by about as much, so from each other by up to twice that; twice
# again for luck of the draw. On top, 16 units in the last place: the processor's stray over these steps is as
# small as one.
FACTOR, FLOOR = 4, 16 * 2.0**-23
QUICK = {"hidden": 16, "embedding": 8, "batch": 4, "window": 16}


def first_losses(text: str, settings: Settings, where: str, steps: int) -> list[float]:
    """The losses of the first steps of exactly the run that ``gpulstm text train`` would make."""
    corpus = Corpus.of(text, settings.level, settings.vocabulary)
    batches, _ = streams(corpus, settings)
    trainer = new_trainer(new_model(corpus, settings, device(where)), settings)
    records = trainer.fit(batches, steps, log_every=1, progress=False)
    return [record["loss"] for record in records]


def rows_of(cuda: list[float], cpu: list[float], exact: list[float]) -> list[dict[str, Any]]:
    """A row for each step: the losses, the relative difference of the two devices, and what is allowed there.

    What is allowed at a step comes from the largest stray of the processor's float32 run up to it.
    """
    rows, stray = [], 0.0
    for step, (on_gpu, on_cpu, wide) in enumerate(zip(cuda, cpu, exact, strict=True), 1):
        stray = max(stray, abs(on_cpu - wide) / abs(wide))
        difference = abs(on_gpu - on_cpu) / abs(wide)
        rows.append(
            {"step": step, "cuda": on_gpu, "cpu": on_cpu, "cpu_float64": wide, "difference": difference,
             "allowed": FACTOR * stray + FLOOR}
        )  # fmt: skip
    return rows


def compare(part: Part, where: str, text: str, settings: Settings, steps: int) -> None:
    """Run all three and keep the rows; a step that is off fails the part."""
    assert settings.dropout > 0  # the masks are a part of what must agree
    exact = first_losses(text, replace(settings, dtype="float64"), "cpu", steps)
    rows = rows_of(first_losses(text, settings, where, steps), first_losses(text, settings, "cpu", steps), exact)
    part.add(*rows)
    off = [row for row in rows if not row["difference"] <= row["allowed"]]  # so that NaN is off
    for row in off[:3]:
        part.fail(
            f"step {row['step']}: {row['cuda']:.7f} on cuda and {row['cpu']:.7f} on cpu differ by "
            f"{row['difference']:.1e}, expected at most {row['allowed']:.1e}"
        )
    worst = max(row["difference"] for row in rows)
    stray = (rows[-1]["allowed"] - FLOOR) / FACTOR
    part.note(
        f"first {steps} losses, dropout {settings.dropout}: cuda and cpu differ by {worst:.1e} at most "
        f"(relative); the processor's float32 strays from its float64 by {stray:.1e}; "
        + ("they agree to float32 accuracy" if not off else f"{len(off)} steps are off")
    )


def work(part: Part, backend: Any) -> None:
    settings, text = Settings(), default_corpus()
    if part.quick:
        settings, text = replace(settings, **QUICK), text[:4000]
    compare(part, backend.name, text, settings, 5 if part.quick else STEPS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], "losses", work))
