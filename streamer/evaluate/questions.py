"""Which prompts a manifest's files are asked, and by which label each is judged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.evaluate.manifest import KINDS, EvaluationError, Item, read_rows
from streamer.prompts import Prompt, parse_prompt

SENSE = {"video": "seen", "image": "seen", "audio": "heard"}


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt, asked of every file of the kinds that its label is used on.

    Attributes:
        text: What the tables call it.
        label: The label that tells whether it holds.
        kinds: Of files.
        prompt: As it is watched for.
    """

    text: str
    label: str
    kinds: tuple[str, ...]
    prompt: Prompt

    @property
    def is_paraphrase(self) -> bool:
        """It is another way to ask for its label."""
        return self.text != self.label


def ask(
    items: Sequence[Item], documents: Sequence[Mapping[str, Any] | str] = (), also: Mapping[str, str] | None = None
) -> list[Question]:
    """Every label of the items as a prompt, then the paraphrases.

    A prompt is asked of the kinds of file on which its label occurs: pictures show no gunshot and sounds no fire, so
    that on another kind its absence says nothing.

    Args:
        items: Of a manifest.
        documents: Prompt documents; one whose text or id is a label stands for it, with its phrasings and contrasts.
        also: Paraphrase to label.

    Raises:
        PromptError: A document or a text is refused.
        EvaluationError: A document or a paraphrase belongs to no label.
    """
    kinds = {
        label: tuple(kind for kind in KINDS if any(item.kind == kind and label in item.labels for item in items))
        for label in sorted({label for item in items for label in item.labels})
    }
    chosen = _chosen(documents, kinds)
    asked = [Question(label, label, kinds[label], _prompt(label, chosen.get(label))) for label in kinds]
    for text, label in (also or {}).items():
        if label not in kinds:
            raise EvaluationError(f"{text!r} is to be judged by {label!r}, which no item has; {_some(kinds)} are there")
        if text not in kinds:
            asked.append(Question(text, label, kinds[label], _prompt(text, None)))
    return [
        replace(question, prompt=question.prompt.model_copy(update={"id": f"asked-{number}"}))
        for number, question in enumerate(asked)
    ]


def ask_texts(texts: Sequence[str]) -> list[Prompt]:
    """Plain texts as prompts, even longer ones than can be registered: captions of a published set are as they are."""
    plain = parse_prompt("caption")
    return [plain.model_copy(update={"id": f"asked-{number}", "text": text}) for number, text in enumerate(texts)]


def read_also(pairs: Sequence[str], table: Path | None) -> dict[str, str]:
    """Paraphrases, from ``TEXT=LABEL`` and from a CSV with columns prompt and label.

    Raises:
        EvaluationError: A pair has another form, or the table cannot be read.
    """
    also = {}
    for pair in pairs:
        text, mark, label = (part.strip() for part in pair.rpartition("="))
        if not (mark and text and label):
            raise EvaluationError(f"{pair!r} is no TEXT=LABEL, such as brawl=fight")
        also[text] = label
    for row in read_rows(table, ("prompt", "label")) if table is not None else ():
        also[row["prompt"].strip()] = row["label"].strip()
    return also


def _chosen(documents: Sequence[Mapping[str, Any] | str], labels: Mapping[str, object]) -> dict[str, Prompt]:
    chosen = {}
    for document in documents:
        prompt = parse_prompt(document)
        label = next((label for label in labels if _plain(label) in {_plain(prompt.text), _plain(prompt.id)}), None)
        if label is None:
            raise EvaluationError(f"no item has a label like prompt {prompt.text!r}; {_some(labels)} are there")
        chosen[label] = prompt
    return chosen


def _prompt(text: str, chosen: Prompt | None) -> Prompt:
    # Where and when a prompt watches has no meaning on a file.
    return parse_prompt(text) if chosen is None else chosen.model_copy(update={"streams": "*", "schedule": None})


def _plain(text: str) -> str:
    return " ".join(text.lower().replace("_", " ").replace("-", " ").split())


def _some(labels: Mapping[str, object]) -> str:
    return ", ".join(labels) or "none"
