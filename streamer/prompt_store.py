"""Prompts in Redis: documents with versions, and a log of changes for `streamer.prompt_follower`.

Under the prefix:

- ``prompts``: hash, id -> JSON document with ``version``.
- ``prompts:versions``: hash, id -> last version given out, kept after a removal so that a version is never reused;
  ``*`` counts all changes ever made.
- ``prompts:log``: stream, one entry a change: ``change`` (add, update, remove), ``id``, ``version``, ``serial`` (the
  count, so that a follower sees when entries are missing). It says what changed; documents are read from the hash.
"""

import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis

from streamer.errors import (
    PromptChangedError,
    PromptError,
    PromptExistsError,
    PromptMissingError,
    UnavailableError,
)
from streamer.prompts import Prompt, parse_prompt, slug
from streamer.redis_client import reaching

LOG_LENGTH = 10_000  # about; a follower that was away for longer reads everything again
LOG_COUNT = 1_000  # entries read at once
MAX_ATTEMPTS = 20  # at one change, against others who change the same prompt
MAX_PROBLEMS = 20  # listed of one file
COUNT = "*"  # never an id

# Compare and set, all or nothing. Per change four arguments: id, the document that must lie there now ('': none), the
# new document without its version ('': remove), and a version to stay above. Answers the ids that lay there otherwise,
# or the versions given. Only what Redis 6.2 has.
_CHANGE = """
local unlike = {}
for i = 2, #ARGV, 4 do
    if (redis.call('HGET', KEYS[1], ARGV[i]) or '') ~= ARGV[i + 1] then unlike[#unlike + 1] = ARGV[i] end
end
if #unlike > 0 then return {'unlike', unlike} end
local versions = {}
for i = 2, #ARGV, 4 do
    local id, before, body = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    local last = tonumber(redis.call('HGET', KEYS[2], id) or '0') or 0
    local version = math.max(last, tonumber(ARGV[i + 3])) + 1
    local change = 'update'
    if body == '' then
        change = 'remove'
        redis.call('HDEL', KEYS[1], id)
    else
        if before == '' then change = 'add' end
        redis.call('HSET', KEYS[1], id, string.sub(body, 1, -2) .. ',"version":' .. version .. '}')
    end
    redis.call('HSET', KEYS[2], id, version)
    local serial = redis.call('HINCRBY', KEYS[2], '*', 1)
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[1], '*',
        'change', change, 'id', id, 'version', version, 'serial', serial)
    versions[#versions + 1] = version
end
return {'done', versions}
"""

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did, ids in the order of the documents."""

    added: tuple[str, ...]
    updated: tuple[str, ...]
    unchanged: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything in a store at one moment.

    Attributes:
        prompts: By id, of all documents that could be read.
        damaged: Ids of those that could not, with the reason.
        serial: Count of changes made so far.
        log_id: Last entry of the log, from which to follow it.
    """

    prompts: Mapping[str, Prompt]
    damaged: Mapping[str, str]
    serial: int
    log_id: str


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One change: entry ``log_id`` of the log, the ``serial``-th of all, to a prompt."""

    log_id: str
    prompt_id: str
    serial: int


@dataclass(frozen=True, slots=True)
class _Change:
    id: str
    before: str
    prompt: Prompt | None
    above: int = 0

    def arguments(self) -> tuple[str, str, str, int]:
        return self.id, self.before, "" if self.prompt is None else _body(self.prompt), self.above


class PromptStore:
    """Prompts under a prefix. Safe to share between threads; every method may raise `UnavailableError`."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self.redis = redis
        self.prefix = prefix
        self.prompts_key = f"{prefix}prompts"
        self.versions_key = f"{prefix}prompts:versions"
        self.log_key = f"{prefix}prompts:log"
        self._script = redis.register_script(_CHANGE)

    def add(self, document: Document | str) -> Prompt:
        """Store a new prompt.

        Args:
            document: See `parse_prompt`; ``version`` in it is ignored. An id made from the text avoids those in use.

        Raises:
            PromptError: It is refused.
            PromptExistsError: Its id is in use.
        """
        for _ in range(MAX_ATTEMPTS):
            prompt = parse_prompt(document, self.ids())
            versions = self._apply([_Change(prompt.id, "", prompt)])
            if versions:
                return _versioned(prompt, versions[0])
            if isinstance(document, Mapping) and document.get("id") is not None:
                raise PromptExistsError(f"prompt {prompt.id!r} exists already; update it, or choose another id")
        raise _contended("the new prompt")

    def update(self, prompt_id: str, changes: Document, *, expected_version: int | None = None) -> Prompt:
        """Change some keys of a prompt; one that is None goes back to its default.

        Args:
            prompt_id: Which.
            changes: New values by key; ``id`` may only repeat what is there.
            expected_version: Refuse when someone else changed it since this version. None: ``version`` in ``changes``,
                or else change what is there now.

        Returns:
            The prompt with its new version, or as it was when nothing would change.

        Raises:
            PromptMissingError: There is no such prompt.
            PromptChangedError: Its version is another.
            PromptError: The result is refused.
        """
        if expected_version is None:
            expected_version = changes.get("version")
        for _ in range(MAX_ATTEMPTS):
            raw, old = self._read(prompt_id)
            if expected_version is not None and old.version != expected_version:
                raise _moved_on(prompt_id, old.version, expected_version)
            new = _changed(old, changes)
            if _body(new) == _body(old):
                return old
            versions = self._apply([_Change(prompt_id, raw, new, old.version)])
            if versions:
                return _versioned(new, versions[0])
        raise _contended(f"prompt {prompt_id!r}")

    def remove(self, *prompt_ids: str, expected_version: int | None = None) -> None:
        """Remove prompts, all or none. Also damaged ones.

        Args:
            prompt_ids: Which.
            expected_version: Refuse when one was changed since this version.

        Raises:
            PromptMissingError: One is not there.
            PromptChangedError: Its version is another.
        """
        unique = list(dict.fromkeys(prompt_ids))
        if not unique:
            return
        for _ in range(MAX_ATTEMPTS):
            raws = self._raw(unique)
            missing = [prompt_id for prompt_id, raw in zip(unique, raws, strict=True) if not raw]
            if missing:
                raise self._unknown(missing)
            if expected_version is not None:
                for prompt_id, raw in zip(unique, raws, strict=True):
                    version = _parse_stored(prompt_id, raw).version
                    if version != expected_version:
                        raise _moved_on(prompt_id, version, expected_version)
            if self._apply([_Change(prompt_id, raw, None) for prompt_id, raw in zip(unique, raws, strict=True)]):
                return
        raise _contended("the prompts to remove")

    def get(self, prompt_id: str) -> Prompt:
        """One prompt.

        Raises:
            PromptMissingError: It is not there.
            PromptError: What lies there is damaged.
        """
        return self._read(prompt_id)[1]

    def list(self) -> Sequence[Prompt]:
        """All prompts by id, without damaged ones."""
        return list(self.load().prompts.values())

    def ids(self) -> set[str]:
        """All ids, those of damaged prompts too."""
        with reaching(self.redis):
            return {_text(key) for key in self.redis.hkeys(self.prompts_key)}

    def import_many(self, documents: Sequence[Document | str]) -> Imported:
        """Add or replace prompts, all or none: the first thing that is wrong with any leaves everything as it was.

        A document replaces the prompt of its id as a whole. One without an id replaces the prompt that has its text
        under the id made from it, or else is new: importing a file twice changes nothing the second time.

        Raises:
            PromptError: Names every document that is refused.
        """
        for _ in range(MAX_ATTEMPTS):
            with reaching(self.redis):
                raws = {_text(k): _text(v) for k, v in self.redis.hgetall(self.prompts_key).items()}
            old = _parse_all(raws)[0]
            prompts = _check_all(documents, raws, old)
            changed = [p for p in prompts if p.id not in old or _body(old[p.id]) != _body(p)]
            changes = [_Change(p.id, raws.get(p.id, ""), p, old[p.id].version if p.id in old else 0) for p in changed]
            if not changes or self._apply(changes):
                changed_ids = {p.id for p in changed}
                return Imported(
                    added=tuple(p.id for p in changed if p.id not in raws),
                    updated=tuple(p.id for p in changed if p.id in raws),
                    unchanged=tuple(p.id for p in prompts if p.id not in changed_ids),
                )
        raise _contended("the prompts to import")

    def export(self) -> Sequence[dict[str, Any]]:
        """All documents by id; `import_many` takes them back."""
        documents = [prompt.to_document() for prompt in self.list()]
        for document in documents:
            del document["version"]
        return documents

    def load(self) -> Contents:
        """Everything at one moment, with the place in the log to follow from."""
        with reaching(self.redis):
            pipeline = self.redis.pipeline(transaction=True)
            pipeline.xrevrange(self.log_key, count=1)
            pipeline.hget(self.versions_key, COUNT)
            pipeline.hgetall(self.prompts_key)
            last, serial, raws = pipeline.execute()
        prompts, damaged = _parse_all({_text(key): _text(value) for key, value in raws.items()})
        return Contents(
            prompts=prompts,
            damaged=damaged,
            serial=_count(serial),
            log_id=_text(last[0][0]) if last else "0-0",
        )

    def fetch(self, prompt_ids: Sequence[str]) -> tuple[dict[str, Prompt], dict[str, str]]:
        """Those of some prompts that are there, and for damaged ones the reason, each by id."""
        return _parse_all({i: raw for i, raw in zip(prompt_ids, self._raw(prompt_ids), strict=True) if raw})

    def serial(self) -> int:
        """How many changes were ever made."""
        with reaching(self.redis):
            return _count(self.redis.hget(self.versions_key, COUNT))

    def read_log(self, after: str, block_ms: int | None) -> Sequence[LogEntry]:
        """What follows an entry of the log; waits up to ``block_ms`` for the first, with None not at all."""
        with reaching(self.redis):
            reply: Any = self.redis.xread({self.log_key: after}, count=LOG_COUNT, block=block_ms)
        streams = reply.values() if isinstance(reply, dict) else [entries for _, entries in reply or ()]
        return [_entry(_text(log_id), fields) for entries in streams for log_id, fields in entries]

    def _read(self, prompt_id: str) -> tuple[str, Prompt]:
        (raw,) = self._raw([prompt_id])
        if not raw:
            raise self._unknown([prompt_id])
        return raw, _parse_stored(prompt_id, raw)

    def _raw(self, prompt_ids: Sequence[str]) -> Sequence[str]:
        if not prompt_ids:
            return []
        with reaching(self.redis):
            return [_text(raw or "") for raw in self.redis.hmget(self.prompts_key, list(prompt_ids))]

    def _unknown(self, prompt_ids: Sequence[str]) -> PromptMissingError:
        names = ", ".join(repr(prompt_id) for prompt_id in prompt_ids)
        return PromptMissingError(f"there is no prompt {names}; `watchword prompts list` shows all")

    def _apply(self, changes: Sequence[_Change]) -> Sequence[int]:
        """The versions given to all changes; empty: a prompt was not as expected and nothing changed."""
        arguments = [argument for change in changes for argument in change.arguments()]
        with reaching(self.redis):
            outcome, values = self._script(
                keys=[self.prompts_key, self.versions_key, self.log_key], args=[LOG_LENGTH, *arguments]
            )
        return [int(version) for version in values] if _text(outcome) == "done" else []


def _entry(log_id: str, fields: Mapping[bytes | str, bytes | str]) -> LogEntry:
    """An entry that is not ours gets serial -1, which no follower expects: it reads everything again."""
    texts = {_text(key): _text(value) for key, value in fields.items()}
    serial = texts.get("serial", "")
    return LogEntry(log_id, texts.get("id", ""), _count(serial) if serial else -1)


def _parse_stored(prompt_id: str, raw: str) -> Prompt:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise PromptError(f"prompt {prompt_id!r} in redis is not JSON; remove it or import it again") from error
    if not isinstance(document, dict) or document.get("id") != prompt_id:
        raise PromptError(f"prompt {prompt_id!r} in redis is not a document with that id; remove it or import it again")
    return parse_prompt(document)


def _parse_all(raws: Mapping[str, str]) -> tuple[dict[str, Prompt], dict[str, str]]:
    """Prompts by id in order, and the reasons why others could not be read."""
    prompts: dict[str, Prompt] = {}
    damaged: dict[str, str] = {}
    for prompt_id in sorted(raws):
        try:
            prompts[prompt_id] = _parse_stored(prompt_id, raws[prompt_id])
        except PromptError as error:
            damaged[prompt_id] = str(error)
    return prompts, damaged


@dataclass(frozen=True, slots=True)
class _Taken:
    """The ids that a document without one may not get: others' in its file, and stored ones with another text."""

    others: tuple[set[str], ...]
    stored: Container[str]
    old: Mapping[str, Prompt]
    text: str

    def __contains__(self, prompt_id: object) -> bool:
        if any(prompt_id in ids for ids in self.others):
            return True
        if not isinstance(prompt_id, str) or prompt_id not in self.stored:
            return False
        return prompt_id not in self.old or self.old[prompt_id].text != self.text


def _check_all(documents: Sequence[Document | str], stored: Container[str], old: Mapping[str, Prompt]) -> list[Prompt]:
    """Every document as a prompt with an id that is its own.

    Raises:
        PromptError: With the number of each document that is refused.
    """
    prompts: list[Prompt] = []
    problems: list[str] = []
    named = {str(d["id"]) for d in documents if isinstance(d, Mapping) and d.get("id") is not None}
    seen: set[str] = set()
    for number, document in enumerate(documents, start=1):
        try:
            prompt = parse_prompt(document)
            if not isinstance(document, Mapping) or document.get("id") is None:
                taken = _Taken((seen, named), stored, old, prompt.text)
                prompt = prompt.model_copy(update={"id": slug(prompt.text, taken)})
        except PromptError as error:
            problems.append(f"document {number}: {error}")
            continue
        if prompt.id in seen:
            problems.append(f"document {number}: prompt {prompt.id!r} refused: an earlier document has the same id")
        seen.add(prompt.id)
        prompts.append(prompt)
    if problems:
        more = len(problems) - MAX_PROBLEMS
        listed = problems[:MAX_PROBLEMS] + ([f"and {more} more"] if more > 0 else [])
        summary = f"nothing was imported, {len(problems)} of {len(documents)} refused:"
        raise PromptError("\n".join([summary, *listed]), listed)
    return prompts


def _changed(old: Prompt, changes: Document) -> Prompt:
    if changes.get("id", old.id) != old.id:
        raise PromptError(f"prompt {old.id!r} keeps its id; add a new prompt and remove this one instead")
    document = old.to_document() | dict(changes)
    for key, other in (("threshold", "alerts_per_day"), ("alerts_per_day", "threshold")):
        if changes.get(key) is not None and other not in changes:
            document.pop(other, None)  # one of them decides
    return parse_prompt(document | {"version": old.version})


def _body(prompt: Prompt) -> str:
    """The document as JSON without its version, which the script writes."""
    document = prompt.to_document()
    document.pop("version", None)
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _versioned(prompt: Prompt, version: int) -> Prompt:
    return prompt.model_copy(update={"version": version})


def _moved_on(prompt_id: str, version: int, expected_version: int) -> PromptChangedError:
    return PromptChangedError(
        f"prompt {prompt_id!r} is at version {version}, not {expected_version}: it was changed meanwhile; look at it "
        "again and repeat the change"
    )


def _contended(what: str) -> UnavailableError:
    return UnavailableError(f"{what} could not be changed: others keep changing the same prompts; try again")


def _count(value: bytes | str | None) -> int:
    """A count as the script keeps it; -1 where others wrote something else."""
    text = _text(value) or "0"
    return int(text) if text.isdecimal() else -1


def _text(value: bytes | str | None) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value or ""
