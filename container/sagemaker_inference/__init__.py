"""Stand-in for AWS's sagemaker-inference 1.10, so that scripts importing it run unchanged.

It holds what published `inference.py` scripts use: `encoder`, `decoder`, `content_types`,
`errors`, `utils.parse_accept`, a logger. The work is done by the encoders of the stand-in for
sagemaker-containers, not the other way round: a requirements.txt may well name the real
sagemaker-inference, which then hides this package and must not break that one.
There is no `environment` module on purpose: the scripts that import it are training scripts
probing which of AWS's toolkits is installed.
"""
