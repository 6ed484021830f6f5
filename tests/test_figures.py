"""Every figure is drawn whole: no label cut or overlapping, nothing missing shown as zero."""

import csv
import itertools
import json
import math
import shutil
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
from matplotlib import cbook
from matplotlib.text import Text
from PIL import Image

from workflow_scripts.hear2021.report import figure_table as figure_table_module
from workflow_scripts.hear2021.report.comparison import Comparison, UnknownModel
from workflow_scripts.hear2021.report.figure_table import (
    FigureRow,
    figure_table,
    figures_of_run,
    published_figures,
)
from workflow_scripts.hear2021.report.figures import (
    Complexity,
    FigureError,
    draw,
    save,
)
from workflow_scripts.hear2021.report.figures.categories import _statistics
from workflow_scripts.hear2021.report.published import read_published
from workflow_scripts.hear2021.report.reported_tasks import reported_tasks
from workflow_scripts.hear2021.report.score_table import score_table
from workflow_scripts.hear2021.run import config_tables
from workflow_scripts.hear2021.run.config_tables import CONFIG, ConfigurationError
from workflow_scripts.hear2021.run.configuration import task_table

STUDY = [
    "mn04_as_e1_l",
    "mn10_as_e1_l",
    "mn10_as_mels_256_e1_l",
    "mn40_as_e1_l",
    "mn40_as_ext_e1",
    "mn40_as_ext_e1_l",
    "mn40_as_ext_clf_l",
    "mn40_as_ext_e1_l_mels",
    "mn40_as_ext_e1_l_se",
    "mn40_as_ext_e1_l_all_se",
    "mn40_as_ext_e1_l_block",
    "mn40_as_ext_e1_l_se_block",
    "mn40_as_ext_e1_all_se_mels",
    "mn40_as_ext_clf_all_se_mels",
]
NOTICE = "synthetic audio, untrained weights"


def compare(folder, variants=(), benchmark="hear2021", without=()) -> Comparison:
    """Give every variant plausible scores on every task but those in `without`."""
    rows = [row for row in task_table().values() if row.benchmark == benchmark]
    for (number, variant), (index, row) in itertools.product(enumerate(variants), enumerate(rows)):
        if (variant, row.task) not in without:
            path = folder / variant / f"{row.task}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            score = {"test_score": 0.3 + 0.13 * ((index * 7 + number * 3) % 5)}
            path.write_text(json.dumps({"test": score}))
    published = read_published()
    scores, _ = score_table(folder, list(variants), rows, published)
    return Comparison(scores, reported_tasks(rows), published)


def complexities(comparison) -> dict[str, Complexity]:
    names = [*comparison.own, *comparison.published.systems]
    return {
        name: Complexity(
            parameters=68_427_303 if "mn40" in name else 100_000 * (1 + index % 30),
            macs=8_027_611_904 if "mn40" in name else None,
        )
        for index, name in enumerate(names)
    }


def texts(figure) -> list[Text]:
    """Return the texts that a reader sees; ticks beyond an axis' ends are not drawn."""
    figure.draw_without_rendering()
    beyond = set()
    for axes in figure.axes:
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not min(low, high) <= tick.get_loc() <= max(low, high):
                    beyond |= {tick.label1, tick.label2}
    return [
        text
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in beyond
    ]


def outline(text):
    """Return the corners of a text's box, turned as the text is."""
    angle = text.get_rotation()
    text.set_rotation(0)
    flat = text.get_window_extent()
    text.set_rotation(angle)
    turned = mpl.transforms.Affine2D().rotate_deg(angle)
    corners = turned.transform(
        [(0, 0), (flat.width, 0), (flat.width, flat.height), (0, flat.height)]
    )
    extent = text.get_window_extent()
    return corners - corners.min(axis=0) + [extent.x0, extent.y0]


def overlap(one, other, slack=2.0) -> bool:
    """Say whether two convex outlines overlap by more than `slack` pixels (separating axes)."""
    if (one.max(axis=0) <= other.min(axis=0)).any() or (other.max(axis=0) <= one.min(axis=0)).any():
        return False
    for polygon in (one, other):
        for start, end in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
            normal = mpl.transforms.Affine2D().rotate_deg(90).transform(end - start)
            normal = normal / (normal @ normal) ** 0.5
            a, b = one @ normal, other @ normal
            if a.max() - slack <= b.min() or b.max() - slack <= a.min():
                return False
    return True


def assert_readable(figure) -> None:
    shown = texts(figure)
    assert min(float(text.get_fontsize()) for text in shown) >= 6
    outlines = [(text.get_text(), outline(text)) for text in shown]
    for (one, box), (other, other_box) in itertools.combinations(outlines, 2):
        assert not overlap(box, other_box), f"{one!r} and {other!r} overlap"
    everything = figure.get_tightbbox()
    assert everything.width <= 7.4, "wider than a page"


CASES = {
    "published": {},
    "study": {"variants": STUDY, "without": {(STUDY[3], "fsd50k-v1.0-full")}},
    "mini": {
        "variants": ["mn04_seeded_mels", "mn04_seeded_e1"],
        "benchmark": "mini",
        "without": {("mn04_seeded_e1", "mini_pitch")},
    },
}
FIGURES = [
    *(("published", name) for name in published_figures()),
    *(("study", name) for name in figures_of_run(STUDY, leaderboard_tasks=True)),
    *(("mini", name) for name in figures_of_run([], leaderboard_tasks=False)),
]


@pytest.fixture(scope="module")
def comparisons(tmp_path_factory):
    return {name: compare(tmp_path_factory.mktemp(name), **case) for name, case in CASES.items()}


@pytest.mark.parametrize(("case", "name"), FIGURES)
def test_no_text_is_cut_overlapping_or_tiny(comparisons, case, name):
    comparison = comparisons[case]
    notice = NOTICE if case == "mini" else ""
    assert_readable(draw(figure_table()[name], comparison, complexities(comparison), notice))


def test_the_check_for_overlaps_can_fail(comparisons):
    figure = draw(figure_table()["mels"], comparisons["published"], {})
    figure.text(0.2, 0.5, "one label")
    figure.text(0.21, 0.51, "another label")
    with pytest.raises(AssertionError, match="overlap"):
        assert_readable(figure)


def test_the_same_scores_give_the_same_bytes_whatever_the_user_has_set(comparisons, tmp_path):
    comparison = comparisons["published"]
    row = figure_table()["best_by_task"]
    save(draw(row, comparison, {}), tmp_path / "a.png", tmp_path / "a.svg")
    with mpl.rc_context({"font.size": 20, "savefig.dpi": 50, "axes.facecolor": "red"}):
        save(draw(row, comparison, {}), tmp_path / "b.png", tmp_path / "b.svg")
    for kind in ("png", "svg"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg", "b.png", "b.svg"]


def test_the_files_are_a_picture_of_print_resolution_and_a_drawing(comparisons, tmp_path):
    png, svg = tmp_path / "a.png", tmp_path / "a.svg"
    save(draw(figure_table()["complexity"], comparisons["published"], {}), png, svg)
    with Image.open(png) as image:
        assert image.width > 1300
        assert image.convert("L").getextrema() == (0, 255)
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")


def test_the_notice_stands_on_the_face_of_every_mini_figure(comparisons):
    for name in figures_of_run([], leaderboard_tasks=False):
        figure = draw(figure_table()[name], comparisons["mini"], {}, NOTICE)
        assert NOTICE in [text.get_text() for text in texts(figure)]


def test_a_missing_score_is_marked_and_a_zero_is_written(comparisons):
    shown = [
        text.get_text()
        for text in texts(draw(figure_table()["best_by_task"], comparisons["published"], {}))
    ]
    assert shown.count("n/a") == 1  # PANNs on FSD50K
    assert shown.count("0") == 2  # PANNs on DCASE 2016 and MAESTRO
    shown = [
        text.get_text()
        for text in texts(draw(figure_table()["heat_map"], comparisons["published"], {}))
    ]
    assert "62.5*" in shown


def test_notes_stand_in_one_order_whichever_mark_comes_first(comparisons):
    figure = draw(figure_table()["best_by_task"], comparisons["published"], {})
    [note] = [text.get_text() for text in texts(figure) if "n/a: " in text.get_text()]
    assert note.replace("\n", " ").endswith("n/a: there is no score. 0: the score is zero.")
    shown = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert shown.index("0") < shown.index("n/a")


def test_every_model_of_a_run_is_in_a_panel_by_task(comparisons):
    figure = draw(figure_table()["by_task"], comparisons["study"], {})
    legends = [axes.get_legend() for axes in figure.axes]
    named = [text.get_text() for legend in legends if legend for text in legend.get_texts()]
    assert named == STUDY


def test_a_box_says_how_many_tasks_it_counts_if_not_all(comparisons):
    figure = draw(figure_table()["best_by_category"], comparisons["published"], {})
    assert [text.get_text() for text in texts(figure)].count("6/7") == 1


@pytest.mark.parametrize("count", range(1, 10))
def test_a_box_has_the_quartiles_and_whiskers_that_matplotlib_gives_it(count):
    values = [0.5, 0.9, 0.55, 0.1, 0.6, 1.9, 0.52, 0.58, 0.62][:count]
    [expected] = cbook.boxplot_stats(values)
    box = _statistics(values)
    for key in ("whislo", "q1", "med", "q3", "whishi"):
        assert box[key] == pytest.approx(expected[key])


def test_a_box_drawn_from_published_statistics_says_so(comparisons):
    shown = [
        text.get_text()
        for text in texts(draw(figure_table()["mels"], comparisons["published"], {}))
    ]
    assert "mn40_as_ext_e1_l_mels†" in shown
    assert any("statistics of a published box plot" in text for text in shown)


def test_bars_stand_clear_of_each_other_whatever_the_number_of_models(comparisons):
    panels = draw(figure_table()["by_task"], comparisons["study"], {}).axes
    assert len({len(axes.containers) for axes in panels}) > 1
    for axes in panels:
        bars = sorted((bar.get_x(), bar.get_width()) for each in axes.containers for bar in each)
        for (left, width), (right, _) in itertools.pairwise(bars):
            assert left + width <= right + 1e-9


@pytest.mark.parametrize("name", ["by_category", "by_task", "by_task_and_model"])
def test_a_figure_of_all_scores_has_no_note_of_missing_ones(name, tmp_path):
    comparison = compare(tmp_path, ["mn04_seeded_mels", "mn04_seeded_e1"], "mini")
    shown = " ".join(text.get_text() for text in texts(draw(figure_table()[name], comparison, {})))
    for note in ("n/a", "the score is zero", "Framed", "*", "Under a box", "†", "published"):
        assert note not in shown


def test_published_systems_are_named_as_such_beside_a_run(comparisons):
    figure = draw(figure_table()["best_by_category"], comparisons["study"], {})
    shown = " ".join(text.get_text().replace("\n", "") for text in texts(figure))
    assert "PaSST (published)" in shown
    assert "all_se (published)" not in shown


def test_what_is_not_in_a_plot_against_complexity_is_named_under_it(comparisons):
    comparison = comparisons["published"]
    figure = draw(figure_table()["score_and_macs"], comparison, complexities(comparison))
    [note] = [text.get_text() for text in texts(figure) if "Not shown" in text.get_text()]
    assert "PaSST" in note
    assert "mn40" not in note


def test_the_six_published_comparisons_are_there_with_their_models():
    models = {name: set(row.models) for name, row in figure_table().items()}
    assert models["complexity"] == {
        "PaSST",
        "mn40_as_ext_e1_l",
        "mn10_as_e1_l",
        "mn04_as_e1_l",
        "CVSSP PANNS",
    }
    assert models["logits_and_classifier"] == {
        "mn40_as_ext_e1",
        "mn40_as_ext_clf_l",
        "mn40_as_ext_e1_l",
    }
    assert models["squeeze_excitation_and_block"] == {
        "mn40_as_ext_e1_l_all_se",
        "mn40_as_ext_e1_l_block",
        "mn40_as_ext_e1_l",
    }
    assert models["mels"] == {"mn40_as_ext_e1_l", "mn40_as_ext_e1_l_mels"}
    best = {"mn40_as_ext_e1_l_all_se", "PaSST", "CVSSP PANNS"}
    assert models["best_by_category"] == models["best_by_task"] == best


def test_a_figure_of_an_unknown_model_is_refused_by_name(comparisons):
    row = FigureRow("f", "tasks", ("mn41_as_e1", "PaSST"), "published", "t", "c")
    with pytest.raises(UnknownModel, match="mn41_as_e1"):
        draw(row, comparisons["published"], {})


@pytest.mark.parametrize("benchmark", ["mini", "hear2021"])
def test_a_run_without_any_score_is_drawn_as_one(benchmark, tmp_path):
    variants = ["mn04_seeded_mels", "mn04_seeded_e1"]
    tasks = [row.task for row in task_table().values() if row.benchmark == benchmark]
    nothing = set(itertools.product(variants, tasks))
    comparison = compare(tmp_path, variants, benchmark, without=nothing)
    for name in figures_of_run(variants, leaderboard_tasks=benchmark == "hear2021"):
        assert_readable(draw(figure_table()[name], comparison, complexities(comparison)))


def test_variants_too_close_together_for_their_names_are_named_below(tmp_path):
    parts = ["e1", "l", "clf", "mels", "se", "block"]
    joined = ["_".join(some) for n in (1, 2) for some in itertools.permutations(parts, n)]
    comparison = compare(tmp_path, [f"mn40_as_ext_{parts}" for parts in joined])
    figure = draw(figure_table()["score_and_macs"], comparison, complexities(comparison))
    assert_readable(figure)
    shown = " ".join(text.get_text().replace("\n", "") for text in texts(figure))
    assert "Without room for a name at the point: mn40_as_ext" in shown
    assert all(variant in shown.replace(" ", "") for variant in comparison.own)


@pytest.mark.parametrize("name", ["by_task", "by_category"])
def test_the_axis_reaches_above_the_highest_score(name, tmp_path):
    variant, first, best = STUDY[0], "esc50-v2.0.0-full", "vox_lingua_top10-hear2021-full"
    (tmp_path / variant).mkdir()
    (tmp_path / variant / f"{best}.json").write_text(json.dumps({"test": {"test_score": 1.0}}))
    comparison = compare(tmp_path, [variant], without={(variant, first), (variant, best)})
    values = comparison.normalised(variant)
    highest = max(value for value in values if not math.isnan(value))
    assert math.isnan(values[0])
    assert highest > 1.3
    [axes] = draw(figure_table()[name], comparison, {}).axes
    assert axes.get_ylim()[1] > highest


def test_a_dollar_in_a_notice_is_a_dollar(comparisons):
    notice = r"costs $1 and $HOME\new"
    figure = draw(figure_table()["by_task"], comparisons["mini"], {}, notice)
    assert notice in [text.get_text() for text in texts(figure)]


def test_a_figure_without_any_model_is_refused(comparisons):
    row = FigureRow("f", "tasks", ("own",), "own", "t", "c")
    with pytest.raises(FigureError, match="the run has no models"):
        draw(row, comparisons["published"], {})


def test_a_wrong_row_of_the_figure_table_is_named(repository, tmp_path, monkeypatch):
    text = (repository / "config/figures.csv").read_text()
    (tmp_path / "figures.csv").write_text(
        text.replace("complexity,categories", "complexity,pie", 1)
    )
    shutil.copytree(CONFIG / "schemas", tmp_path / "schemas")
    monkeypatch.setattr(config_tables, "CONFIG", tmp_path)
    figure_table.cache_clear()
    with pytest.raises(
        ConfigurationError, match=r"line 2 cannot be used:\n  plot: 'pie'\. Allowed: 'cat"
    ):
        figure_table()
    figure_table.cache_clear()


def figures_with(row: dict[str, str], folder, monkeypatch) -> None:
    """Have config/figures.csv one more row."""
    for name in ("figures.csv", "published_systems.csv"):
        shutil.copy(CONFIG / name, folder)
    shutil.copytree(CONFIG / "schemas", folder / "schemas")
    with (folder / "figures.csv").open("a", newline="") as table:
        csv.DictWriter(table, list(row)).writerow(row)
    monkeypatch.setattr(config_tables, "CONFIG", folder)
    monkeypatch.setattr(figure_table_module, "figure_table", figure_table.__wrapped__)


OURS = {
    "figure": "ours",
    "plot": "tasks",
    "models": "mn05_as_e1;PaSST",
    "scores": "published",
    "title": "Ours and PaSST",
    "caption": "Task by task.",
}


def test_a_figure_of_a_variant_is_drawn_for_the_runs_that_have_it(tmp_path, monkeypatch):
    figures_with(OURS, tmp_path, monkeypatch)
    assert "ours" in figures_of_run(["mn05_as_e1"], leaderboard_tasks=True)
    assert "ours" not in figures_of_run(STUDY, leaderboard_tasks=True)
    assert "ours" not in published_figures()


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ("PaST", "line 14: models: 'PaST' is neither 'own' nor a row of config/published_systems"),
        ("mn04_e1_l", "line 14: models: 'mn04_e1_l' is called mn04_as_e1_l in tables and figures"),
    ],
)
def test_a_figure_of_a_model_that_can_have_no_scores_is_refused(
    models, message, tmp_path, monkeypatch
):
    figures_with(OURS | {"models": models}, tmp_path, monkeypatch)
    with pytest.raises(ConfigurationError, match=message):
        published_figures()
