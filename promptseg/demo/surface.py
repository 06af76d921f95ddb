"""Masks as surfaces: marching cubes, written as a binary glTF file."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import ImageColor
from scipy.ndimage import gaussian_filter, zoom
from skimage.measure import marching_cubes

from promptseg.io.atomic import atomic_path
from promptseg.volume import Segmentation, spacing_of

MOST_VOXELS = 3_000_000
SMOOTH_MM = 1.0
_FLOAT, _UINT, _ARRAY, _ELEMENTS = 5126, 5125, 34962, 34963


def surface_of(mask: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Surface of an (I, J, K) bool mask by marching cubes.

    Returns:
        (N, 3) points in RAS+ millimetres, (N, 3) outward unit normals, (M, 3) triangles; all
        empty for an empty mask.

    Source: Lewiner et al., Efficient implementation of Marching Cubes' cases with topological
    guarantees, 2003, as in scikit-image.
    """
    filled = np.argwhere(mask)
    if not len(filled):
        return np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 3), np.uint32)
    low, high = filled.min(0), filled.max(0) + 1
    part = np.pad(mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], 3)
    share = min(1.0, (MOST_VOXELS / part.size) ** (1 / 3))
    field = zoom(part.astype(np.float32), share, order=1) if share < 1 else part.astype(np.float32)
    step = (np.array(part.shape) - 1) / (np.array(field.shape) - 1)
    field = gaussian_filter(field, SMOOTH_MM / (spacing_of(affine) * step))
    level = min(0.5, 0.5 * float(field.max()))
    points, triangles, normals, _ = marching_cubes(field, level)
    world = (points * step + low - 3) @ affine[:3, :3].T + affine[:3, 3]
    turned = (normals / step) @ np.linalg.inv(affine[:3, :3])
    turned /= np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-9)
    if np.linalg.det(affine[:3, :3]) > 0:
        triangles = triangles[:, ::-1]
    return world, turned, triangles.astype(np.uint32)


def write_surfaces(
    segmentation: Segmentation, colours: Mapping[int, str], path: str | os.PathLike[str]
) -> int:
    """Write the surfaces of all targets as a `.glb` file, seen from the front, head up.

    Args:
        segmentation: Labels.
        colours: `#rrggbb` by label.
        path: File to write.

    Returns:
        Triangles written; the file is not made if there are none.
    """
    surfaces = {
        target: surface_of(segmentation.data == target, segmentation.affine)
        for target in segmentation.targets
    }
    surfaces = {target: parts for target, parts in surfaces.items() if len(parts[2])}
    if not surfaces:
        return 0
    everything = np.concatenate([points for points, _, _ in surfaces.values()])
    centre = (everything.min(0) + everything.max(0)) / 2
    content, blob = _gltf(surfaces, centre, colours)
    with atomic_path(path) as temporary:
        temporary.write_bytes(_container(content, blob))
    return sum(len(triangles) for _, _, triangles in surfaces.values())


def _gltf(
    surfaces: Mapping[int, tuple[np.ndarray, np.ndarray, np.ndarray]],
    centre: np.ndarray,
    colours: Mapping[int, str],
) -> tuple[dict[str, Any], bytes]:
    views: list[dict[str, Any]] = []
    accessors: list[dict[str, Any]] = []
    blob = bytearray()

    def store(values: np.ndarray, kind: str, component: int, use: int, **more: Any) -> int:
        views.append(
            {"buffer": 0, "byteOffset": len(blob), "byteLength": values.nbytes, "target": use}
        )
        blob.extend(np.ascontiguousarray(values).tobytes())
        accessors.append(
            {"bufferView": len(views) - 1, "componentType": component, "type": kind, **more}
        )
        return len(accessors) - 1

    meshes: list[dict[str, Any]] = []
    materials: list[dict[str, Any]] = []
    for target, (points, normals, triangles) in surfaces.items():
        placed = to_gltf(points - centre)
        bounds = {"min": placed.min(0).tolist(), "max": placed.max(0).tolist()}
        attributes = {
            "POSITION": store(placed, "VEC3", _FLOAT, _ARRAY, count=len(placed), **bounds),
            "NORMAL": store(to_gltf(normals), "VEC3", _FLOAT, _ARRAY, count=len(placed)),
        }
        flat = triangles.ravel()
        indices = store(flat, "SCALAR", _UINT, _ELEMENTS, count=len(flat))
        primitive = {"attributes": attributes, "indices": indices, "material": len(materials)}
        meshes.append({"primitives": [primitive]})
        materials.append(_material(colours.get(target, "#26c6da")))
    content = {
        "asset": {"version": "2.0", "generator": "promptseg"},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(meshes)))}],
        "nodes": [{"mesh": number} for number in range(len(meshes))],
        "meshes": meshes,
        "materials": materials,
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(blob)}],
    }
    return content, bytes(blob)


def to_gltf(ras: np.ndarray) -> np.ndarray:
    """(N, 3) RAS to glTF's axes: the patient's left to the right, superior up, anterior near."""
    return np.stack([-ras[:, 0], ras[:, 2], ras[:, 1]], axis=1).astype(np.float32)


def _material(colour: str) -> dict[str, Any]:
    linear = [(value / 255) ** 2.2 for value in ImageColor.getrgb(colour)[:3]]
    look = {"baseColorFactor": [*linear, 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.8}
    return {"pbrMetallicRoughness": look, "doubleSided": True}


def _container(content: dict[str, Any], blob: bytes) -> bytes:
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)
    blob += b"\0" * (-len(blob) % 4)
    total = 12 + 8 + len(text) + 8 + len(blob)
    head = struct.pack("<4sIIII", b"glTF", 2, total, len(text), 0x4E4F534A)
    return head + text + struct.pack("<II", len(blob), 0x004E4942) + blob
