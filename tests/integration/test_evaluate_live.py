"""What the evaluator says of a file is what a worker says of it, and what an event says can be found again."""

from pathlib import Path

import pytest

from models.evaluate import EvaluationError
from models.load import load_encoders
from streamer.evaluate.again import score_again, stored_chunks
from streamer.evaluate.clips import Clip
from streamer.evaluate.replay import prompt_set, watch
from streamer.events import Event
from streamer.prompts import parse_prompt
from streamer.stages import open_stages
from tests.colours import colour_encoders, make_film
from tests.site import Site, chunks_of

DATA = Path(__file__).parent.parent / "data"
EXACT = 1e-6  # events are rounded to six digits
BATCHED = 2e-3  # eight-bit mantissas: how frames were batched shows in the third digit


@pytest.fixture
def site(broker: str, redis_url: str, tmp_path: Path) -> Site:
    return Site(broker, redis_url, tmp_path)


def closed(events: list[Event], prompt: str) -> list[Event]:
    return [event for event in events if event.state == "closed" and event.prompt.id == prompt]


def test_the_peaks_of_events_are_the_scores_of_files(site: Site, tmp_path: Path) -> None:
    film = make_film(tmp_path / "red.mp4", [("grey", 3.0), ("red", 4.0), ("grey", 2.0)], tones=[(4.0, 6.0)])
    documents: tuple[dict[str, object], ...] = (
        {"id": "red", "text": "red", "modality": "video"},
        {"id": "loud", "text": "loud", "modality": "audio"},
        {"id": "either", "text": "red", "phrasings": ["loud"], "threshold": 0.2},
    )
    for document in documents:
        site.prompts.add(document)
    with site.worker():
        site.send(chunks_of(film, "yard"))
        site.wait_done()
    stages = open_stages(site.settings, colour_encoders())
    prompts = prompt_set(stages, [parse_prompt(document) for document in documents])
    (watched,) = watch(stages, [Clip("film", film)], prompts)
    best = watched.best("confidence")
    for column, document in enumerate(documents):
        (event,) = closed(site.events("yard"), str(document["id"]))
        assert event.peak == pytest.approx(float(best[column]), abs=EXACT)


@pytest.mark.slow
def test_the_shipped_encoders_give_a_worker_and_the_evaluator_the_same_scores(site: Site) -> None:
    files = {"cars": DATA / "ingest_cars.mp4", "siren": DATA / "ingest_siren.ogg", "baby": DATA / "sound_baby.ogg"}
    documents: list[dict[str, object]] = [
        {"id": "car", "text": "car", "threshold": 0.05},
        {"id": "siren", "text": "siren", "threshold": 0.05},
        {"id": "baby", "text": "crying baby", "threshold": 0.05},
    ]
    for document in documents:
        site.prompts.add(document)
    encoders = load_encoders(device="cpu")
    with site.worker(encoders):
        for name, path in files.items():
            site.send(chunks_of(path, name))
        site.wait_done(timeout_s=120)
    stages = open_stages(site.settings, encoders)
    prompts = prompt_set(stages, [parse_prompt(document) for document in documents])
    compared = 0
    for name, watched in zip(
        files, watch(stages, [Clip(name, path) for name, path in files.items()], prompts), strict=True
    ):
        for column, document in enumerate(documents):
            found = closed(site.events(name), str(document["id"]))
            if found:
                compared += 1
                peak = max(event.peak for event in found)
                assert peak == pytest.approx(float(watched.best("confidence")[column]), abs=BATCHED)
    assert compared >= 3


EVENTS: tuple[dict[str, object], ...] = (
    {"id": "red", "text": "red"},
    {"id": "red-for-long", "text": "red", "min_duration": "5s"},
    {"id": "loud", "text": "loud", "modality": "audio"},
)


def test_every_event_is_scored_again_from_the_media_that_it_names(site: Site, tmp_path: Path) -> None:
    """Still scenes, too: there the best window was judged by a frame from before it."""
    moving = make_film(tmp_path / "red.mp4", [("grey", 3.0), ("red", 4.0), ("grey", 2.0)], tones=[(4.0, 6.0)])
    still = make_film(tmp_path / "still.mp4", [("grey", 1.5), ("red", 9.0)], is_moving=False)
    for document in EVENTS:
        site.prompts.add(document)
    with site.worker():
        site.send(chunks_of(moving, "yard"))
        site.send(chunks_of(still, "gate"))
        site.wait_done()
    stages = open_stages(site.settings, colour_encoders())
    prompts = {str(document["id"]): parse_prompt(document) for document in EVENTS}
    events = site.events()
    told = {(event.stream, event.prompt.id) for event in events}
    assert told == {
        ("yard", "red"),
        ("yard", "loud"),
        ("yard", "red-for-long"),
        ("gate", "red"),
        ("gate", "red-for-long"),
    }
    for event in events:
        chunks = stored_chunks(site.settings, event)
        assert {chunk.stream for chunk in chunks} == {event.stream}
        again = score_again(stages, event, chunks, prompts[event.prompt.id])
        assert event.evidence is not None
        assert again.confidence == pytest.approx(event.evidence.confidence, abs=EXACT)
        for own, kept in ((again.seen, event.evidence.seen), (again.heard, event.evidence.heard)):
            assert own == (None if kept is None else pytest.approx(kept, abs=EXACT))
    assert any(event.evidence.since < event.evidence.window_start for event in events if event.evidence)  # type: ignore[operator]  # both are there


def test_without_its_media_an_event_is_not_scored_again(site: Site, tmp_path: Path) -> None:
    site.prompts.add({"id": "red", "text": "red"})
    chunks = chunks_of(make_film(tmp_path / "red.mp4", [("red", 4.0)]), "yard")
    with site.worker():
        site.send(chunks)
        site.wait_done()
    event = site.events()[-1]
    stages = open_stages(site.settings, colour_encoders())
    with pytest.raises(EvaluationError, match="are incomplete"):
        score_again(stages, event, chunks[3:], parse_prompt("red"))
    with pytest.raises(EvaluationError, match="names no window"):
        score_again(stages, event.model_copy(update={"evidence": None}), chunks, parse_prompt("red"))
    with pytest.raises(EvaluationError, match="names no media"):
        stored_chunks(site.settings, event.model_copy(update={"media": None}))


@pytest.mark.slow
def test_the_shipped_encoders_score_real_events_again_within_a_thousandth(site: Site) -> None:
    document = {"id": "car", "text": "car", "threshold": 0.02}
    site.prompts.add(document)
    encoders = load_encoders(device="cpu")
    with site.worker(encoders):
        site.send(chunks_of(DATA / "ingest_cars.mp4", "cars"))
        site.wait_done(timeout_s=120)
    stages = open_stages(site.settings, encoders)
    events = site.events()
    assert events
    for event in events:
        again = score_again(stages, event, stored_chunks(site.settings, event), parse_prompt(document))
        assert event.evidence is not None
        assert again.confidence == pytest.approx(event.evidence.confidence, abs=1e-3)
