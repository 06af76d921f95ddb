"""What only the training scripts in weights/ use: episodes, synthetic slices, faulty masks."""
