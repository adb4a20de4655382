"""Photographs are processed several at a time, and their results come in order."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from fpnkit.cli.photos import each_photo, one_by_one
from fpnkit.errors import DataError

PLACES = [(Path(f"{number}.jpg"), Path(f"{number}.out")) for number in range(40)]


def test_results_come_in_the_order_of_the_photographs() -> None:
    def process(path: Path, _: Path) -> int:
        time.sleep(0.001 * (7 - int(path.stem) % 7))
        return int(path.stem)

    assert each_photo(PLACES, [], one_by_one(process), doing="", workers=4) == list(range(40))


def test_no_more_than_asked_for_are_processed_at_a_time_and_few_wait() -> None:
    lock, state = threading.Lock(), {"now": 0, "most": 0, "begun": 0}
    begun_before: list[int] = []

    def process(path: Path, _: Path) -> None:
        with lock:
            state["now"] += 1
            state["begun"] += 1
            state["most"] = max(state["most"], state["now"])
            begun_before.append(state["begun"] - int(path.stem))
        time.sleep(0.002)
        with lock:
            state["now"] -= 1

    each_photo(PLACES, [], one_by_one(process), doing="", workers=3)
    assert state["most"] == 3
    assert max(begun_before) <= 6


def test_what_cannot_be_read_is_kept_apart() -> None:
    def process(path: Path, _: Path) -> int:
        if int(path.stem) % 10 == 3:
            raise DataError(f"{path}: damaged")
        return int(path.stem)

    unusable: list[DataError] = []
    results = each_photo(PLACES, unusable, one_by_one(process), doing="", workers=4)
    assert results == [number for number in range(40) if number % 10 != 3]
    assert [str(each) for each in unusable] == [f"{number}.jpg: damaged" for number in (3, 13, 23, 33)]


def test_another_error_ends_it_at_once() -> None:
    processed: list[int] = []

    def process(path: Path, _: Path) -> None:
        processed.append(int(path.stem))
        if int(path.stem) == 2:
            raise OSError(28, "No space left on device")
        time.sleep(0.002)

    with pytest.raises(OSError, match="No space left"):
        each_photo(PLACES, [], one_by_one(process), doing="", workers=2)
    assert len(processed) < 10


def test_groups_keep_the_order_and_what_cannot_be_read_is_kept_apart() -> None:
    sizes: list[int] = []

    def process(group) -> list[int | DataError]:
        sizes.append(len(group))
        numbers = [int(path.stem) for path, _ in group]
        return [DataError(f"{number}") if number % 10 == 3 else number for number in numbers]

    unusable: list[DataError] = []
    results = each_photo(PLACES, unusable, process, doing="", workers=3, batch=7)
    assert results == [number for number in range(40) if number % 10 != 3]
    assert len(unusable) == 4
    assert sorted(sizes) == [5, 7, 7, 7, 7, 7]
