"""What the evaluator says of a file is what a worker says of it, and what an event says can be found again."""

from pathlib import Path

import pytest

from models.load import load_encoders
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
    documents = (
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
    documents = [
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
