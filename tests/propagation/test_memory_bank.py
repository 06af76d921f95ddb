import pytest
import torch

from promptseg.backbones.memory import Memory, MemorySpan
from promptseg.propagation.memory_bank import Bank

SPAN = MemorySpan(maps=2, pointers=5, key_slices=4)


def memory(number):
    return Memory(torch.full((1, 3, 2, 2), float(number)), torch.full((1, 4), float(number)))


def bank(step=1, key_slices=(10,), count=40, tracked=()):
    """A bank whose memories are the numbers of their slices."""
    made = Bank(SPAN, step, count, tuple((index, memory(index)) for index in key_slices))
    for index in tracked:
        made = made.added(index, memory(index))
    return made


def told(recollection):
    """(slice, how many slices back) of maps and of pointers."""
    return [
        [(int(tensor.flatten()[0]), back) for tensor, back in column]
        for column in (recollection.maps, recollection.pointers)
    ]


class TestRecalled:
    def test_at_first_the_key_slice_alone(self):
        assert told(bank().recalled(11)) == [[(10, 0)], [(10, 1)]]

    @pytest.mark.parametrize("step", [1, -1])
    def test_the_last_slices_of_the_track_and_pointers_further_back(self, step):
        tracked = [10 + step * n for n in range(1, 8)]
        maps, pointers = told(bank(step, tracked=tracked).recalled(10 + 8 * step))
        assert maps == [(10, 0), (10 + 6 * step, 2), (10 + 7 * step, 1)]
        assert pointers == [(10, 8), *((10 + n * step, 8 - n) for n in (4, 5, 6, 7))]

    def test_of_key_slices_ahead_the_maps_alone(self):
        maps, pointers = told(bank(key_slices=(8, 10, 14)).recalled(11))
        assert maps == [(8, 0), (10, 0), (14, 0)]
        assert pointers == [(8, 3), (10, 1)]
        assert told(bank(-1, key_slices=(8, 10, 14)).recalled(9))[1] == [(10, 1), (14, 5)]

    def test_slices_that_are_not_trusted_leave_their_places_empty(self):
        maps, _ = told(bank(tracked=[11, 13]).recalled(14))
        assert maps == [(10, 0), (13, 1)]
        maps, _ = told(bank(tracked=[11, 13]).recalled(15))
        assert maps == [(10, 0), (13, 2)]

    def test_distances_of_a_short_volume_are_relative_to_its_length(self):
        assert bank().recalled(11).horizon == 4
        assert bank(count=3, key_slices=(1,)).recalled(2).horizon == 2
        assert bank(count=1, key_slices=(0,)).horizon == 1

    def test_recollections_of_one_shape_go_together(self):
        assert bank(tracked=[11]).recalled(12).shape == bank(-1, tracked=[9]).recalled(8).shape
        assert bank(tracked=[11]).recalled(12).shape != bank().recalled(11).shape


class TestBounds:
    def test_a_bank_never_exceeds_its_size(self):
        long = bank(tracked=range(11, 31))
        assert len(long.tracked) == SPAN.maps
        assert len(long.pointers) == SPAN.pointers - 1
        maps, pointers = long.recalled(31).shape
        assert (maps, pointers) == (1 + SPAN.maps, 1 + SPAN.pointers - 1)

    def test_its_bytes_are_counted(self):
        assert bank().nbytes == memory(0).nbytes == 4 * (12 + 4)
        assert bank(tracked=[11]).nbytes == 2 * memory(0).nbytes + 4 * 4

    def test_adding_leaves_the_bank_before_as_it_was(self):
        before = bank(tracked=[11])
        after = before.added(12, memory(12))
        assert [index for index, _ in before.tracked] == [11]
        assert [index for index, _ in after.tracked] == [11, 12]
