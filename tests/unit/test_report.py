import base64
import csv
import dataclasses
import hashlib
import io
import itertools
import re
import subprocess

import numpy as np
import pytest
import soundfile

from beatline.core import artefact
from beatline.core.labels import Label, LabelSet, audioset
from beatline.evaluate import metrics, report, report_page
from tests.helpers.markup import macros, section
from tests.helpers.reports import EVIL, SUMMARY, Page, make, rng


def test_folder_is_published_whole(tmp_path):
    inputs = make(resamples=20, about={"made_from": "abc"})
    path = report.write(tmp_path / "report", inputs)
    assert path == tmp_path / "report/report.html"
    assert artefact.verify(path.parent) == {"kind": "report", "made_from": "abc"}
    assert {p.name for p in path.parent.iterdir()} == {
        "RESULTS.md",
        "labels.csv",
        "report.html",
        "contents.json",
    }
    rows = list(csv.DictReader(io.StringIO((path.parent / "labels.csv").read_text())))
    assert list(rows[0]) == [
        "index",
        "mid",
        "display_name",
        "ap",
        "auc",
        "d_prime",
        "positives_test",
        "positives_train",
    ]
    assert [row["display_name"] for row in rows] == list(inputs.predictions.labels.names)
    assert [int(row["positives_train"]) for row in rows] == [0, 1, 2, 3]


def test_results_have_the_recipes_table():
    inputs = make(title="a | b\n## c")
    figures = dataclasses.replace(
        inputs.figures,
        mean_acc=0.4773,
        mAP=0.3746,
        mean_auc=0.96584,
        n_labels=527,
        n_instances=20123,
        intervals={"mAP": (0.37, 0.381)},
    )
    lines = report.results_md(dataclasses.replace(inputs, figures=figures)).splitlines()
    table = lines.index("|Split|mean_acc|mAP|mean_auc|n_labels|n_instances|")
    assert lines[table + 1 : table + 3] == ["|---|---|---|---|---|---|", "|test|47.73|37.46|96.58|527|20123|"]
    assert lines[table - 1] == "## a \\| b ## c"
    assert "- beatline version: `9`" in lines
    assert "|mAP|37.46|37.00 to 38.10|" in lines
    assert "|simple (mAP)|25.00|–|" in lines
    assert f"|clip list|20123 clips, SHA-256 `{figures.clips_hash}`|" in lines
    assert "|validation|a stratified tenth of train|" in lines


def test_page_is_well_formed_and_needs_nothing_from_outside():
    text = report_page.page(make())
    page = Page(text)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = [attrs[key] for _, attrs in page.tags for key in ("href", "xlink:href") if key in attrs]
    assert targets and all(target.startswith("#") and target[1:] in ids for target in targets)
    assert all(f"#{name}" not in text or name in ids for name in re.findall(r"url\(#([^)]+)\)", text))
    sources = [attrs["src"] for _, attrs in page.tags if "src" in attrs]
    assert len(sources) == 4 * report_page.CLIPS_SHOWN and all(
        source.startswith("data:") for source in sources
    )
    assert set(re.findall(r"https?://[\w./]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert not page.all("link") and "@import" not in text
    assert all(image["alt"] for image in page.all("img")) and all(
        drawing["aria-label"] for drawing in page.all("svg")
    )
    levels = [int(name[1]) for name, _ in page.tags if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_only_our_script_may_run():
    text = report_page.page(make())
    script = re.search(r"<script>(.*)</script>", text, re.DOTALL)
    assert script
    assert f"'sha256-{base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()}'" in text


def test_what_the_user_gave_is_text():
    labels = LabelSet((Label(EVIL, EVIL), Label("b", '" onload="x'), Label("c", "$x_{"), Label("d", "_d")))
    inputs = make(
        ids=(EVIL, *(f"clip-{i}" for i in range(12))),
        label_set=labels,
        title=EVIL,
        validation_rule=EVIL,
        baseline={EVIL: 0.5},
        environment={EVIL: EVIL, "date": EVIL},
        config={"data": {"folder": f"/data/x{EVIL.replace('/', '')}"}, EVIL: EVIL},
        data_summary=SUMMARY
        | {
            "rejected": {EVIL: 1},
            "splits": {EVIL: 1},
            "labels": [{"mid": EVIL, "name": EVIL, "present": 0, "lost": 1}],
        },
    )
    text = report_page.page(inputs)
    page = Page(text)
    assert len(page.all("script")) == 1
    assert not any("onload" in attrs for _, attrs in page.tags)
    assert EVIL in page.words  # it is shown, as text
    assert EVIL not in report.results_md(inputs)


def test_what_leaks_stands_beside_how_validation_was_made():
    twins = {"clips": 2, "of": 9, "first": ["a", EVIL], "all_heard": True}
    inputs = make(data_summary=SUMMARY | {"leaks": {"near_duplicates": twins}})
    said = f"2 of 9 val and test clips sound like a train clip, the first a and {EVIL}"
    assert any(said in word for word in Page(report_page.page(inputs)).words)
    assert "|leak|2 of 9 val and test clips" in report.results_md(inputs)
    assert EVIL not in report.results_md(inputs) and "leak" not in report.results_md(make())


def test_id_that_is_not_unicode_can_be_written(tmp_path):
    path = report.write(tmp_path / "report", make(ids=tuple(f"clip-\udcff{i}" for i in range(4))))
    assert "clip-\\udcff" in path.read_text(encoding="utf-8")


def test_players_hold_the_clips_they_are_named_after():
    inputs = make(samples_of=lambda name: np.full(500, int(name.split("-")[1]), np.int16))
    for name, source in re.findall(
        r'aria-label="Sound of (clip-\d+)" src="data:audio/flac;base64,([^"]+)"', report_page.page(inputs)
    ):
        heard, _ = soundfile.read(io.BytesIO(base64.b64decode(source)), dtype="int16")
        assert (heard == int(name.split("-")[1])).all() and len(heard) == 500


@pytest.mark.parametrize("count", [0, 1, 399, 16_000])
def test_any_length_has_a_spectrogram(count):
    assert macros().picture(report_page.spectrogram(np.zeros(count, np.int16)), "silence").startswith("<img")


def test_a_long_clip_is_cut_and_says_so():
    text = report_page.page(make(clips=2, samples_of=lambda name: np.zeros(16_000 * 65, np.int16)))
    assert f"Sound of clip-0, first {report_page.SECONDS_SHOWN} s of 65" in text


@pytest.mark.parametrize("missing", ["log", "samples_of", "baseline", "config", "data_summary"])
def test_a_part_without_data_is_left_out(missing):
    inputs = make()
    empty = {"log": [], "samples_of": None, "baseline": {}, "config": {}, "data_summary": {}}[missing]
    inputs = dataclasses.replace(inputs, **{missing: empty})
    page = Page(report_page.page(inputs))
    assert ("Learning curves" in page.words) == (missing != "log")
    assert bool(page.all("audio")) == (missing != "samples_of")
    assert ("Configuration" in page.words) == (missing != "config")
    report.results_md(inputs)


def test_labels_and_clips_at_the_edge():
    inputs = make(clips=3)
    targets = np.zeros((3, 4), bool)
    targets[:, 1] = True  # a label on every clip has no AUC, the others have no AP
    predictions = dataclasses.replace(inputs.predictions, targets=targets)
    edge = dataclasses.replace(
        inputs, predictions=predictions, figures=metrics.figures(predictions.scores, targets, resamples=0)
    )
    assert "3 of 4 labels have no positive test clip" in report_page.page(edge)
    nothing = dataclasses.replace(inputs.predictions, targets=np.zeros((3, 4), bool))
    Page(
        report_page.page(
            dataclasses.replace(
                inputs,
                predictions=nothing,
                figures=metrics.figures(nothing.scores, nothing.targets, resamples=0),
            )
        )
    )
    Page(report_page.page(make(clips=1)))


def test_many_labels_have_no_matrix():
    assert 'class="matrix"' in report_page.page(make(labels=report_page.MATRIX_LABELS, samples_of=None))
    assert 'class="matrix"' not in report_page.page(
        make(labels=report_page.MATRIX_LABELS + 1, samples_of=None)
    )


def test_confusion_on_a_small_table():
    scores = np.array([[0.9, 0.2, 0.1], [0.3, 0.8, 0.5], [0.4, 0.6, 0.0]], np.float32)
    targets = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0]], bool)
    mass, first = report_page.confusion_mass(scores, targets)
    assert np.allclose(mass[0], [(0.9 + 0.3 + 0.4) / 3, (0.2 + 0.8) / 2, (0.1 + 0.5 + 0.0) / 3])
    assert np.isnan(mass[1, 0]) and np.allclose(
        mass[1, 1:], [0.6, 0.0]
    )  # label 0 is on every clip of label 1
    assert np.isnan(mass[2]).all()
    assert first.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_clips_are_ranked_by_their_own_average_precision():
    scores = np.array([[0.9, 0.1, 0.2], [0.9, 0.8, 0.1], [0.1, 0.2, 0.3], [0.6, 0.5, 0.1]], np.float32)
    targets = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0]], bool)
    order, ap = report_page.rank_clips(scores, targets)
    assert order.tolist() == [1, 3, 0]  # 2 has no label; 3 and 0 are both perfect, 0 by a wider margin
    assert np.allclose(ap[[0, 1, 3]], [1.0, 0.5, 1.0])


def test_clips_with_the_same_labels_do_not_fill_the_page():
    targets = np.array([[1, 0], [1, 0], [0, 1], [1, 0], [1, 1]], bool)
    assert report_page.of_different_labels(np.array([3, 1, 0, 4, 2]), targets) == [3, 1, 4, 2]


def test_precision_recall_curve_is_bounded_and_ends_where_all_is_found():
    scores, targets = rng().random(50_000), np.arange(50_000) % 3 == 0
    recall, precision = report_page.precision_recall_curve(scores, targets)
    assert (
        len(recall) <= 500
        and recall[-1] == 1.0
        and (np.diff(recall) > 0).all()
        and ((precision >= 0) & (precision <= 1)).all()
    )


def test_published_results_stand_apart_on_other_data_and_rank_on_audioset():
    text = section(
        report_page.page(make(figures=dataclasses.replace(make().figures, mAP=0.999))), "Published results"
    )
    assert "do not compare" in text and text.index("34.70") < text.index(
        "This model on mini-audioset (embedded)"
    )
    text = section(
        report_page.page(make(label_set=audioset(), clips=5, config={"data": {"audioset": "/x"}})),
        "Published results",
    )
    assert "do not compare" not in text and "This model on AudioSet<" in text
    for figure in ("37.46", "20\u202f123", "19\u202f536", "38.90", "18\u202f987", "44.00"):
        assert figure in text


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"audioset": "/x/y"}, "AudioSet"),
        ({"dataset": "esc50", "root": "/x/y", "fold": 2}, "esc50, fold 2"),
        ({"dataset": "fsd50k", "root": "/x/y", "fold": None}, "fsd50k"),
        ({"kaldi": "/x/birds"}, "birds"),
        ({"csv": "mini"}, "mini-audioset (embedded)"),
        ({"csv": "/x/birds.csv"}, "birds.csv"),
        ({"folder": "/x/birds"}, "birds"),
    ],
)
def test_every_source_of_data_has_its_name(data, name):
    assert report_page.dataset_name({"data": data}) == name


def test_data_section_accounts_for_every_input():
    text = section(report_page.page(make()), "Data")
    assert "45 inputs = 43 clips accepted + 2 rejected" in text and "train 20, val 3, test 20" in text
    assert (
        "Labels that lost clips: 2 of 3" in text
        and text.index("Half") < text.index("Few")
        and "Kept" not in text
    )
    assert "No label lost a clip" in section(
        report_page.page(make(data_summary=SUMMARY | {"labels": SUMMARY["labels"][:1]})), "Data"
    )


def test_git_hash(tmp_path):
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    package = tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text("1")
    assert report.git_hash(package) == "not a git checkout"
    git("init")
    (tmp_path / "other").write_text("1")
    git("add", "other")
    git("commit", "-m", "other", "--no-verify")
    assert report.git_hash(package) == "not a git checkout"  # not tracked: somebody else's repository
    git("add", ".")
    git("commit", "-m", "x", "--no-verify")
    assert report.git_hash(package) == git("rev-parse", "HEAD")
    (package / "a.py").write_text("2")
    assert report.git_hash(package) == git("rev-parse", "HEAD") + "-dirty"


def test_environment_names_the_versions():
    assert {"date", "python version", "beatline version", "pytorch version", "git hash", "platform"} == set(
        report.environment()
    )
