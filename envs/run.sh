#!/usr/bin/env bash
# Runs a command in one of the two locked environments and makes that environment first if it is
# not there or no longer what its lock says:
#   bash envs/run.sh workflow snakemake -j4
#   bash envs/run.sh tests pytest
# `workflow` is .venv, `tests` is .venv-tests. PYTHON names the interpreter to use (default python3).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

case ${1:-} in
workflow) environment=$root/.venv ;;
tests) environment=$root/.venv-tests ;;
*)
    echo "usage: bash envs/run.sh workflow|tests COMMAND [ARGUMENT ...]" >&2
    exit 2
    ;;
esac
lock=$root/envs/$1.lock
shift

# A copied or moved clone makes its own: an environment's programs and paths name its folder.
if ! cmp --silent "$lock" "$environment/installed.lock" ||
    [ "$(cat "$environment/installed.root" 2>/dev/null)" != "$root" ]; then
    python=${PYTHON:-python3}
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "envs/run.sh: Python 3.11 or newer is needed and '$python' is older or missing." >&2
        echo "Name another one: PYTHON=python3.11 bash envs/run.sh ..." >&2
        exit 1
    }
    echo "Installing $(basename "$lock") into $environment" >&2
    "$python" -m venv --clear "$environment"
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check \
        --require-hashes --requirement "$root/envs/uv.lock"
    # Compiled now: a job that may not write bytecode, or on a network file system, would otherwise
    # compile 2600 modules at each start (5 s).
    "$environment/bin/uv" pip install --quiet --require-hashes --compile-bytecode \
        --python "$environment/bin/python" --requirements "$lock"
    # The packages of this repository, importable from every working directory.
    site=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "$root" >"$site/hear_mn_repository.pth"
    echo "$root" >"$environment/installed.root"
    cp "$lock" "$environment/installed.lock"
fi

export VIRTUAL_ENV=$environment PATH=$environment/bin:$PATH
exec "$@"
