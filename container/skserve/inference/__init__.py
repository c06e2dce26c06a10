"""One model, from its folder to an answer: `model.Model`, and `calls` for what goes in and out.

Nothing here knows HTTP, or which other calls wait.
"""
