# syntax=docker/dockerfile:1
# The image of every pod: `make image`, or `make image VARIANT=cpu` without CUDA; docs/image.md.

# Python 3.11 is what the tests run on. The digest is that of the index of all architectures.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d

FROM ${PYTHON_IMAGE} AS dependencies
# Extras of pyproject.toml, separated by blanks. Components need dataset, quality, model, pipelines at least.
ARG EXTRAS="all"
# Empty: PyPI's build of PyTorch, with CUDA. "cpu": PyTorch's own index, a tenth of the size.
ARG TORCH_BACKEND=""
# DeepSpeed builds no operator while it is installed (that would need nvcc): docs/image.md says what works without.
ENV DS_BUILD_OPS=0 \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never
WORKDIR /build
COPY constraints.txt pyproject.toml ./
# Every file that is installed must have a hash of the lock, build tools too. PyTorch's own index has other files than
# PyPI: with TORCH_BACKEND the two packages that come from there are checked by version alone.
RUN awk '/^(uv|setuptools)==/ {keep = 1} keep {print} !/\\$/ {keep = 0}' constraints.txt > tools.txt \
 && python -m pip install --no-cache-dir --no-deps --require-hashes --requirement tools.txt \
 && awk -v other="${TORCH_BACKEND}" '/^[^ #]/ {bare = other != "" && /^torch(vision)?==/} \
      bare && /--hash/ {next} bare {sub(/ \\$/, "")} {print}' constraints.txt > lock.txt \
 && uv venv --python /usr/local/bin/python /opt/ocrmem
# Only a change of these two files makes this layer of several GB again. Triton needs a compiler, which the image
# does not have (docs/image.md); the rest that goes is for building and testing other software.
RUN --mount=type=cache,target=/root/.cache/uv \
    set --; for extra in ${EXTRAS}; do set -- "$@" --extra "${extra}"; done; \
    uv pip install --python /opt/ocrmem ${TORCH_BACKEND:+--torch-backend=${TORCH_BACKEND}} \
      --constraint lock.txt --build-constraints constraints.txt --requirement pyproject.toml "$@" \
 && uv pip uninstall --python /opt/ocrmem triton \
 && find /opt/ocrmem/lib -name '*.a' -delete \
 && find /opt/ocrmem/lib -depth -type d \( -path '*/site-packages/torch/include' \
      -o -path '*/site-packages/nvidia/*/include' -o -path '*/tests' \) -exec rm -rf {} +

FROM dependencies AS package
COPY README.md LICENSE ./
COPY ocrmem ocrmem
RUN --mount=type=cache,target=/root/.cache/uv \
    uv build --wheel --build-constraints constraints.txt --out-dir /wheels . \
 && uv pip install --python /opt/ocrmem --prefix /staged --no-index --no-deps /wheels/*.whl

FROM ${PYTHON_IMAGE}
ARG PYTHON_IMAGE
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="ocrmem" \
      org.opencontainers.image.description="Optical memory adapters: check, render, version, train, evaluate, register" \
      org.opencontainers.image.licenses="Apache-2.0 AND OFL-1.1" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"

# /workspace holds the mount points. /minio, /s3 and /gcs are where Kubeflow Pipelines puts artifacts.
RUN groupadd --gid 10001 ocrmem \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin ocrmem \
 && install --directory --owner=10001 --group=10001 /workspace /workspace/dataset /workspace/features \
      /workspace/models /workspace/output /minio /s3 /gcs

COPY --from=dependencies /opt/ocrmem /opt/ocrmem
# All that a change of the code adds.
COPY --from=package /staged /opt/ocrmem
# The tiny preset, the presets for real models, and the sample conversations, as on a checkout.
COPY params.yaml /workspace/
COPY configs /workspace/configs
COPY samples/conversations /workspace/data

# With a read-only root file system, everything that is written goes to /tmp or below /workspace.
# PIP_NO_INDEX: nothing is installed in a running pod; an attempt fails at once.
ENV PATH=/opt/ocrmem/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONNOUSERSITE=1 \
    PIP_NO_INDEX=1 \
    HOME=/tmp \
    LOGNAME=ocrmem \
    TMPDIR=/tmp \
    XDG_CACHE_HOME=/tmp/cache \
    XDG_CONFIG_HOME=/tmp/config \
    XDG_DATA_HOME=/tmp/data \
    HF_HOME=/workspace/models/hub \
    TORCH_HOME=/tmp/torch \
    TORCH_EXTENSIONS_DIR=/tmp/torch-extensions \
    TORCHINDUCTOR_CACHE_DIR=/tmp/inductor \
    TRITON_CACHE_DIR=/tmp/triton \
    CUDA_CACHE_PATH=/tmp/nv \
    WANDB_DIR=/tmp/wandb \
    WANDB_CACHE_DIR=/tmp/wandb/cache \
    WANDB_CONFIG_DIR=/tmp/wandb/config \
    WANDB_DATA_DIR=/tmp/wandb/data \
    DVC_SITE_CACHE_DIR=/tmp/dvc \
    DVC_GLOBAL_CONFIG_DIR=/tmp/config/dvc \
    DVC_NO_ANALYTICS=1 \
    GX_ANALYTICS_ENABLED=false \
    HF_HUB_DISABLE_TELEMETRY=1 \
    MLFLOW_DISABLE_TELEMETRY=true
WORKDIR /workspace
USER 10001:10001
ENTRYPOINT ["ocrmem"]
CMD ["--help"]
