"""A SageMaker on this machine: moto's server, with real containers behind its endpoints and jobs.

`python -m local_test.cloud` starts it, docs/35-cloud.md says what it does and what it refuses.
"""
