"""Corrections from clicks: geodesic distance, margin points, information-fusion graph cut."""

from promptseg.refine.geodesic import egd, euclidean_encoding, gaussian_encoding, geodesic_distance
from promptseg.refine.graphcut import (
    fuse,
    graph_cut_refine,
    plain_graph_cut,
    seed_mask,
    working_region,
)
from promptseg.refine.margin import interior_margin_points

__all__ = [
    "egd",
    "euclidean_encoding",
    "fuse",
    "gaussian_encoding",
    "geodesic_distance",
    "graph_cut_refine",
    "interior_margin_points",
    "plain_graph_cut",
    "seed_mask",
    "working_region",
]
