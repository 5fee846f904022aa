"""Blocks: they cover everything once, fit in memory, and run on every core without losing an error."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapt_inf.selection.blocks import ArrayRows, SomeRows, half, on_every_core, rows_within, spans


@given(st.integers(0, 200), st.integers(1, 50))
def test_spans_cover_everything_once(n, size):
    covered = [position for part in spans(n, size) for position in range(n)[part]]
    assert covered == list(range(n))
    assert all(part.stop - part.start <= size for part in spans(n, size))


def test_a_block_fits_in_memory_and_is_never_empty():
    assert rows_within(1000, 10, 4096) == 100
    assert rows_within(1000, 10, 64) == 64
    assert rows_within(5, 10, 64) == 1


def test_every_item_is_worked_on_and_an_error_comes_out():
    seen = []
    on_every_core(seen.append, range(100), threads=3)
    assert sorted(seen) == list(range(100))
    names = set()
    on_every_core(lambda _: names.add(threading.current_thread().name), [0])
    assert names == {threading.current_thread().name}

    def fail(item):
        if item == 7:
            raise ValueError("seven")

    for threads in (1, 3):
        with pytest.raises(ValueError, match="seven"):
            on_every_core(fail, range(10), threads)


def test_rows_are_taken_in_the_order_asked_for():
    array = np.arange(20, dtype=np.float32).reshape(10, 2)
    some = SomeRows(ArrayRows(array), np.array([7, 1, 3]))
    assert (len(some), some.dim) == (3, 2)
    assert some.take(np.array([2, 0])).tolist() == array[[3, 7]].tolist()
    out = np.empty((3, 2), dtype=np.float16)
    half(some, np.array([0, 2, 1]), out, 2)
    assert out.tolist() == array[[7, 3, 1]].tolist()
