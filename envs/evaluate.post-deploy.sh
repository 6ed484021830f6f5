#!/usr/bin/env bash
# heareval asks for numpy 1.19 and TensorFlow; what is used of it runs without.
set -euo pipefail
python -m pip install --no-deps heareval==2021.1.3
