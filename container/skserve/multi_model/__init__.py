"""Many models, one process each: `client.Fleet` for a worker, `supervisor.Keeper` for the master.

The zygote forks a process for each model; a worker talks to it by the messages of `protocol`.
Nothing here knows HTTP.
"""
