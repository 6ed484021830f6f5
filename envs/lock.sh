#!/usr/bin/env bash
# Resolves pyproject.toml again into the two locks. Run it after changing a dependency:
#   bash envs/lock.sh [--upgrade]
set -euo pipefail
cd "$(dirname "$0")/.."

compile() { # lock file, then further options
    local lock=$1
    shift
    uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
        --no-header --no-annotate --no-emit-index-url --output-file "$lock" "$@" >/dev/null
}

# The tests' environment is the workflow's and more, so the workflow's lock follows from it.
compile envs/tests.lock --extra workflow --extra tests "$@"
compile envs/workflow.lock --extra workflow --constraint envs/tests.lock "$@"

# uv itself, which installs the locks.
echo "uv==0.13.9" | uv pip compile - --universal --python-version 3.11 --generate-hashes \
    --no-header --no-annotate --no-emit-index-url --output-file envs/uv.lock >/dev/null
