"""Many models, one process each.

`client.ModelClient` is a worker's way in, `supervisor.Supervisor` the master's.
The zygote forks a process for each model; a worker talks to it by the messages of `protocol`.
Nothing here knows HTTP.
"""
