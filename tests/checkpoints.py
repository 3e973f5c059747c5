"""Tiny random checkpoints of the foreign families, written the way their publishers write them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    BertConfig,
    BertModel,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    RobertaTokenizer,
    Siglip2Config,
    Siglip2ImageProcessorPil,
    Siglip2Model,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
)

PIXELS = 32
PATCH = 8
HIDDEN = 32
DIM = 24
TOWER = {
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def write_clip(folder: Path, *, model_pixels: int = PIXELS, processor_pixels: int = PIXELS) -> Path:
    specials = ["<|startoftext|>", "<|endoftext|>"]
    letters = sorted(ByteLevel.alphabet())
    vocabulary = [*letters, *(letter + "</w>" for letter in letters), "fi", "fire</w>", "re</w>", *specials]
    tokenizer = CLIPTokenizer(
        vocab={token: number for number, token in enumerate(vocabulary)},
        merges=[("f", "i"), ("r", "e</w>"), ("fi", "re</w>")],
        model_max_length=16,
    )
    config = CLIPConfig(
        text_config={
            **TOWER,
            "vocab_size": len(vocabulary),
            "max_position_embeddings": 16,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "projection_dim": DIM,
        },
        vision_config={**TOWER, "image_size": model_pixels, "patch_size": PATCH, "projection_dim": DIM},
        projection_dim=DIM,
    )
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": processor_pixels}, crop_size={"height": processor_pixels, "width": processor_pixels}
    )
    return _save(folder, CLIPModel(config), tokenizer, processor)


def write_siglip2(folder: Path, *, is_naflex: bool) -> Path:
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *"abcdefghijklmnopqrstuvwxyz", "re"]
    tokenizer = Siglip2Tokenizer(
        vocab={word: number for number, word in enumerate(words)}, merges=[("r", "e")], model_max_length=12
    )
    text = {
        **TOWER,
        "vocab_size": len(words),
        "max_position_embeddings": 12,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
    }
    vision = {**TOWER, "patch_size": PATCH}
    side = PIXELS // PATCH
    if is_naflex:
        config = Siglip2Config(text_config=text, vision_config={**vision, "num_patches": side * side})
        processor = Siglip2ImageProcessorPil(patch_size=PATCH, max_num_patches=side * side)
        return _save(folder, Siglip2Model(config), tokenizer, processor)
    config = SiglipConfig(text_config=text, vision_config={**vision, "image_size": PIXELS})
    processor = SiglipImageProcessorPil(size={"height": PIXELS, "width": PIXELS})
    return _save(folder, SiglipModel(config), tokenizer, processor)


def write_clap(folder: Path, *, is_fused: bool, padding: str = "repeatpad") -> Path:
    letters = sorted(ByteLevel.alphabet())
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *letters, "<mask>"]
    tokenizer = RobertaTokenizer(
        vocab={token: number for number, token in enumerate(vocabulary)}, merges=[], model_max_length=20
    )
    config = ClapConfig(
        text_config={**TOWER, "vocab_size": len(vocabulary), "max_position_embeddings": 22, "pad_token_id": 1},
        audio_config={
            "window_size": 4,
            "spec_size": 64,
            "num_mel_bins": 16,
            "patch_size": 4,
            "patch_stride": [4, 4],
            "patch_embeds_hidden_size": 8,
            "hidden_size": 16,
            "depths": [2, 2],
            "num_attention_heads": [2, 4],
            "num_hidden_layers": 2,
            "enable_fusion": is_fused,
            "fusion_type": "aff_2d" if is_fused else None,
        },
        projection_dim=DIM,
    )
    extractor = ClapFeatureExtractor(
        feature_size=16, max_length_s=2, truncation="fusion" if is_fused else "rand_trunc", padding=padding
    )
    net = ClapModel(config)
    norm = net.audio_model.audio_encoder.batch_norm
    with torch.no_grad():  # as after training: untrained statistics would hide what normalising does
        norm.running_mean.fill_(-30.0)
        norm.running_var.fill_(400.0)
    return _save(folder, net, tokenizer, extractor)


def write_bert(folder: Path) -> Path:
    BertModel(BertConfig(**TOWER, vocab_size=30)).save_pretrained(folder)
    return folder


def _save(folder: Path, *parts: Any) -> Path:
    for part in parts:
        part.save_pretrained(folder)
    return folder


def write_yamnet(path: Path, *, takes_samples: bool, classes: int = 521) -> tuple[Any, Any]:
    """A LiteRT file with YAMNet's ends: the mean over time, one layer, a sigmoid. Returns its weights and biases."""
    import flatbuffers  # noqa: PLC0415  # of the packages that only yamnet needs
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415

    rng = np.random.default_rng(3)
    rows, columns = (156, 100) if takes_samples else (96, 64)
    weights = rng.normal(0, 0.5, (classes, columns)).astype(np.float32)
    biases = rng.normal(-2, 1, classes).astype(np.float32)
    model = schema.ModelT()
    model.version, model.buffers, model.operatorCodes = 3, [schema.BufferT()], []
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = [], []

    def tensor(shape: list[int], value: Any = None) -> int:
        made = schema.TensorT()
        made.shape, made.name = shape, str(len(graph.tensors))
        made.type = schema.TensorType.INT32 if value is not None and value.dtype == np.int32 else 0
        if value is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(value.tobytes(), np.uint8)
            model.buffers.append(buffer)
            made.buffer = len(model.buffers) - 1
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    def operator(name: str, inputs: list[int], output: list[int]) -> int:
        code, made = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode, code.version = code.builtinCode, 1
        model.operatorCodes.append(code)
        made.opcodeIndex, made.inputs = len(model.operatorCodes) - 1, inputs
        options = {"RESHAPE": "Reshape", "MEAN": "Reducer", "FULLY_CONNECTED": "FullyConnected"}.get(name)
        if options:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, f"{options}Options")
            made.builtinOptions = getattr(schema, f"{options}OptionsT")()
        made.outputs = [tensor(output)]
        graph.operators.append(made)
        return int(made.outputs[0])

    given = tensor([rows * columns] if takes_samples else [1, rows, columns])
    shaped = given
    if takes_samples:
        shaped = operator("RESHAPE", [given, tensor([3], np.array([1, rows, columns], np.int32))], [1, rows, columns])
    mean = operator("MEAN", [shaped, tensor([1], np.array([1], np.int32))], [1, columns])
    parts = [mean, tensor([classes, columns], weights), tensor([classes], biases)]
    scores = operator("LOGISTIC", [operator("FULLY_CONNECTED", parts, [1, classes])], [1, classes])
    graph.inputs, graph.outputs = [given], [scores]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return weights, biases
