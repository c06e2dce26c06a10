"""Many models, one process each.

A worker uses `client.ModelClient`, the master `supervisor.Supervisor`. The zygote forks a process
for each model, and exchanges the messages of `protocol` with workers and with models' processes. A
call goes from a worker directly to the model's process, as a frame of `formats.message_framing`.
HTTP is read and written in `serving` alone.
"""
