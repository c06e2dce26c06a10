"""How calls share one process: slots, batching, what a call costs, streams.

`local_model.LocalModel` is the way in. Nothing here knows HTTP or a format's bytes.
"""
