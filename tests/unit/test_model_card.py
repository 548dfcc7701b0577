"""The model card: what the Hub's own client reads of it, every figure the run's, the data as it was, nothing
that nobody measured, its lines run.
"""

import json
import re
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import soundfile
from huggingface_hub import ModelCard

import beatline
from beatline import cli, load_config
from beatline import recipe as stages
from beatline.config import to_dict
from beatline.core.labels import Label, LabelSet
from beatline.evaluate.score_folder import read_score
from beatline.model.checkpoints.espnet import export_espnet
from beatline.publish import hub as publish
from beatline.publish import model_card
from beatline.publish.model_card import Facts, card
from beatline.tag.calibration import Calibration
from tests.helpers import hubs
from tests.helpers.models import LABELS, make_tagger
from tests.helpers.tiny import tiny, write_data

pytestmark = [
    pytest.mark.xdist_group("hub"),
    pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
hub = hubs.hub
NAME = "me/sounds"
CLIP = Path(str(files("beatline"))) / "assets/mini-audioset/audio/test_bird_01.ogg"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A real run with a score, a baseline, and one input that was refused."""
    place = tmp_path_factory.mktemp("card")
    csv = write_data(place / "data")
    csv.write_text(csv.read_text() + "gone.wav,Tone,train\n")
    settings = tiny(csv, place / "run", train__epochs="1", train__average="1", score__baseline="true")
    stages.run(settings)
    return settings.out


def section(text: str, name: str) -> str:
    """What stands under a heading."""
    (found,) = re.findall(rf"(?ms)^## {name}\n(.*?)(?=^## |\Z)", text)
    return found


def bare(**changes) -> Facts:
    return replace(
        Facts(name=NAME, labels=LABELS, tagger=make_tagger(), family="BEATs release", about={}), **changes
    )


def test_the_hub_s_client_reads_and_validates_it(run, hub):
    publish.pack(run, hub.root / "packed", NAME, "cc-by-4.0")
    read = ModelCard.load(hub.root / "packed/README.md")
    assert read.data.to_dict() == {
        "license": "cc-by-4.0",
        "pipeline_tag": "audio-classification",
        "library_name": "beatline",
        "tags": ["audio-tagging", "beats"],
    }
    read.validate()  # asks the endpoint
    assert [request["path"] for request in hub.log()] == ["/api/validate-yaml"]
    assert [name for name in re.findall(r"(?m)^## (.*)$", read.text)] == [
        "How to use it",
        "Results",
        "Data",
        "Training",
        "Limits",
        "Citation",
    ]
    assert ModelCard(str(read)).data.to_dict() == read.data.to_dict()


def test_every_result_is_the_run_s(run, tmp_path):
    publish.pack(run, tmp_path / "packed", NAME)
    results = section((tmp_path / "packed/README.md").read_text(), "Results")
    figures, baselines = read_score(run / "score")
    rows = {
        cells[0]: cells[1:]
        for line in results.splitlines()
        if line.startswith("|") and len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 3
    }
    wanted = {
        title: (getattr(figures, name), scale, figures.intervals.get(name))
        for name, title, scale in model_card.FIGURES
    }
    wanted |= {"chance (mAP)": (figures.chance, 100, None)} | {
        f"{name} (mAP)": (value, 100, None) for name, value in baselines.items()
    }
    assert rows.keys() - {"", "---"} == wanted.keys() and len(baselines) == 1
    for title, (value, scale, interval) in wanted.items():
        assert rows[title] == [
            f"{scale * value:.2f}" if np.isfinite(value) else "–",
            " to ".join(f"{scale * end:.2f}" if np.isfinite(end) else "–" for end in interval)
            if interval
            else "",
        ], title
    assert (
        f"On {figures.n_instances} test clips, {figures.n_labels_scored} of {figures.n_labels} labels"
        in results
        and figures.clips_hash in results
    )
    measured = {
        f"{scale * number:.2f}"
        for value, scale, interval in wanted.values()
        for number in (value, *(interval or ()))
    }
    assert set(re.findall(r"\d+\.\d+", results)) <= measured, "a number that nobody measured"


def test_the_data_statement_is_what_prepare_found(run, tmp_path):
    publish.pack(run, tmp_path / "packed", NAME)
    data, summary = (
        section((tmp_path / "packed/README.md").read_text(), "Data"),
        json.loads((run.parent / "store/summary.json").read_text()),
    )
    assert (
        f"{summary['inputs']} clips were listed, {summary['ok']} were used" in data
        and summary["inputs"] == 13
        and summary["ok"] == 12
    )
    assert "1 were missing or refused" in data and all(
        f"{code} {count}" in data for code, count in summary["rejected"].items()
    )
    assert (
        "Tone 1 of " in data
        and "Their licence is not stated" in data
        and "not stated by who published them" in data
    )
    assert (
        str(run.parent)
        not in (tmp_path / "packed/README.md").read_text() + (tmp_path / "packed/config.json").read_text()
    )


def test_what_is_not_known_is_called_so(tmp_path):
    export_espnet(tmp_path / "espnet", make_tagger(), LABELS)
    publish.pack(tmp_path / "espnet", tmp_path / "packed", NAME)
    text = (tmp_path / "packed/README.md").read_text()
    assert "None are stated" in section(text, "Results") and not re.search(r"\d", section(text, "Results"))
    assert "Not known here: the weights were read from a file of another kind (ESPnet)" in section(
        text, "Data"
    ) and "is not known here" in section(text, "Data")
    assert "Scores are no probabilities" in text and "license" not in ModelCard(text).data.to_dict()
    learned = Calibration(LABELS, np.full(3, 0.5, np.float32), 2.0, ("learned",) * 3, np.ones(3, np.int64))
    assert "only with its temperature" in card(
        bare(calibration=learned)
    ) and "`beatline tag --calibrated`" in card(bare(calibration=learned))


def test_figures_of_others_stand_apart_and_only_beside_their_recipe(tmp_path):
    settings = to_dict(load_config("as20k", ["--data.audioset", str(tmp_path)]))
    results = section(card(bare(about={"config": settings})), "Results")
    before, after = results.split("Published for fine-tuning on AudioSet-20K, by others")
    assert "None are stated" in before and not re.search(r"\d", before), "no AudioSet figure of ours"
    assert "not measured here" in after and {value for _, value, _ in model_card.PUBLISHED} == set(
        re.findall(r"\| (\d+\.\d+) \|", after)
    )
    other = settings | {"data": settings["data"] | {"audioset_train": ["balanced", "unbalanced"]}}
    assert "Published" not in card(bare(about={"config": other})), "another recipe than theirs"
    assert "audioset" in ModelCard(card(bare(about={"config": settings}))).data.tags


def test_a_stranger_s_words_change_neither_form_nor_front_matter():
    evil = LabelSet(
        (Label("a", "x\n---\nlicense: mit"), Label("b", "| ![](http://x) <script>"), Label("c", "`code`"))
    )
    text = card(bare(labels=evil, name="me/x", family="a\n## Results\n"))
    assert ModelCard(text).data.to_dict().keys() == {"pipeline_tag", "library_name", "tags"}
    assert (
        text.count("\n## Results") == 1
        and "<script" not in text
        and r"\!" not in text
        and r"!\[\](http://x)" in text
    )


def test_its_own_lines_run_against_the_hub(run, hub, tmp_path, capsys):
    """Pushed to a real endpoint by the real client, and used from there by what the card says."""
    publish.push(run, NAME)
    shutil.copytree(hub.root / "hub/models" / NAME, tmp_path / "there")
    samples, rate = soundfile.read(CLIP, dtype="float32")
    for name in ("bark.mp3", "bark.wav"):
        soundfile.write(name, samples if samples.ndim == 1 else samples.mean(axis=1), rate)
    assert rate == 16_000
    wanted = beatline.load(run)("bark.wav").top(2)
    blocks = re.findall(r"(?s)```python\n(.*?)```", (tmp_path / "there/README.md").read_text())
    assert len(blocks) == 2
    capsys.readouterr()
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
        said = capsys.readouterr().out
        assert all(label.name in said for label, _ in wanted), said
    assert f"{wanted[0][1]:.4f}" in said  # transformers' pipeline, on the same samples
    (command,) = re.findall(r"`beatline (tag .*?)`", (tmp_path / "there/README.md").read_text())
    Path("recordings").mkdir()
    shutil.copy("bark.wav", "recordings")
    assert cli.main(command.split()) == 0 and wanted[0][0].name in capsys.readouterr().out
