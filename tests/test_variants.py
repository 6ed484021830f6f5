"""Names of variants: what they mean, what they are refused for, what they import."""

import csv
import importlib
import importlib.util
import subprocess
import sys

import pytest
import yaml
from jsonschema import Draft202012Validator

import hear_mn.variants
from hear_mn.checkpoints import checkpoints
from hear_mn.variants import UnknownVariant, named_variants, parse_variant

# sizes as the reference's modules return them
SIZES = {
    "mn04_e1_l": 911,
    "mn10_e1_l": 1487,
    "mn10_mels_256_e1_l": 1487,
    "mn40_e1_l": 4367,
    "mn40_ext_clf_all_se_mels": 9304,
    "mn40_ext_clf_l": 5647,
    "mn40_ext_e1": 3840,
    "mn40_ext_e1_all_se_mels": 8024,
    "mn40_ext_e1_l": 4367,
    "mn40_ext_e1_l_all_se": 8423,
    "mn40_ext_e1_l_block": 8751,
    "mn40_ext_e1_l_mels": 4495,
    "mn40_ext_e1_l_se": 7631,
    "mn40_ext_e1_l_se_block": 12015,
}


def test_the_reference_has_fourteen_variants_and_all_are_named():
    assert sorted(named_variants().values()) == sorted(SIZES)


@pytest.mark.parametrize(("variant", "alias"), named_variants().items())
def test_a_variant_is_importable_by_both_names_and_has_its_size(variant, alias):
    for name in (variant, alias):
        module = importlib.import_module(f"hear_mn.{name}")
        assert {"load_model", "get_scene_embeddings", "get_timestamp_embeddings"} <= set(
            vars(module)
        )
    assert parse_variant(alias) == parse_variant(variant)
    assert parse_variant(variant).size == SIZES[alias]


@pytest.mark.parametrize(
    ("name", "checkpoint", "features"),
    [
        ("mn40_as_ext_clf_l", "mn40_as_ext", "logits clf"),
        ("mn10_as_mels_256_mels_e1", "mn10_as_mels_256", "e1 mels"),
        ("mn10_as_mels", "mn10_as", "mels"),
        ("mn40_as_2_e1", "mn40_as_2", "e1"),
        ("mn04_as_se_block", "mn04_as", "block0 block5 block10 e1 se12 se13 se14 se15"),
        (
            "mn40_as_ext_all_se_e1_l",
            "mn40_as_ext",
            "logits e1 se4 se5 se6 se11 se12 se13 se14 se15",
        ),
        ("passt_base", "passt_base", "embedding"),
    ],
)
def test_a_name_gives_the_longest_checkpoint_and_features_in_the_fixed_order(
    name, checkpoint, features
):
    variant = parse_variant(name)
    assert variant.checkpoint == checkpoint
    assert variant.features == tuple(features.split())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mn99_as_e1", "begins with no checkpoint"),
        ("mn40_as_ext", "names no part"),
        ("mn04_as_e2", "'e2' after the checkpoint mn04_as"),
        ("mn04_as_embedding", "'embedding' after the checkpoint mn04_as"),
        ("mn04_as_e1_e1", "a part twice"),
        ("mn04_as_se_all_se", "has se and all_se"),
        ("mn10_as_fc_clf", "fully_convolutional, for clf"),
        ("passt_base_e1", "which has no parts"),
        ("mn04_as_e1_", "'' after the checkpoint"),
        ("mn40_as_ext_all-se", "has a '-'"),
        ("", "begins with no checkpoint"),
    ],
)
def test_a_wrong_name_is_refused_with_the_reason_and_what_exists(name, reason):
    with pytest.raises(UnknownVariant, match=reason) as error:
        parse_variant(name)
    assert "mn40_as_ext" in str(error.value)
    assert "all_se" in str(error.value)


def test_a_near_miss_is_named():
    with pytest.raises(UnknownVariant, match=r"Did you mean .*mn40_as_ext_e1_l_all_se"):
        parse_variant("mn40_as_ext_e1_l_allse")
    with pytest.raises(UnknownVariant, match=r"Did you mean passt_base"):
        parse_variant("paast_base")


def test_importing_an_unknown_variant_says_what_exists():
    with pytest.raises(ModuleNotFoundError, match="Checkpoints: mn01_as"):
        importlib.import_module("hear_mn.mn04_as_e9")


def test_files_of_the_package_are_not_hidden():
    assert importlib.import_module("hear_mn.variants") is hear_mn.variants
    assert importlib.util.find_spec("hear_mn.frontend").origin.endswith("frontend.py")


def test_names_are_read_without_importing_torch():
    code = (
        "import sys, hear_mn.variants, hear_mn.checkpoints as c;"
        "hear_mn.variants.parse_variant('mn04_as_e1').size; c.checkpoints();"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("table", ["checkpoints", "variants"])
def test_every_row_follows_its_schema(repository, table):
    schema = yaml.safe_load((repository / f"config/schemas/{table}.schema.yaml").read_text())
    Draft202012Validator.check_schema(schema)
    with (repository / f"config/{table}.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            Draft202012Validator(schema).validate(row)


def test_every_named_variant_has_a_known_checkpoint():
    assert {parse_variant(name).checkpoint for name in named_variants()} <= set(checkpoints())
