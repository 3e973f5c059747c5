"""What a stream always shows counts in workers, survives them, and can be checked later."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.calibrate import NORMALISED_PRIOR, probability_of
from models.normalise import Normaliser, Ordinary
from streamer.evaluate.again import score_again, stored_chunks
from streamer.events import Event
from streamer.feedback import Feedback
from streamer.live import LiveBoard
from streamer.prompts import parse_prompt
from streamer.stages import open_stages
from streamer.why import explain
from tests.colours import DIM, colour_encoders, make_film
from tests.site import START_US, Site, chunks_of, until

EXACT = 1e-6
NEARLY = 1e-4  # a still frame before the restart lent its tokens, after it one was encoded
PROMPT: dict[str, object] = {"id": "either", "text": "red", "phrasings": ["loud"]}
AXES = torch.eye(DIM)
BANK = Ordinary(AXES[5:7][:, None], AXES[5:7], mean=-0.7, spread=0.05, floor=0.06)  # red: 0.4, too little alone


@pytest.fixture(autouse=True)
def hasty_background(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.background.WARM_UP_S", 3.0)
    monkeypatch.setattr("models.background.EVERY_S", 1.0)
    monkeypatch.setattr("streamer.stages.load_normaliser", lambda _: Normaliser(seen=BANK))


def peaks(events: list[Event]) -> list[tuple[str, str, float, float]]:
    return [(event.id, event.state, event.peak, event.evidence.seen_usual) for event in events if event.evidence]


def test_a_restart_goes_on_with_what_was_usual_and_events_can_be_checked(
    broker: str, redis_url: str, tmp_path: Path
) -> None:
    film = make_film(tmp_path / "red.mp4", [("red", 12.0)], tones=[(9.0, 12.0)])
    chunks = chunks_of(film, "yard")
    sites = [
        Site(broker, redis_url, tmp_path, calibrate__background=is_on, decode__effort="motion")
        for is_on in (True, True, False)
    ]
    for site in sites:
        site.prompts.add(PROMPT)
    whole, broken, without = sites
    for site in (whole, without):
        with site.worker():
            site.send(chunks)
            site.wait_done()
    with broken.worker():
        broken.send(chunks[:7])
        until(lambda: any(broken.committed(place) >= 4 for place in broken.ends()), "half of it committed")
    with broken.worker():
        broken.send(chunks[7:])
        broken.wait_done()
    told = whole.events()
    assert peaks(told)[-1][3] > 0.5
    for one, other in zip(peaks(told), peaks(broken.events()), strict=True):
        assert one[:2] == other[:2]
        assert one[2:] == pytest.approx(other[2:], abs=NEARLY)
    assert all(usual == 0 for *_, usual in peaks(without.events()))
    seen, plain = (site.events()[-1].evidence for site in (whole, without))
    assert seen is not None
    assert plain is not None
    assert seen.seen_raw == pytest.approx(plain.seen_raw, abs=NEARLY)
    assert seen.seen is not None
    assert plain.seen is not None
    assert seen.seen < 0.01
    assert 0.2 < plain.seen < 0.5
    stages = open_stages(whole.settings, colour_encoders())
    for event in told:
        again = score_again(stages, event, stored_chunks(whole.settings, event), parse_prompt(PROMPT))
        assert event.evidence is not None
        assert again.confidence == pytest.approx(event.evidence.confidence, abs=EXACT)
        assert again.seen == pytest.approx(event.evidence.seen, abs=EXACT)
    assert NORMALISED_PRIOR.seen == stages.calibrations.seen


def test_a_budget_is_kept_over_a_restart_and_told_by_why(
    broker: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.budget.DAY_S", 100.0)  # ten alerts a day: one in ten seconds
    monkeypatch.setattr("streamer.live.FULL_INTERVAL_S", 0.0)
    chunks = chunks_of(make_film(tmp_path / "green.mp4", [("green", 14.0)]), "yard")
    site = Site(broker, redis_url, tmp_path)
    site.prompts.add({"id": "red", "text": "red", "alerts_per_day": 10})
    board = LiveBoard(site.redis, site.prefix, 30)
    with site.worker():
        site.send(chunks[:7])
        until(lambda: any(site.committed(place) >= 4 for place in site.ends()), "half of it committed")
    threshold, why = board.thresholds("red")["yard"]
    assert threshold == 0.5
    assert why.startswith("the default until")
    with site.worker():
        site.send(chunks[7:])
        site.wait_done()
    threshold, why = board.thresholds("red")["yard"]
    assert threshold == pytest.approx(0.05)
    assert why == "what would have given 10 alerts a day over 0.1 days"
    told = explain(board, site.prompts.list(), "yard", "red", (), START_US)
    assert (told["threshold"], told["threshold_why"]) == (pytest.approx(0.05), why)


def test_a_mark_moves_confidences_within_seconds_and_events_say_so(broker: str, redis_url: str, tmp_path: Path) -> None:
    chunks = chunks_of(make_film(tmp_path / "red.mp4", [("red", 30.0)]), "yard")
    site = Site(broker, redis_url, tmp_path)
    site.prompts.add({"id": "red", "text": "red", "modality": "video", "cooldown": "0s"})
    feedback = Feedback(site.redis, site.prefix)
    stages = open_stages(site.settings, colour_encoders())
    rest = iter(chunks[6:])

    def later(version: int) -> list[Event]:
        site.send([next(rest)])
        return [one for one in site.events() if one.prompt.version == version]

    with site.worker():
        site.send(chunks[:6])
        event = until(site.events, "an event")[0]
        marked = feedback.mark(event.id, is_right=False, now_us=START_US)
        opened = until(lambda: later(marked.version), "one by the new curve", poll_s=0.2)[0]
        unmarked = feedback.reset("red")
        plain = until(lambda: later(unmarked.version), "one by the common curve", poll_s=0.2)[0]
    assert marked.marked is not None
    assert marked.marked.seen is not None
    scale, shift = marked.marked.seen
    assert shift < 0
    for one, curve in ((event, (1.0, 0.0)), (opened, (scale, shift)), (plain, (1.0, 0.0))):
        told = one.evidence
        assert told is not None
        assert told.seen_raw is not None
        logits = np.array([curve[0] * (told.seen_raw - told.seen_usual) + curve[1]], np.float32)
        assert told.seen == pytest.approx(float(probability_of(logits)[0]), abs=EXACT)
    assert opened.model.note == "its own curve follows 0 events marked right and 1 marked wrong"
    again = score_again(stages, opened, stored_chunks(site.settings, opened), marked)
    assert opened.evidence is not None
    assert again.confidence == pytest.approx(opened.evidence.confidence, abs=EXACT)
