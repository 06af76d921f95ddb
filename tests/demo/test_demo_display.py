import base64
import io
import json

import numpy as np
import pytest
from demo_kit import tubes
from PIL import Image

from promptseg.demo.display import data_url, draw_slice, plane_of
from promptseg.demo.surface import surface_of, write_surfaces
from promptseg.prompts.types import Box, Point, PromptSet
from promptseg.volume import Segmentation, Volume

RAS = np.diag([1.0, 1.0, 3.0, 1.0])
LPS = np.diag([-1.0, -1.0, 3.0, 1.0])
TURNED = np.array([[0, 0, -2.0, 0], [-1.0, 0, 0, 0], [0, 1.5, 0, 0], [0, 0, 0, 1.0]])


def volume(affine):
    return Volume(np.arange(8 * 10 * 6, dtype=np.int16).reshape(8, 10, 6), affine)


class TestPlane:
    @pytest.mark.parametrize("affine", [RAS, LPS, TURNED])
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_a_click_on_a_voxel_finds_that_voxel(self, affine, axis):
        plane = plane_of(volume(affine), axis)
        voxel = np.array([3.0, 7.0, 2.0])
        x, y = plane.place(voxel)
        found = plane.voxels(np.array([[x / plane.size[0], y / plane.size[1]]]), int(voxel[axis]))
        np.testing.assert_allclose(found[0], voxel, atol=1e-9)

    @pytest.mark.parametrize("affine", [RAS, LPS, TURNED])
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_the_picture_shows_the_voxel_where_it_places_it(self, affine, axis):
        image = volume(affine)
        bright = np.zeros(image.shape, np.int16)
        voxel = (3, 7, 2)
        bright[voxel] = 100
        plane = plane_of(image, axis, longest=400)
        drawn = np.asarray(draw_slice(bright, plane, voxel[axis], (0, 100)).convert("L"), float)
        rows, columns = np.indices(drawn.shape)
        centre = (columns * drawn).sum() / drawn.sum(), (rows * drawn).sum() / drawn.sum()
        np.testing.assert_allclose(centre, np.array(plane.place(voxel)) - 0.5, atol=1.5)

    def test_the_right_is_on_the_left_and_the_front_is_up(self):
        for affine, letters in ((RAS, ("R", "L", "A", "P")), (LPS, ("R", "L", "A", "P"))):
            plane = plane_of(volume(affine), 2)
            assert plane.letters == letters
            world = affine @ [*plane.voxels(np.array([[0.0, 0.0]]), 0)[0], 1]
            opposite = affine @ [*plane.voxels(np.array([[1.0, 1.0]]), 0)[0], 1]
            assert world[0] > opposite[0]
            assert world[1] > opposite[1]

    def test_proportions_are_those_of_the_body(self):
        plane = plane_of(volume(RAS), 0, longest=600)
        assert plane.size == (round(600 * 10 / 18), 600)


class TestDrawing:
    def test_masks_boxes_and_points_are_seen(self):
        image = tubes()
        plane = plane_of(image, 2, longest=480)
        empty = np.asarray(draw_slice(image.data, plane, 5, (0, 100)))
        labels = (image.data[:, :, 5] > 0).astype(np.uint8)
        prompts = PromptSet([Box((5, 5, 5), (30, 30, 6)), Point((14, 16, 5))])
        shown = np.asarray(
            draw_slice(image.data, plane, 5, (0, 100), labels, {1: "#26c6da"}, prompts=prompts)
        )
        assert (shown != empty).any(-1).mean() > 0.05
        x, y = (int(value) for value in plane.place((2, 2, 5)))
        np.testing.assert_array_equal(shown[y, x], empty[y, x])

    def test_a_url_that_a_browser_shows(self):
        url = data_url(Image.new("RGB", (8, 4)))
        kind, content = url.split(",")
        assert kind == "data:image/jpeg;base64"
        assert Image.open(io.BytesIO(base64.b64decode(content))).size == (8, 4)


class TestSurface:
    @pytest.mark.parametrize("affine", [RAS, LPS])
    def test_it_encloses_the_volume_and_faces_outwards(self, affine):
        grid = np.indices((30, 30, 30)) - 15
        mask = (grid**2).sum(0) <= 100
        points, normals, triangles = surface_of(mask, affine)
        a, b, c = (points[triangles[:, n]] for n in range(3))
        enclosed = np.einsum("ij,ij->i", a - points.mean(0), np.cross(b - points.mean(0),
                             c - points.mean(0))).sum() / 6  # fmt: skip
        assert abs(enclosed) == pytest.approx(mask.sum() * 3.0, rel=0.12)
        faces = np.cross(b - a, c - a)
        assert np.einsum("ij,ij->i", faces, a + b + c - 3 * points.mean(0)).mean() > 0
        assert np.einsum("ij,ij->i", normals, points - points.mean(0)).mean() > 0

    def test_an_empty_mask_has_none(self, tmp_path):
        empty = Segmentation(np.zeros((5, 5, 5), np.uint8), RAS)
        assert write_surfaces(empty, {}, tmp_path / "none.glb") == 0
        assert not (tmp_path / "none.glb").exists()

    def test_the_file_is_binary_gltf(self, tmp_path):
        labels = (tubes().data > 0).astype(np.uint8)
        labels[25:] *= 2
        path = tmp_path / "two.glb"
        count = write_surfaces(Segmentation(labels, RAS), {1: "#ff0000", 2: "#00ff00"}, path)
        raw = path.read_bytes()
        assert raw[:4] == b"glTF"
        assert int.from_bytes(raw[8:12], "little") == len(raw)
        content = json.loads(raw[20 : 20 + int.from_bytes(raw[12:16], "little")])
        assert len(content["meshes"]) == 2
        indices = [a for a in content["accessors"] if a["type"] == "SCALAR"]
        assert sum(a["count"] for a in indices) == 3 * count
