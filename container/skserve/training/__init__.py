"""What `train` is made of: the job, its child process, and what the child does."""
