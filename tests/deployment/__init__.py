"""Tests of deploy.py and build_and_push.sh."""
