"""The server started on the user's own model, and the contract walked from outside over HTTP.

`run.run` is what `python -m skserve selftest` calls. Each check is a function from a `Walk` to a
`Verdict`, and a row of `checks.CHECKS`.
"""
