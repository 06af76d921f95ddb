"""Planes, tiles and pictures of volumes and masks."""
