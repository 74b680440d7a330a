# The book in a container: the built site, or JupyterLab.
#
#   docker build -t proved-by-running .          (or: podman, buildah)
#   docker run --rm -p 127.0.0.1:8000:8000 proved-by-running              # the site
#   docker run --rm -p 127.0.0.1:8888:8888 proved-by-running lab          # JupyterLab
#
# BASE may be any Debian-like image with Python 3.11 and venv. TORCH=cpu takes
# PyTorch's CPU wheels; TORCH= leaves the choice to pip.
ARG BASE=docker.io/library/python:3.11-slim-bookworm
FROM ${BASE}
ARG TORCH=cpu

# g++ is what torch.compile calls.
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends g++ make \
 && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 10001 reader
WORKDIR /book
RUN chown reader /book
USER reader

# The environment first: it changes less often than the text.
COPY --chown=reader Makefile requirements.txt constraints.txt pyproject.toml ./
COPY --chown=reader llmbook llmbook
RUN make env TORCH="$TORCH" && rm -rf ~/.cache

COPY --chown=reader . .
RUN make book TORCH="$TORCH" && rm -rf ~/.cache

EXPOSE 8000 8888
ENTRYPOINT ["/book/tools/container.sh"]
CMD ["site"]
