"""The benchmark for accelerators, run for real on the CPU where FiftyOne cannot be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import MEMORY_GB, Run, best_run, run_table
from refseg.models.loaded import default_dtype, get_preset

ROOT = Path(__file__).parent.parent.parent


def run_of(way: str, batch: int, milliseconds: list[float], gigabytes: float | None) -> Run:
    peak = None if gigabytes is None else round(gigabytes * 1e9)
    return Run(way, torch.float32, batch, [value / 1e3 for value in milliseconds], peak, 40.0)


def test_best_run_is_the_fastest_that_fits() -> None:
    runs = [run_of("exact", 1, [200], 5), run_of("exact", 4, [100], MEMORY_GB), run_of("exact", 8, [50], MEMORY_GB + 0.1)]
    assert best_run(runs).batch == 4
    assert best_run(runs[2:]).batch == 8
    assert best_run([run_of("exact", 1, [200], None), run_of("exact", 2, [90], None)]).batch == 2


def test_table_by_hand() -> None:
    baseline = run_of("baseline", 1, [1000, 900, 1300], None)
    table = run_table([baseline, run_of("exact", 4, [250], 3.456)], baseline).splitlines()
    assert table[2] == "| baseline | float32 | 1 | 1 | 1.00 | 900 / 1e+03 / 1.3e+03 | – | 40 |"
    assert table[3] == "| exact | float32 | 4 | 4 | 4.00 | 250 / 250 / 250 | 3.46 | 40 |"


@pytest.mark.slow
@pytest.mark.thorough
def test_runs_without_fiftyone() -> None:
    code = "import sys; sys.modules['fiftyone'] = None; import torch; torch.set_num_threads(1)\n"
    code += "sys.argv[1:] = '--model demo --device cpu --batches 1 --repeats 1 --points 4'.split()\n"
    code += "from benchmarks.gpu import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("No accelerator")
    of_fast = str(default_dtype(get_preset("demo-fast"), torch.device("cpu"))).removeprefix("torch.")
    for way, dtype in (("baseline", "float32"), ("exact", "float32"), ("fast", of_fast)):
        assert any(line.startswith(f"| {way} | {dtype} | 1 |") for line in lines), way
    for stage in ("segmenter encoder", "decoder", "encoder", "pooling"):
        assert any(line.startswith(f"| {stage} | ") for line in lines), stage
    for dtype in ("float32", "bfloat16"):
        assert any(f"{dtype}: smallest mask IoU" in line for line in lines), dtype
