"""A training job: the files of SageMaker in, model and report out; `supervise.train` runs it.

The job runs in a child process, by a user's script or without code. Nothing here knows HTTP.
"""
