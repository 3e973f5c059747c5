"""Rates on a device: `python tests/gpu/bench.py [--device cuda] [--json]`. Needs torch and numpy, nothing else."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a script, from anywhere

import torch

from models.aligner import Aligner
from tests.gpu.subjects import encoder, some_pixels, some_queries, some_tokens

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
PROMPTS = (1, 100, 1_000, 10_000)
FRAMES = 16  # of a batch that is aligned


def seconds(run: Callable[[], object], device: str, budget_s: float) -> float:
    """Seconds a call, in steady state: calls are enqueued one after the other, and only the last is waited for."""
    run()
    run()
    wait(device)
    calls = 1
    while True:
        start = time.perf_counter()
        for _ in range(calls):
            run()
        wait(device)
        spent = time.perf_counter() - start
        if spent >= budget_s:
            return spent / calls
        calls = max(calls + 1, int(calls * 1.2 * budget_s / max(spent, 1e-6)))


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def measure(
    device: str, precision: Literal["bfloat16", "float32"], batches: tuple[int, ...], budget_s: float
) -> dict[str, object]:
    """Frames a second by batch size, bytes in host memory to tokens; milliseconds to align by number of prompts."""
    name, encode = encoder(device, precision)
    tokens = some_tokens(FRAMES, device)

    def frames_per_s(size: int) -> float:
        pixels = some_pixels(size)
        return round(size / seconds(lambda: encode(pixels), device, budget_s), 1)

    def align_ms(count: int) -> float:
        queries = some_queries(count, device)
        run_s = seconds(lambda: Aligner().pictures(tokens.cells, tokens.whole, queries), device, budget_s)
        return round(run_s * 1000, 3)

    is_cuda = device.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name(device) if is_cuda else f"cpu, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "encoder": name,
        "precision": precision,
        "frames_per_s": {str(size): frames_per_s(size) for size in batches},
        "align_ms_per_16_frames": {str(count): align_ms(count) for count in PROMPTS},
        "peak_device_bytes": torch.cuda.max_memory_allocated(device) if is_cuda else None,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--largest", type=int, default=512, help="largest batch")
    parser.add_argument("--budget-s", type=float, default=1.0, help="seconds for each figure")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    batches = tuple(size for size in BATCHES if size <= given.largest)
    made = measure(given.device, given.precision, batches, given.budget_s)
    if given.json:
        sys.stdout.write(json.dumps(made) + "\n")
        return 0
    for key, value in made.items():
        if isinstance(value, dict):
            sys.stdout.write(f"{key}\n" + "".join(f"  {one:>6}  {other:>10}\n" for one, other in value.items()))
        else:
            sys.stdout.write(f"{key}: {value}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
