"""What a fitted estimator expects and answers: methods, columns, `schema.Schema`, fast paths.

No module here reads the bytes of a body, or imports from another package.
"""
