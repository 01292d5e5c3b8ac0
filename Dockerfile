# docker build -t hiera-video .
# docker run --gpus all -v "$PWD":/work hiera-video fit --config folder/finetune data.root=videos
FROM nvidia/cuda:12.8.1-runtime-ubuntu24.04

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# A C compiler and Python's headers are what Triton builds kernels with.
# Versions of Ubuntu's packages are those of the release that the base names.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/hiera-video
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1

COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY hiera_video hiera_video
COPY datamodules datamodules
COPY conf conf
RUN pip install --no-cache-dir --constraint constraints.txt '.[export]'

# Videos and runs: mount a folder here.
WORKDIR /work
ENTRYPOINT ["hiera-video"]
CMD ["--help"]
