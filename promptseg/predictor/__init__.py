"""One volume, one model: prompts in, masks out."""
