"""All that is known of scikit-learn: methods, columns, `schema.Schema`, and fast paths.

Nothing here knows a body's format. It imports only the modules beside the packages.
"""
