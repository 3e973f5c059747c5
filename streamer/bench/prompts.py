"""Ten thousand different prompts, made from words."""

from collections.abc import Mapping, Sequence
from itertools import islice, product

_WHO = (
    *("a person", "a man", "a woman", "a child", "two people", "a crowd", "a cyclist", "a guard", "a worker", "a dog"),
    *("a cat", "a bird", "a horse", "a car", "a truck", "a bus", "a motorcycle", "a forklift", "a drone", "a boat"),
)
_DOING = (
    *("running", "waiting", "falling", "climbing", "lying on the ground", "carrying a box", "crossing", "turning"),
    *("entering", "leaving", "burning", "smoking", "shouting", "sleeping", "spraying paint", "opening a door"),
    *("breaking a window", "digging", "loading", "dancing", "waving", "fighting", "hiding", "jumping", "speeding"),
)
_WHERE = (
    *("on a street", "in a car park", "at a gate", "on a roof", "in a corridor", "near a fence", "in a warehouse"),
    *("on a platform", "in a forest", "at a pool", "on a stage", "in a shop", "at night", "in the rain", "in snow"),
    *("by a river", "on a bridge", "in a lift", "on stairs", "in a kitchen"),
)


def distinct_prompts(count: int) -> Sequence[Mapping[str, object]]:
    """Prompt documents with different texts, at most 10,000; the same for the same count."""
    texts = (" ".join(parts) for parts in product(_WHO, _DOING, _WHERE))
    return [
        {"id": f"bench-{number}", "text": text, "modality": "video", "severity": "info"}
        for number, text in enumerate(islice(texts, count))
    ]
