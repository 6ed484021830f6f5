"""Which embedding files a variant is read from, and which are still to be made."""

import json

import pytest

from hear_mn.variants import parse_variant
from workflow_scripts.hear2021.embedding.planning import (
    embedding_files,
    existing_files,
    features_of,
    files_before,
)

E1_L = parse_variant("mn40_as_ext_e1_l")
E1 = parse_variant("mn40_as_ext_e1")
MELS = parse_variant("mn40_as_ext_e1_l_mels")
SE = parse_variant("mn40_as_ext_e1_l_se")
ALL_SE = parse_variant("mn40_as_ext_e1_l_all_se")
OTHER = parse_variant("mn04_as_e1_l")


def test_the_variants_of_a_checkpoint_share_one_file_and_so_one_pass():
    requested = [E1_L, MELS, ALL_SE, OTHER]
    files = {tuple(embedding_files(variant, requested, [])) for variant in requested[:3]}
    assert files == {("l-e1-mels-all_se",)}


def test_other_checkpoints_are_embedded_apart():
    assert embedding_files(OTHER, [E1_L, OTHER, MELS], []) == ["l-e1"]


def test_se_is_not_stored_beside_all_se():
    assert embedding_files(SE, [SE, ALL_SE], []) == ["l-e1-all_se"]


def test_a_variant_within_the_stored_parts_needs_no_new_file():
    assert embedding_files(E1, [E1, E1_L], ["l-e1"]) == ["l-e1"]


def test_a_new_part_is_embedded_alone_and_the_finished_file_is_kept():
    assert embedding_files(MELS, [E1_L, MELS], ["l-e1"]) == ["l-e1", "mels"]
    assert embedding_files(E1_L, [E1_L, MELS], ["l-e1"]) == ["l-e1"]


def test_files_are_in_the_order_they_were_made_in_whatever_their_dates(tmp_path):
    made = ["mels", "l-e1", "clf", "all_se"]
    for folder, names in ((tmp_path / "one", made), (tmp_path / "other", made[::-1])):
        folder.mkdir()
        (folder / ".hidden.json").write_text("{}")
        for name in names:
            before = made[: made.index(name)]
            (folder / f"{name}.json").write_text(json.dumps({"made_after": before}))
        assert existing_files(folder) == made


def test_files_that_are_made_again_keep_their_order(tmp_path):
    made = ["mels", "l-e1", "all_se"]
    for name in [*made, *made[::-1]]:
        manifest = tmp_path / f"{name}.json"
        manifest.unlink(missing_ok=True)
        manifest.write_text(json.dumps({"made_after": files_before(name, tmp_path)}))
    assert existing_files(tmp_path) == made


def test_a_newer_file_does_not_take_the_place_of_an_older_one():
    assert embedding_files(SE, [SE, ALL_SE], ["l-e1-se", "all_se"]) == ["l-e1-se"]
    assert embedding_files(ALL_SE, [SE, ALL_SE], ["l-e1-se", "all_se"]) == ["l-e1-se", "all_se"]


def test_a_smaller_request_repeats_nothing():
    assert embedding_files(E1_L, [E1_L], ["l-e1-mels-all_se"]) == ["l-e1-mels-all_se"]


def test_a_variant_outside_the_run_brings_only_its_own_parts():
    assert embedding_files(MELS, [ALL_SE], []) == ["l-e1-mels"]


def test_a_file_name_says_its_features_in_column_order():
    assert features_of("l-e1-mels") == ("logits", "e1", "mels")


def test_a_file_name_with_parts_out_of_order_is_refused():
    with pytest.raises(ValueError, match="'e1-l' does not name an embedding file"):
        features_of("e1-l")
