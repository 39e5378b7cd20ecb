"""The embedded default: a tiny language model and a tiny encoder, from a seeded short pre-training."""
