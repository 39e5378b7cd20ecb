"""Evaluation on held-out conversations: what memory gives against baselines of the same length."""
