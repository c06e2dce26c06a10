# One image: scikit-learn behind /ping and /invocations, as SageMaker asks for it.
#
#   docker build --tag skserve .
#   docker build --tag skserve:1.3 --build-arg SKLEARN=1.3 --build-arg PYTHON_VERSION=3.11 .
#   docker build --tag skserve:1.9-parquet --build-arg FORMATS=parquet .
#
# lock (fetch) -> environment (install, trim, compile) -> runtime. Only the last stage is kept.
# Any builder will do: there is nothing here that needs BuildKit.

# The first line of each requirements/serve-*.txt says which Pythons it has wheels for.
ARG PYTHON_VERSION=3.13
# For production give a digest, python@sha256:..., so that the same build tomorrow is the same image.
ARG BASE_IMAGE=python:${PYTHON_VERSION}-slim
# The minor version that saved the models: a pickle is only good for the one it was made by.
ARG SKLEARN=1.9


# ---- lock: every wheel, checked against the hashes in the lock ----
FROM ${BASE_IMAGE} AS lock
ARG SKLEARN
COPY requirements/serve-${SKLEARN}.txt /lock.txt
# Wheels only: the base has no compiler, and a source package would run its own code right here.
# This is the one step that needs a network, so changes further down do not download again.
RUN pip download --quiet --no-cache-dir --disable-pip-version-check \
      --only-binary :all: --require-hashes --requirement /lock.txt --dest /wheels \
    || { echo "No wheel? The first line of requirements/serve-${SKLEARN}.txt says which Pythons" \
              "it is for; choose one with --build-arg PYTHON_VERSION=..." >&2; exit 1; }
# Parquet and Arrow are a third of the image, so they are only in one that asks: FORMATS=parquet.
ARG FORMATS
COPY requirements/parquet.txt /formats/parquet.txt
RUN test -z "${FORMATS}" \
    || pip download --quiet --no-cache-dir --disable-pip-version-check \
      --only-binary :all: --require-hashes --requirement "/formats/${FORMATS}.txt" --dest /wheels


# ---- environment: what the program imports, at the path where it will run ----
FROM ${BASE_IMAGE} AS environment
ARG PYTHON_VERSION
ARG SKLEARN
COPY --from=lock /wheels /wheels
# A venv, because bases differ in where they keep their own packages. It sees those too, so
# `python -m pip` is the base's pip and no second one is shipped.
# No bytecode yet: it is made below, after the trimming.
RUN python -m venv --without-pip --system-site-packages /opt/venv \
 && /opt/venv/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check \
      --root-user-action ignore --no-compile --no-index --no-deps /wheels/*.whl \
 && /opt/venv/bin/python -m pip check
# 50 MB that nothing here can use: the libraries' own tests, and what only a compiler or a type
# checker reads. Shared objects stay as they were published. Stripping them would save 13 MB, but
# then they could no longer be compared with the wheels.
RUN cd /opt/venv/lib/python3*/site-packages \
 && find . -type d '(' -name tests -o -name test ')' -prune -exec rm -rf '{}' + \
 && find . -type f '(' -name '*.py[ix]' -o -name '*.pxd' -o -name '*.tp' -o -name '*.[ach]' \
      -o -name '*.cpp' ')' -delete
# An image based on this one adds to this environment by plain `pip install`, instead of filling
# the base's own folder with a second numpy.
RUN printf '#!/bin/sh\nexec /opt/venv/bin/python -m pip "$@"\n' > /opt/venv/bin/pip \
 && chmod 755 /opt/venv/bin/pip
# A path file finds our program. PYTHONPATH would too, until an environment sets it to something else.
RUN echo /opt/skserve/app > "$(echo /opt/venv/lib/python3*/site-packages)/skserve.pth"
# Bytecode cannot be written when the container runs, so what is missing here is compiled again at
# every start. "unchecked" because no source changes in an image, and because times of files do
# change: builders that set them all to one date would make every timed .pyc stale.
# To patch a .py in an image based on this one, delete its .pyc.
RUN python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib
# Labels can hold only what the build was told. This fails if that is not what is installed, and
# keeps the exact versions.
COPY requirements/verify.py /verify.py
RUN mkdir /opt/skserve \
 && /opt/venv/bin/python -B /verify.py "${PYTHON_VERSION}" "${SKLEARN}" > /opt/skserve/versions.json
# What all of it is, for who asks whether something that was found elsewhere is in here: Debian's
# packages, which are those of the runtime's base, Python, and each wheel with its hash.
COPY requirements/sbom.py /sbom.py
RUN /opt/venv/bin/python -B /sbom.py /wheels > /opt/skserve/sbom.json


# ---- runtime: the base, the environment, our program; no compiler, no wheels, no cache ----
FROM ${BASE_IMAGE} AS runtime
# The official Python images come without bytecode of the standard library, which costs each process
# a second at its start. Where it is there already, as in Debian's packages, nothing is done.
RUN python -m compileall -q -j 0 --invalidation-mode unchecked-hash \
      -x '/(tests?|idlelib|lib2to3|ensurepip|turtledemo|tkinter|pydoc_data)/' \
      "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
COPY --from=environment /opt/venv /opt/venv
COPY --from=environment /opt/skserve /opt/skserve
# LightGBM, which many a requirements.txt names, expects the system's OpenMP, and slim bases have
# none. It gets the one inside scikit-learn, so that a process has one OpenMP and one set of threads.
RUN ln -s /opt/venv/lib/python3*/site-packages/scikit_learn.libs/libgomp-*.so.* /usr/lib/libgomp.so.1
# Programs that run as root for any caller, such as su and mount: nothing here needs one.
RUN find / -xdev -type f -perm /6000 -exec chmod a-s {} +

# PYTHONUNBUFFERED: log lines leave at once, also those before a crash.
# PYTHONDONTWRITEBYTECODE: the root filesystem may be read-only, and is never ours to write.
# PIP_*: pip runs only where a model brings its requirements.txt, and then no person reads
# of a newer pip, or that root should not do this.
ENV PATH=/opt/venv/bin:$PATH \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

# Our program last: a change to it rebuilds two small layers, and pushes no more than that.
COPY container /opt/skserve/app
RUN python -m compileall -q --invalidation-mode unchecked-hash /opt/skserve/app

# Plain Docker's own check; SageMaker asks /ping itself. Not urllib: that would send the question
# to http_proxy where one is set. A model may take its time to load, hence the start period.
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
  CMD ["python", "-I", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('SAGEMAKER_BIND_TO_PORT') or 8080), timeout=4); c.request('GET', '/ping'); sys.exit(c.getresponse().status != 200)"]

# No USER: SageMaker mounts its folders for root. `serve` gives root up before it reads a model;
# any other user, and a read-only root, do as well:
#   docker run --user 10001 --read-only --tmpfs /tmp --network none ...
EXPOSE 8080
# Exec form and no init: the program itself is process 1, which is where SIGTERM goes.
ENTRYPOINT ["python", "-m", "skserve"]
CMD ["serve"]

# The first two are read by SageMaker: without them it refuses multi-model endpoints, and pipelines
# in which the port is not 8080. The others by deploy.py and people: scikit-learn and Python are
# minor versions, as checked above; exact ones are in /opt/skserve/versions.json.
# Down here, because a new VERSION or REVISION must not start the build over.
ARG PYTHON_VERSION
ARG SKLEARN
ARG VERSION=dev
ARG REVISION=unknown
LABEL com.amazonaws.sagemaker.capabilities.multi-models="true" \
      com.amazonaws.sagemaker.capabilities.accept-bind-to-port="true" \
      skserve.version="${VERSION}" \
      skserve.python="${PYTHON_VERSION}" \
      skserve.scikit-learn="${SKLEARN}" \
      org.opencontainers.image.revision="${REVISION}"
