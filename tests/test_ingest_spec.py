import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.errors import UsageError
from streamer.ingest.redact import redact
from streamer.ingest.spec import name_for, parse_sources
from streamer.media import is_stream_id

secrets = st.text(
    st.characters(codec="ascii", categories=("L", "N", "P", "S"), exclude_characters="\"'<>"), min_size=6, max_size=20
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://admin:s3cret@10.0.0.7:554/live", "rtsp://***@10.0.0.7:554/live"),
        ("rtsp://admin:p@ss/w0rd@cam/live", "rtsp://***@cam/live"),
        ("http://cam/video.cgi?user=admin&pwd=s3cret", "http://cam/video.cgi?***"),
        ("opening 'RTSP://a:b@cam/x' failed", "opening 'RTSP://***@cam/x' failed"),
        ("clips/yard.mp4", "clips/yard.mp4"),
        ("http://cam/plain.ts", "http://cam/plain.ts"),
    ],
)
def test_an_address_is_shown_without_its_secrets(text: str, shown: str) -> None:
    assert redact(text) == shown


@given(secrets)
def test_no_password_survives_in_an_address(password: str) -> None:
    shown = redact(f"cannot open rtsp://operator:{password}@camera.example/live: refused")
    assert "operator" not in shown
    assert password not in shown or password in "cannot open rtsp://***@camera.example/live: refused"


def test_a_secret_that_stands_alone_in_a_message_about_its_address_goes_too() -> None:
    url = "http://admin:gr%23en5@cam/x?token=abc123"
    assert (
        redact("401 for admin with gr#en5 or gr%23en5, token abc123", url) == "401 for *** with *** or ***, token ***"
    )


def test_sources_are_named_in_order() -> None:
    found = parse_sources(["yard=rtsp://cam/live?channel=1", "dock-2=clips/a=b.mp4", "in=-"])
    assert found == {"yard": "rtsp://cam/live?channel=1", "dock-2": "clips/a=b.mp4", "in": "-"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no source is given"),
        (["clip.mp4"], "NAME=URL is expected"),
        (["rtsp://admin:s3cret@cam/live?a=b"], "NAME=URL is expected"),
        (["clips/a=b.mp4"], "NAME=URL is expected"),
        (["Yard=clip.mp4"], "'Yard' is not allowed"),
        (["=clip.mp4"], "'' is not allowed"),
        (["yard="], "a source is empty"),
        (["yard=a.mp4", "yard=b.mp4"], "stands twice"),
        (["yard=ftp://admin:s3cret@cam/live"], "scheme ftp"),
        (["yard=concat://x"], "scheme concat"),
        (["yard=rtsp:///live"], "names no host"),
        (["a=-", "b=-"], "only one source"),
    ],
)
def test_a_wrong_source_is_refused_with_what_is_expected_and_without_secrets(arguments: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        parse_sources(arguments)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("clips/Yard 2.mp4", "yard-2"),
        ("rtsp://admin:s3cret@10.0.0.7:554/live", "10.0.0.7-live"),
        ("http://cam.example/", "cam.example"),
        ("http://cam/video.cgi?pwd=s3cret", "cam-video"),
        ("/dev/video0", "video0"),
        ("-", "stdin"),
        ("фото.mp4", "source"),
        ("pictures/", "pictures"),
    ],
)
def test_a_source_without_a_name_gets_one_that_can_be_recognised(source: str, name: str) -> None:
    assert name_for(source, set()) == name


@given(st.text(max_size=80), st.sets(st.sampled_from(["source", "source-2", "a", "a-2"])))
def test_a_name_is_always_a_stream_id_that_is_not_taken(source: str, taken: set[str]) -> None:
    name = name_for(source, taken)
    assert is_stream_id(name)
    assert name not in taken
