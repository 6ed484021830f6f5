"""The real hear-validator passes for a variant of each width."""

import os
import subprocess
import sys

import pytest

from hear_mn.checkpoints import checkpoint
from hear_mn.seeded import write_seeded
from hear_mn.variants import parse_variant

VARIANTS = [
    "mn01_as_e1_l_mels",
    "mn02_as_clf",
    "mn04_as_e1_l",
    "mn05_as_block_all_se",
    "mn10_as_mels_256_e1_l",
    "mn20_as_se",
    "mn30_as_l",
    "mn40_as_ext_e1_l_all_se",
]

# hear-validator's own command line, once a variant, in one process: it imports TensorFlow.
RUN_ALL = """
import sys
from hearvalidator.validate import main
for argument in sys.argv[1:]:
    variant, weights = argument.split("=")
    print("=== " + variant, flush=True)
    sys.argv = ["hear-validator", "hear_mn." + variant, "--model", weights, "--device", "cpu"]
    try:
        main()
    except Exception as error:
        print(repr(error), flush=True)
"""


@pytest.fixture(scope="module")
def output(repository, tmp_path_factory):
    """What hear-validator prints about each variant, with seeded weights of its width."""
    folder = tmp_path_factory.mktemp("weights")
    arguments = []
    for variant in VARIANTS:
        row = checkpoint(parse_variant(variant).checkpoint)
        write_seeded(row, folder / f"{row.checkpoint}.pt")
        arguments.append(f"{variant}={folder / row.checkpoint}.pt")
    result = subprocess.run(
        [sys.executable, "-c", RUN_ALL, *arguments],
        cwd=repository,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    for path in folder.iterdir():
        path.unlink()  # half a gigabyte
    assert result.returncode == 0, result.stdout
    parts = [part.partition("\n") for part in result.stdout.split("=== ")[1:]]
    return {variant: text for variant, _, text in parts}


@pytest.mark.parametrize("variant", VARIANTS)
def test_hear_validator_passes(output, variant):
    assert "Looks good!" in output[variant], output[variant]
