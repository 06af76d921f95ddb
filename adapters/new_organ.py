"""Teach promptseg your own organ: copy this file, change the names, run it.

    python adapters/new_organ.py images/ labels/

The two folders hold the same file names; a label file has 1 where the organ is, 0 elsewhere.
"""

import sys

import promptseg as ps

images, labels = sys.argv[1:3]

# Everything is checked first; a fifth of the cases is set aside to measure on.
adapter = ps.finetune(
    images,
    labels,
    organ="my organ",
    label_names={1: "my organ"},
    rank=8,  # more for a harder organ
    minutes=20,  # or steps=2000
    loss="dice+3*cross_entropy",
    out="runs/my_organ",
    resume=True,  # go on where an interrupted run stopped
)
print(adapter.info.scores)  # Dice on the cases set aside, with a box and with no prompt

segmenter = ps.Segmenter.from_pretrained("default", adapter=adapter)
volume = ps.read(sys.argv[3] if len(sys.argv) > 3 else "new_case.nii.gz")
segmenter.segment(volume).save("mask.nii.gz")  # no prompt
# segmenter.segment(volume, [ps.Box((60, 72, 44), (95, 110, 45))]).save("mask.nii.gz")
