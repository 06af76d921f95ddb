"""One slice: crop, prompts, batched encoder with its cache, decoder, labels on the grid."""
