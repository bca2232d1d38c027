# The command `naclip` in a container; docs/install.md says how to use it.
FROM python:3.12-slim-bookworm

# What OpenCV's wheel links to and does not bring, and a C compiler, with which Triton makes its kernels' launchers.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

# PyTorch's wheels bring CUDA. With the index of its wheels for the CPU here, the image has none and is smaller.
ARG PIP_EXTRA_INDEX_URL
ARG EXTRAS=all

WORKDIR /src
# What the toolkit stands on comes first: a layer that a change of the code leaves alone.
COPY requirements.txt ./
RUN pip install --no-cache-dir -r requirements.txt
COPY pyproject.toml setup.py README.md LICENSE ./
COPY clip clip
COPY configs configs
COPY naclip naclip
COPY prompts prompts
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".[${EXTRAS}]"

# Weights, text embeddings and compiled kernels. Any user may write there, for `docker run --user`.
ENV HOME=/home/naclip USER=naclip TRITON_CACHE_DIR=/home/naclip/.cache/triton MPLCONFIGDIR=/home/naclip/.cache/matplotlib
RUN useradd --uid 1000 --no-create-home --home-dir /home/naclip naclip \
    && install --directory --mode=755 --owner=1000 /home/naclip \
    && install --directory --mode=1777 --owner=1000 /home/naclip/.cache /work
VOLUME /home/naclip/.cache

USER 1000
WORKDIR /work
ENTRYPOINT ["naclip"]
CMD ["--help"]
