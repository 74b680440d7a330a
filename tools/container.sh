#!/bin/sh
# What the container runs: the built site, or JupyterLab on the chapters.
set -eu
cd /book
case "${1:-site}" in
site)
  exec .venv/bin/python tools/build_site.py serve --host 0.0.0.0 --port 8000
  ;;
lab)
  # Inside a container every address is the container's; publish it on 127.0.0.1.
  exec .venv/bin/python -m jupyterlab chapters --no-browser --ip 0.0.0.0 --port 8888
  ;;
*)
  echo "error: say site or lab, not '$1'" >&2
  exit 2
  ;;
esac
