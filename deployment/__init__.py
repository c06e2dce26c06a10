"""What `deploy.py` is made of: settings in, a plan out, and one module that talks to AWS."""
