import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import affines

from promptseg.errors import PromptError
from promptseg.prompts.slice_axis import choose_axis
from promptseg.prompts.types import Box, Mask, Point, PromptSet, Scribble
from promptseg.volume import Volume
from promptseg.volume.slicing import Frame, Region, in_plane, resolve_axis, take_slice


def volume_of(shape: tuple[int, int, int] = (8, 9, 10), spacing=(1, 1, 1)) -> Volume:
    return Volume(np.zeros(shape, np.int16), np.diag([*spacing, 1.0]))


def smooth(shape: tuple[int, ...]) -> np.ndarray:
    grids = np.meshgrid(*(np.linspace(0, 2, side) for side in shape), indexing="ij")
    return (0.5 + 0.4 * np.sin(sum(grids))).astype(np.float32)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    shape = draw(st.tuples(*[st.integers(4, 40)] * 3))
    axis = draw(st.integers(0, 2))
    sides = [shape[other] for other in in_plane(axis)]
    bounds = []
    for side in sides:
        start = draw(st.integers(-5, side - 1))
        bounds.append((start, start + draw(st.integers(1, side + 10))))
    spacing = draw(st.tuples(*[st.floats(0.3, 10)] * 3))
    return Frame(axis, Region(*bounds), shape, spacing, draw(st.sampled_from([32, 64, 100])))


class TestResolveAxis:
    @given(affines(oblique=False))
    def test_anatomical_names(self, affine: np.ndarray) -> None:
        for row, name in enumerate(("sagittal", "coronal", "axial")):
            axis = resolve_axis(name, affine)
            assert int(np.argmax(np.abs(affine[:3, axis]))) == row

    def test_numbers(self) -> None:
        assert [resolve_axis(axis, np.eye(4)) for axis in (0, "1", " 2 ")] == [0, 1, 2]

    @pytest.mark.parametrize("axis", [3, -1, "up", None, True, 1.5])
    def test_refused(self, axis: object) -> None:
        with pytest.raises(PromptError, match="axial"):
            resolve_axis(axis, np.eye(4))


class TestChooseAxis:
    box = Box((1, 2, 3), (5, 6, 4))

    def test_given_axis_wins(self) -> None:
        assert choose_axis(volume_of(), PromptSet([self.box]), "coronal") == 1

    def test_flat_prompts(self) -> None:
        volume = volume_of(spacing=(9, 1, 1))
        plane = np.zeros(volume.shape, bool)
        plane[2:5, 3, 2:5] = True
        assert choose_axis(volume, PromptSet([self.box])) == 2
        assert choose_axis(volume, PromptSet([Scribble.from_mask(plane)])) == 1
        assert choose_axis(volume, PromptSet([Mask(plane)])) == 1
        assert choose_axis(volume, PromptSet([Mask(plane[:, 3], axis=1, index=3)])) == 1
        assert choose_axis(volume, PromptSet([Point((1, 1, 1)), self.box])) == 2

    def test_a_line_says_nothing(self) -> None:
        line = Box((1, 2, 3), (5, 3, 4))
        assert choose_axis(volume_of(spacing=(1, 5, 1)), PromptSet([line])) == 1

    def test_largest_spacing(self) -> None:
        for axis in range(3):
            spacing = np.ones(3)
            spacing[axis] = 3
            assert choose_axis(volume_of(spacing=spacing), PromptSet([Point((1, 1, 1))])) == axis

    def test_tie_is_axial(self) -> None:
        permuted = np.eye(4)[[2, 0, 1, 3]]
        volume = Volume(np.zeros((4, 4, 4)), permuted * [1.005, 1, 1.002, 1])
        assert choose_axis(volume, PromptSet()) == resolve_axis("axial", permuted) == 1

    def test_single_slice_volume(self) -> None:
        assert choose_axis(volume_of((8, 1, 9)), PromptSet([Point((1, 0, 1))])) == 1


class TestSlices:
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_rows_then_columns(self, axis: int) -> None:
        data = np.arange(24).reshape(2, 3, 4)
        plane = take_slice(data, axis, 1)
        assert plane.shape == tuple(data.shape[other] for other in in_plane(axis))
        np.testing.assert_array_equal(plane, np.take(data, 1, axis))
        assert np.shares_memory(plane, data)


class TestRegion:
    region = Region((2, 6), (3, 13))

    def test_grow(self) -> None:
        assert self.region.grow(2) == Region((0, 8), (1, 15))
        assert self.region.grow(factor=2) == Region((0, 8), (-2, 18))

    def test_union_and_contains(self) -> None:
        other = Region((5, 9), (0, 4))
        both = self.region.union(other)
        assert both == Region((2, 9), (0, 13))
        assert both.contains(self.region)
        assert both.contains(other)
        assert not self.region.contains(both)

    def test_clip(self) -> None:
        assert Region((-3, 50), (2, 90)).clip((10, 20)) == Region((0, 10), (2, 20))
        with pytest.raises(PromptError, match="empty"):
            Region((30, 50), (2, 9)).clip((10, 20))

    def test_empty(self) -> None:
        with pytest.raises(PromptError, match="empty"):
            Region((3, 3), (0, 5))


class TestFrameCoordinates:
    @given(frames(), st.integers(0, 3))
    def test_there_and_back(self, frame: Frame, index: int) -> None:
        voxels = np.random.default_rng(0).uniform(-5, 40, (20, 3))
        voxels[:, frame.axis] = index
        back = frame.to_voxels(frame.to_pixels(voxels), index)
        np.testing.assert_allclose(back, voxels, atol=1e-9)

    @given(frames())
    def test_the_region_fills_the_valid_part(self, frame: Frame) -> None:
        rows, cols = in_plane(frame.axis)
        lo, hi = np.zeros(3), np.ones(3)
        lo[[rows, cols]] = frame.region.rows[0], frame.region.cols[0]
        hi[[rows, cols]] = frame.region.rows[1], frame.region.cols[1]
        height, width = frame.valid
        np.testing.assert_allclose(frame.box_to_pixels(lo, hi), [0, 0, width, height], atol=1e-9)
        assert max(height, width) == frame.size

    def test_scale_is_physical(self) -> None:
        frame = Frame(2, Region((0, 20), (0, 40)), (20, 40, 5), (4.0, 1.0, 1.0), 80)
        assert frame.valid == (80, 40)
        np.testing.assert_allclose(frame.to_pixels([[0, 0, 0]]), [[0.5, 2]])


class TestFrameImages:
    @given(frames())
    @settings(max_examples=40)
    def test_shape_and_padding(self, frame: Frame) -> None:
        images = frame.extract(np.ones(frame.shape, np.float32), [0, 1], "2.5d")
        assert images.shape == (2, 3, frame.size, frame.size)
        height, width = frame.valid
        assert not images[..., height:, :].any()
        assert not images[..., width:].any()
        assert images.max() <= 1 + 1e-5

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_a_voxel_lands_where_the_map_says(self, axis: int) -> None:
        data = np.zeros((12, 14, 16), np.float32)
        data[5, 6, 7] = 1
        region = Region((2, 11), (3, 12))
        frame = Frame(axis, region, data.shape, (1.0, 1.0, 1.0), 90)
        image = frame.extract(data, [(5, 6, 7)[axis]])[0, 0]
        total = image.sum()
        steps = torch.arange(90) + 0.5
        found = (image.sum(0) @ steps / total, image.sum(1) @ steps / total)
        np.testing.assert_allclose(found, frame.to_pixels([[5, 6, 7]])[0], atol=1e-3)

    def test_context(self) -> None:
        data = np.broadcast_to(np.arange(5, dtype=np.float32) / 10, (8, 8, 5))
        frame = Frame(2, Region((0, 8), (0, 8)), data.shape, (1, 1, 1), 8)
        near = frame.extract(data, [0, 2, 4], "2.5d")[:, :, 4, 4]
        same = frame.extract(data, [0, 2, 4])[:, :, 4, 4]
        np.testing.assert_allclose(near, [[0, 0, 0.1], [0.1, 0.2, 0.3], [0.3, 0.4, 0.4]])
        np.testing.assert_allclose(same, [[0] * 3, [0.2] * 3, [0.4] * 3])

    @pytest.mark.parametrize("axis", [0, 1, 2])
    @pytest.mark.parametrize("size", [64, 96])
    def test_extract_then_restore(self, axis: int, size: int) -> None:
        data = smooth((40, 50, 60))
        frame = Frame(axis, Region((5, 33), (8, 30)), data.shape, (1.0, 1.5, 0.7), size)
        restored = frame.restore(frame.extract(data, [10, 20])[:, 0]).numpy()
        image, region = frame.paste_slices()
        for row, index in enumerate((10, 20)):
            error = np.abs(restored[row][region] - take_slice(data, axis, index)[image])
            assert error[2:-2, 2:-2].max() < 0.01

    def test_project_then_restore(self) -> None:
        mask = np.zeros((40, 50), bool)
        mask[10:25, 12:34] = True
        frame = Frame(0, Region((4, 36), (-3, 45)), (5, 40, 50), (3.0, 1.0, 1.0), 96)
        soft = frame.project(mask, 48)
        assert soft.shape == (48, 48)
        back = frame.restore(soft[None])[0].numpy() > 0.5
        image, region = frame.paste_slices()
        np.testing.assert_array_equal(back[region], mask[image])

    @given(frames())
    @settings(max_examples=40)
    def test_project_keeps_the_range(self, frame: Frame) -> None:
        shape = tuple(frame.shape[other] for other in in_plane(frame.axis))
        soft = frame.project(np.ones(shape), 16)
        assert soft.shape == (16, 16)
        assert 0 <= soft.min() <= soft.max() <= 1

    @given(frames())
    def test_paste_slices_agree(self, frame: Frame) -> None:
        rows, cols = in_plane(frame.axis)
        plane = np.zeros((frame.shape[rows], frame.shape[cols]))
        image, region = frame.paste_slices()
        plane[image] = np.ones(frame.region.shape)[region]
        inside = np.zeros_like(plane)
        clipped = frame.region.clip(plane.shape) if plane.any() else None
        if clipped is not None:
            inside[slice(*clipped.rows), slice(*clipped.cols)] = 1
        np.testing.assert_array_equal(plane, inside)

    def test_region_outside(self) -> None:
        frame = Frame(2, Region((20, 30), (0, 5)), (8, 8, 8), (1, 1, 1), 16)
        assert not frame.extract(np.ones((8, 8, 8), np.float32), [0]).any()
