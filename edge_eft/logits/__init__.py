"""Arithmetic on rows of logits: weights, the sum, the choice of a token. Arrays, no models."""
