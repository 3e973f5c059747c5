"""What must hold on a device: `python tests/gpu/check.py [--device cuda]`. Needs torch and numpy, nothing else.

Exit 0: everything holds. Checks of what only CUDA has say so on a CPU and pass.
"""

import argparse
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a script, from anywhere

import numpy as np
import torch

from models.aligner import Aligner
from models.memory import Uploader
from tests.gpu.subjects import encoder, some_pixels, some_queries, some_sense, some_tokens

ONLY_CUDA = "nothing to check on a CPU"


def bfloat16_agrees_with_float32_on_the_cpu(device: str) -> str:
    pixels = some_pixels(8)
    name, reference = encoder("cpu", "float32")
    _, rough = encoder(device, "bfloat16")
    # Random weights tell classes apart by chance, so rounding changes which ten are likeliest more often.
    floor = 0.9 if "random" in name else 0.98
    expected, made = reference(pixels), rough(pixels)
    worst = float((expected.whole * made.whole.float().cpu()).sum(-1).min())
    mean = float((expected.cells * made.cells.float().cpu()).sum(-1).mean())
    require(worst > floor, f"whole pictures: cosine {worst:.4f} at worst")
    require(mean > floor, f"cells: cosine {mean:.4f} on average")
    return f"cosine: whole {worst:.4f} at worst, cells {mean:.4f} on average"


def float32_agrees_with_the_cpu(device: str) -> str:
    pixels = some_pixels(4)
    expected, made = encoder("cpu", "float32")[1](pixels), encoder(device, "float32")[1](pixels)
    worst = float((expected.cells * made.cells.cpu()).sum(-1).min())
    require(worst > (0.99 if is_cuda(device) else 0.99999), f"cosine {worst:.5f} at worst")  # TF32 on CUDA
    return f"cosine of cells {worst:.5f} at worst"


def a_row_is_the_same_alone_and_in_a_batch(device: str) -> str:
    pixels = some_pixels(6)
    _, encode = encoder(device, "bfloat16")
    together, alone = encode(pixels).whole, encode(pixels[5:6]).whole
    cosine = float((together[5].float() * alone[0].float()).sum())
    require(cosine > 0.99, f"cosine {cosine:.4f}")
    return f"cosine {cosine:.5f}"


def the_aligner_agrees_with_the_cpu(device: str) -> str:
    worst = 0.0
    for prompts in (1, 100, 1_000, 10_000):
        expected, made = some_tokens(4, "cpu"), some_tokens(4, device)
        exact = Aligner().pictures(expected.cells, expected.whole, some_queries(prompts, "cpu"))
        here = Aligner().pictures(made.cells, made.whole, some_queries(prompts, device))
        require(here.shape == (4, prompts), f"{tuple(here.shape)} for {prompts} prompts")
        worst = max(worst, float((exact - here.cpu()).abs().max()))
    require(worst < 1e-4, f"scores differ by {worst:.1e}")
    return f"up to 10,000 prompts, scores within {worst:.1e}"


def a_trained_sense_agrees_with_the_cpu(device: str) -> str:
    expected, made, queries = some_tokens(4, "cpu"), some_tokens(4, device), some_queries(20, "cpu").vectors
    reference, moved = some_sense(), some_sense().to(device)
    shares = moved.route(queries)  # prompts are embedded on the CPU
    require(bool((shares == reference.route(queries)).all()), "prompts are routed otherwise")
    require(float(shares[0]) == 1 and not shares[1:].any(), "the wrong prompts are routed")
    exact = reference.logits(expected.cells, expected.whole, queries[:1])
    here = moved.logits(made.cells, made.whole, queries[:1].to(device))
    worst = float((exact - here.cpu()).abs().max())
    require(worst < (1e-2 if is_cuda(device) else 1e-5), f"logits differ by {worst:.1e}")  # TF32 on CUDA
    return f"logits within {worst:.1e}"


def nothing_waits_for_the_device_in_the_batch_loop(device: str) -> str:
    _, encode = encoder(device, "bfloat16")
    queries = some_queries(100, device)

    def batch(size: int) -> torch.Tensor:
        tokens = encode(some_pixels(size))
        return Aligner().pictures(tokens.cells.float(), tokens.whole.float(), queries)

    batch(4)  # the first call plans convolutions and reserves memory
    with no_waiting(device):
        scores = [batch(size) for size in (4, 6, 4)]
    require(all(bool(score.isfinite().all()) for score in scores), "scores are not finite")
    return "no synchronising call in three batches" if is_cuda(device) else ONLY_CUDA


def copies_run_beside_kernels(device: str) -> str:
    upload = Uploader(torch.device(device))
    small = np.arange(1000, dtype=np.float32)
    require(bool((upload(small).cpu() == torch.from_numpy(small)).all()), "an uploaded array changed")
    if not is_cuda(device):
        return ONLY_CUDA
    pixels = some_pixels(64)
    upload(pixels)  # reserves the pinned memory
    matrix = torch.randn(8192, 8192, device=device)
    torch.cuda.synchronize()
    kernels_done, copy_done = torch.cuda.Event(), torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's own
    product = matrix
    for _ in range(60):  # some tenths of a second
        product = matrix @ product
        product = product / product.norm()
    kernels_done.record()
    is_done: Callable[[], bool] = kernels_done.query
    require(not is_done(), "the kernels were done at once; the check needs a slower device or more of them")
    copied = upload(pixels)
    copy_done.record(upload.stream)
    copy_done.synchronize()
    require(not is_done(), "the copy waited for the kernels before it")
    torch.cuda.synchronize()
    require(bool((copied.cpu() == torch.from_numpy(pixels)).all()), "an uploaded array changed")
    return f"{pixels.nbytes / 1e6:.0f} MB were there before the kernels had finished"


def memory_does_not_grow(device: str) -> str:
    _, encode = encoder(device, "bfloat16")
    queries = some_queries(100, device)

    def rounds(count: int) -> None:
        for number in range(count):
            tokens = encode(some_pixels(1 + number % 3))
            Aligner().pictures(tokens.cells.float(), tokens.whole.float(), queries)

    rounds(24 if is_cuda(device) else 8)
    before = held_bytes(device)
    rounds(200 if is_cuda(device) else 8)
    grown = held_bytes(device) - before
    limit = 0 if is_cuda(device) else 32_000_000  # a host's allocator keeps pages back as it likes
    require(grown <= limit, f"{grown / 1e6:.1f} MB more after the batches")
    return f"{grown / 1e6:+.1f} MB"


def other_families_agree_with_the_cpu(device: str) -> str:
    if not find_spec("transformers"):
        return "transformers is not installed: not checked"
    import transformers  # noqa: PLC0415  # transformers may be absent

    from models.families import load_clap, load_clip, load_siglip2  # noqa: PLC0415  # transformers may be absent
    from tests import checkpoints  # noqa: PLC0415

    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (3, checkpoints.PIXELS, checkpoints.PIXELS, 3), dtype=np.uint8)
    samples = rng.normal(0, 0.1, (3, 16_000)).astype(np.float32)
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        cases: list[tuple[Callable[..., Any], Path, Any]] = [
            (load_clip, checkpoints.write_clip(root / "clip"), pixels),
            (load_siglip2, checkpoints.write_siglip2(root / "siglip", is_naflex=False), pixels),
            (load_siglip2, checkpoints.write_siglip2(root / "siglip2", is_naflex=True), pixels),
            (load_clap, checkpoints.write_clap(root / "clap", is_fused=False), samples),
            (load_clap, checkpoints.write_clap(root / "clap-fused", is_fused=True), samples),
        ]
        for load, path, rows in cases:
            expected = load(str(path), "cpu", "float32")[0].encode(rows).whole
            network, text = load(str(path), device, "float32")
            network.encode(rows)
            with no_waiting(device):
                made = network.encode(rows).whole
            require(text.encode(["fire"]).shape == (1, network.dim), f"{path.name}: text")
            worst = max(worst, 1 - float((expected * made.cpu()).sum(-1).min()))
    require(worst < 1e-3, f"1 - cosine is {worst:.1e} at worst")
    return f"five checkpoints, 1 - cosine {worst:.1e} at worst"


CHECKS: tuple[Callable[[str], str], ...] = (
    bfloat16_agrees_with_float32_on_the_cpu,
    float32_agrees_with_the_cpu,
    a_row_is_the_same_alone_and_in_a_batch,
    the_aligner_agrees_with_the_cpu,
    a_trained_sense_agrees_with_the_cpu,
    nothing_waits_for_the_device_in_the_batch_loop,
    copies_run_beside_kernels,
    memory_does_not_grow,
    other_families_agree_with_the_cpu,
)


def require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def is_cuda(device: str) -> bool:
    return device.startswith("cuda")


@contextmanager
def no_waiting(device: str) -> Iterator[None]:
    """Any call that would wait for the device raises."""
    if not is_cuda(device):
        yield
        return
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def held_bytes(device: str) -> int:
    """Bytes of tensors on CUDA; of the whole process on a CPU."""
    if is_cuda(device):
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    device = parser.parse_args().device
    name = torch.cuda.get_device_name(device) if is_cuda(device) else f"{torch.get_num_threads()} threads"
    sys.stdout.write(f"torch {torch.__version__} on {device} ({name}), {encoder('cpu', 'float32')[0]}\n")
    failed = 0
    for check in CHECKS:
        label = check.__name__.replace("_", " ")
        try:
            sys.stdout.write(f"ok    {label}: {check(device)}\n")
        except Exception as error:  # noqa: BLE001  # a report goes on after a failure
            failed += 1
            sys.stdout.write(f"FAIL  {label}: {error}\n")
            if not isinstance(error, AssertionError):
                traceback.print_exc()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
