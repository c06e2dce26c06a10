"""HTTP and gunicorn: connections, routes, workers; `server.serve` is the way in.

A model is something to invoke here: what a table is, or what scikit-learn is, stays unknown.
"""
