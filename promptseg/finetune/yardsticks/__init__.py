"""The thesis's own networks, trained from scratch by the same objectives: a 2D U-Net, a V-Net.

They say what an objective is worth apart from a pretrained network; no user's adapter is one.
"""
