"""Files of prompts: YAML, JSON, or JSON lines as `prompts list --json` writes them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from streamer.errors import PromptError
from streamer.prompt_store import Document

MAX_BYTES = 64 * 1024 * 1024
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster where it was built
_FORMS = "give a list of documents, a mapping from id to document, or one document with 'text'"


def read_documents(path: Path) -> Sequence[Document | str]:
    """The documents of a file, not yet checked; see `parse_documents`.

    Raises:
        PromptError: It cannot be read, is too large or holds something else.
    """
    try:
        size_bytes = path.stat().st_size
        if size_bytes > MAX_BYTES:
            raise PromptError(f"prompts file {path} has {size_bytes} bytes; at most {MAX_BYTES} are read")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise PromptError(f"prompts file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PromptError(f"prompts file {path} is not UTF-8 text (byte {error.start})") from error
    return parse_documents(text, str(path))


def parse_documents(text: str, where: str) -> Sequence[Document | str]:
    """The documents in a text, not yet checked.

    A list of documents, ``{id: document}``, ``{prompts: [document]}`` or one document; a document may be its text
    alone.

    Args:
        text: YAML, JSON, or one JSON document a line.
        where: What to call it in messages.

    Raises:
        PromptError: It is neither, or holds no documents.
    """
    content = _parse(text, where)
    if isinstance(content, Mapping) and isinstance(content.get("prompts"), list):
        content = content["prompts"]
    if isinstance(content, Mapping):
        content = [content] if isinstance(content.get("text"), str) else _with_ids(content, where)
    if not isinstance(content, list) or not content:
        raise PromptError(f"{where} holds no prompts; {_FORMS}")
    return content


def format_documents(documents: Sequence[Document], *, as_json: bool) -> str:
    """A file that `parse_documents` reads back."""
    if as_json:
        return json.dumps(documents, ensure_ascii=False, indent=2) + "\n"
    return yaml.safe_dump(list(documents), allow_unicode=True, sort_keys=False, default_flow_style=None, width=120)


def _parse(text: str, where: str) -> object:
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        if len(lines) > 1 and all(line.startswith("{") and line.rstrip().endswith("}") for line in lines):
            return [json.loads(line) for line in lines]
        return json.loads(text)
    except (ValueError, RecursionError):
        pass  # YAML reads what JSON does not, and says where it goes wrong
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  one of the two safe loaders
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise PromptError(f"{where} is neither YAML nor JSON: {' '.join(str(error).split())[:300]}") from error


def _with_ids(content: Mapping[Any, Any], where: str) -> list[Any]:
    documents: list[Any] = []
    for prompt_id, document in content.items():
        if isinstance(document, str):
            documents.append({"id": prompt_id, "text": document})
        elif isinstance(document, Mapping) and document.get("id", prompt_id) == prompt_id:
            documents.append({"id": prompt_id, **document})
        else:
            raise PromptError(f"{where}: {str(prompt_id)[:60]!r} holds no document with that id; {_FORMS}")
    return documents
