"""The middle of `sagemaker_containers.beta.framework`, the only path that scripts import."""
