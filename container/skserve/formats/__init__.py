"""Bytes to a table, answers to bytes: one file a format, listed in `catalogue` and `encoders`.

Nothing here knows how a model is loaded or asked; of it only its `Schema` is known.
"""
