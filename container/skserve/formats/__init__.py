"""Bytes to a table, answers to bytes: a function for each format, by media type in `catalogue`.

Of a model the functions are given only its `Schema`; no module here loads or calls one.
"""
