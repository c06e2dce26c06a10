"""HTTP and gunicorn: connections, routes, workers; `server.serve` is the way in.

Requests reach a model by `scheduling.local_model` or `multi_model.client`. Only the start knows a
`Model` itself: `preload`, `single_model_app`, and `summary`, which describes it in the log and
in /metrics.
"""
