"""Check an installed environment against what the image's build asked for, and say what it holds.

usage: verify.py PYTHON SCIKIT_LEARN > versions.json

The two versions are the build's arguments, such as 3.13 and 1.9, which also become labels. A label
cannot be computed during a build, so this is what keeps it true.
"""

import importlib
import importlib.metadata
import json
import platform
import sys

# What serve.in names, as Python imports it. Each must still import after the trimming.
MODULES = (
    "numpy",
    "scipy",
    "sklearn",
    "joblib",
    "threadpoolctl",
    "pandas",
    "flask",
    "gunicorn.app.base",
    "orjson",
    "skops.io",
    "boto3",
)


def main(wanted_python: str, wanted_sklearn: str) -> int:
    python = platform.python_version()
    packages = {
        one.metadata["Name"].lower(): one.version
        for one in importlib.metadata.distributions(path=[_site_packages()])
    }
    for name, wanted, found in (
        ("Python", wanted_python, python),
        ("scikit-learn", wanted_sklearn, packages["scikit-learn"]),
    ):
        if wanted.split(".")[:2] != found.split(".")[:2]:
            print(f"asked for {name} {wanted}, but this is {found}", file=sys.stderr)
            return 1
    # FORMATS=parquet brings what serve.in does not name.
    for module in (*MODULES, *(["pyarrow.parquet"] if "pyarrow" in packages else [])):
        importlib.import_module(module)
    print(json.dumps({"python": python, "packages": dict(sorted(packages.items()))}, indent=2))
    return 0


def _site_packages() -> str:
    import sysconfig

    return sysconfig.get_path("purelib")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
