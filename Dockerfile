# The server and the commands in one image.     docker build -t personalive .
# For NVIDIA GPUs, with the diffusion pipeline:  docker build -t personalive:cuda --build-arg VARIANT=cuda .
# BASE is any Debian or Ubuntu with Python 3.11 or newer, its venv module and ca-certificates.
ARG BASE=docker.io/library/python:3.12-slim-bookworm

FROM ${BASE} AS build
ARG VARIANT=cpu
WORKDIR /build
# The packages first, by themselves: a change to the sources does not fetch gigabytes anew. An index of one's own
# comes as the secret "pip", a pip.conf, which no layer keeps.
COPY pyproject.toml constraints.txt scripts/list_requirements.py ./
RUN --mount=type=secret,id=pip,target=/run/secrets/pip.conf \
    case "$VARIANT" in \
        cpu) extras=server ;; \
        cuda) extras=server,diffusion ;; \
        *) echo "VARIANT is cpu or cuda, not '$VARIANT'." >&2; exit 1 ;; \
    esac; \
    export PIP_CONFIG_FILE=/run/secrets/pip.conf PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    && python3 list_requirements.py "$extras" > requirements.txt \
    && python3 -m venv /opt/personalive \
    && /opt/personalive/bin/pip install -c constraints.txt -r requirements.txt
COPY README.md LICENSE NOTICE ./
COPY src src
RUN --mount=type=secret,id=pip,target=/run/secrets/pip.conf \
    export PIP_CONFIG_FILE=/run/secrets/pip.conf PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    && /opt/personalive/bin/pip install --no-deps . \
    && /opt/personalive/bin/pip check

FROM ${BASE}
ARG VARIANT=cpu
# A first process is deaf to SIGTERM until it asks for it, so tini is the first. Triton compiles a small module on
# each machine: with a C compiler and Python's headers, which Docker's image of Python has and Debian's has not.
RUN set -e; packages=tini; \
    if [ "$VARIANT" = cuda ]; then \
        headers=$(python3 -c 'import os, sysconfig; path = sysconfig.get_path("include"); \
print("" if os.path.exists(path + "/Python.h") else "python3-dev")'); \
        packages="$packages gcc libc6-dev $headers"; \
    fi; \
    apt-get update; \
    apt-get install -y --no-install-recommends $packages; \
    rm -rf /var/lib/apt/lists/*
# Any other user will do as well if its group is 0, such as one that a platform makes up.
RUN useradd --uid 1000 --gid 0 --no-create-home --home-dir /data personalive \
    && install -d -o 1000 -g 0 -m 775 /data /files
COPY --from=build /opt/personalive /opt/personalive
ENV PATH=/opt/personalive/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/data \
    PERSONALIVE_HOME=/data \
    PERSONALIVE_HOST=0.0.0.0 \
    PERSONALIVE_PORT=8000 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000:0
WORKDIR /files
# Weights, recordings, and what is compiled for this machine.
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client as h, os; c = h.HTTPConnection('127.0.0.1', int(os.environ['PERSONALIVE_PORT']), timeout=4); c.request('GET', '/health'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["tini", "--", "personalive"]
CMD ["serve"]
