from streamer.worker.quarantine import Quarantine


def test_five_bad_chunks_in_a_row_begin_a_pause_that_doubles_each_time() -> None:
    quarantine = Quarantine()
    assert [quarantine.bad("cam", 0.0) for _ in range(5)] == [None, None, None, None, 2.0]
    assert quarantine.holds("cam", 1.9)
    assert not quarantine.holds("cam", 2.0)
    assert quarantine.bad("cam", 2.0) == 4.0
    pauses = [quarantine.bad("cam", 1e6 * number) for number in range(1, 12)]
    assert pauses[-1] == 300.0


def test_one_good_chunk_makes_up_for_all() -> None:
    quarantine = Quarantine()
    for _ in range(4):
        quarantine.bad("cam", 0.0)
    quarantine.good("cam")
    assert quarantine.bad("cam", 0.0) is None


def test_names_that_are_made_up_do_not_fill_the_memory() -> None:
    quarantine = Quarantine()
    for number in range(10_000):
        quarantine.bad(f"cam-{number}", 0.0)
    assert len(quarantine._records) <= 4096
