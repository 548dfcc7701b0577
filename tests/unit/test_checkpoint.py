"""Checkpoints of every family: strict both ways, one line for whatever is wrong, exact round trips."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from beatline.core import artefact
from beatline.core.errors import UserError
from beatline.core.labels import LabelSet, audioset
from beatline.model.checkpoints.espnet import export_espnet
from beatline.model.checkpoints.load import load_checkpoint, load_tagger
from beatline.model.checkpoints.loaded import Loaded, LoadedTagger
from beatline.model.checkpoints.own import save
from beatline.model.checkpoints.release import load_tokenizer
from beatline.model.tagger import Tagger, initialise_tagger
from tests.helpers.models import LABELS, make_tagger

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def released():
    return torch.load(GOLDEN / "unilm_finetuned.pt", weights_only=True)


def refused(path: Path, *words: str, code: str = "bad-checkpoint", **options) -> None:
    with pytest.raises(UserError) as caught:
        load_checkpoint(path, **options).tagger()
    text = str(caught.value)
    assert caught.value.code == code and "\n" not in text, text
    assert all(word in text for word in (path.name, *words)), text


def test_labels_in_another_order_are_the_same_model(tmp_path, released):
    torch.save(released, tmp_path / "a.pt")
    loaded = load_checkpoint(tmp_path / "a.pt")
    other = LabelSet(loaded.labels.labels[::-1])
    waveform = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = (model.tagger()(waveform) for model in (loaded, loaded.ordered(other)))
    torch.testing.assert_close(theirs, ours.flip(1), rtol=0, atol=1e-6)
    assert loaded.ordered(loaded.labels) is loaded
    with pytest.raises(UserError, match="is not a label of both"):
        loaded.ordered(LabelSet(other.labels[1:]))


def test_own_folder_round_trip_is_exact(tmp_path):
    loaded = load_checkpoint(GOLDEN / "unilm_finetuned.pt")
    tagger = loaded.tagger("upstream")
    save(tmp_path / "model", tagger, loaded.labels, {"note": 1})
    again = load_checkpoint(tmp_path / "model")
    assert again.family == "beatline" and again.labels == loaded.labels and again.config == loaded.config
    other = again.tagger()
    assert other.padding == "upstream" and all(
        torch.equal(a, b)
        for a, b in zip(tagger.state_dict().values(), other.state_dict().values(), strict=True)
    )
    assert not list(tmp_path.rglob("*.pt")) and not list(tmp_path.rglob("*.pkl"))


def test_espnet_export_reads_back_to_the_same_bits_without_code(tmp_path):
    loaded = load_checkpoint(GOLDEN / "espnet_tiny")
    export_espnet(tmp_path / "out", loaded.tagger(), loaded.labels)
    assert artefact.verify(tmp_path / "out")["kind"] == "espnet-model"
    original = torch.load(GOLDEN / "espnet_tiny/model.pth", weights_only=True)
    written = torch.load(tmp_path / "out/model.pth", weights_only=True)
    assert written.keys() == original.keys() and all(torch.equal(written[k], original[k]) for k in original)
    assert (
        yaml.safe_load((tmp_path / "out/config.yaml").read_text())["token_list"]
        == yaml.safe_load((GOLDEN / "espnet_tiny/config.yaml").read_text())["token_list"]
    )


def test_release_label_order_is_the_files_own(tmp_path, released):
    mids = list(reversed(audioset().mids[:7]))
    released["label_dict"] = dict(enumerate(mids))
    torch.save(released, tmp_path / "x.pt")
    labels = load_checkpoint(tmp_path / "x.pt").labels
    assert labels.mids == tuple(mids) and labels.names[6] == "Speech"


def test_espnet_names_become_mids(tmp_path):
    shutil.copytree(GOLDEN / "espnet_tiny", tmp_path / "m")
    recipe = yaml.safe_load((tmp_path / "m/config.yaml").read_text())
    recipe["token_list"] = [*[name.replace(" ", "_") for name in audioset().names[5:12]], "<blank>", "<unk>"]
    (tmp_path / "m/config.yaml").write_text(yaml.safe_dump(recipe))
    assert load_checkpoint(tmp_path / "m/model.pth").labels.mids == audioset().mids[5:12]
    recipe["token_list"] = recipe["token_list"][1:]
    (tmp_path / "m/config.yaml").write_text(yaml.safe_dump(recipe))
    refused(tmp_path / "m/model.pth", "7 outputs", "6 labels", code="label-mismatch")


def test_openbeats_pretrained_has_helpers_and_its_own_normalisation(tmp_path, released):
    del released["label_dict"], released["model"]["predictor.weight"], released["model"]["predictor.bias"]
    released["cfg"] |= {"fbank_mean": 11.0, "fbank_std": 7.0}
    released["model"] |= {
        "patch_embedding_pad.weight": torch.ones(1, 1, 16, 16),
        "raw2fbank_pad.weight": torch.ones(1, 1, 400),
    }
    torch.save(released, tmp_path / "ob.pt")
    loaded = load_checkpoint(tmp_path / "ob.pt")
    assert loaded.labels is None and loaded.config.fbank_mean == 11.0 and len(loaded.ignored) == 2
    refused(tmp_path / "ob.pt", "no head")


def test_a_model_without_a_head_is_no_tagger_until_it_gets_one(tmp_path, released):
    for part in ("weight", "bias"):
        del released["model"][f"predictor.{part}"]
    torch.save(released, tmp_path / "x.pt")
    loaded = load_checkpoint(tmp_path / "x.pt")
    assert type(loaded) is Loaded and not any(name.startswith("head.") for name in loaded.state)
    with pytest.raises(UserError) as asked:
        load_tagger(tmp_path / "x.pt")
    with pytest.raises(UserError) as built:
        loaded.tagger()
    assert asked.value.code == "bad-checkpoint" and str(asked.value) == str(built.value)
    head = {"weight": torch.ones(3, loaded.config.encoder_embed_dim), "bias": torch.zeros(3)}
    tagger = loaded.with_head(head, LABELS, "single-label")
    assert type(tagger) is LoadedTagger and tagger.labels is LABELS
    assert tagger.tagger().task == "single-label" and torch.equal(tagger.tagger().head.weight, head["weight"])


def test_a_model_with_a_head_is_a_tagger_with_labels():
    for name in ("unilm_finetuned.pt", "espnet_tiny"):
        loaded, tagger = load_checkpoint(GOLDEN / name), load_tagger(GOLDEN / name)
        assert type(loaded) is type(tagger) is LoadedTagger and tagger.labels == loaded.labels
    with pytest.raises(TypeError):
        Loaded(source=GOLDEN, family="", config=loaded.config, state={}, labels=LABELS)
    with pytest.raises(TypeError):
        LoadedTagger(source=GOLDEN, family="", config=loaded.config, state={})


def test_openbeats_finetuned_takes_the_base_models_architecture(tmp_path):
    shutil.copytree(GOLDEN / "espnet_tiny", tmp_path / "m")
    recipe = yaml.safe_load((tmp_path / "m/config.yaml").read_text())
    (tmp_path / "base.yaml").write_text(
        yaml.safe_dump({"encoder_conf": {"beats_config": recipe["encoder_conf"]["beats_config"]}})
    )
    recipe["encoder_conf"]["beats_config"] = None
    recipe["model_conf"]["classification_type"] = "multi-class"
    (tmp_path / "m/config.yaml").write_text(yaml.safe_dump(recipe))
    state = torch.load(tmp_path / "m/model.pth", weights_only=True)
    for part in ("weight", "bias"):
        state[f"classifier.{part}"] = state.pop(f"decoder.linear_out.{part}")
    torch.save(state, tmp_path / "m/model.pth")
    loaded = load_checkpoint(tmp_path / "m", architecture=tmp_path / "base.yaml")
    assert loaded.task == "single-label" and loaded.config.max_distance == 80
    shapes_only = load_checkpoint(
        tmp_path / "m"
    )  # without it: what the shapes show, the rest as in the release
    assert shapes_only.config == dataclasses.replace(
        loaded.config,
        max_distance=800,
        dropout=0.1,
        attention_dropout=0.1,
        encoder_layerdrop=0.05,
        layer_wise_gradient_decay_ratio=1.0,
    )
    assert load_checkpoint(tmp_path / "m").tagger()(torch.zeros(1, 3200)).shape == (1, 7)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda c: c["model"].pop("encoder.layers.1.fc1.bias"), ["encoder.layers.1.fc1.bias is missing"]),
        (lambda c: c["model"].update({"surprise": torch.zeros(1)}), ["surprise"]),
        (lambda c: c["model"].update({"encoder.layers.0.fc2.bias": torch.zeros(5)}), ["fc2.bias", "(5,)"]),
        (lambda c: c["model"]["encoder.layers.0.fc2.bias"].fill_(float("nan")), ["not finite"]),
        (
            lambda c: c["model"].update(
                {"encoder.layers.1.self_attn.relative_attention_bias.weight": torch.zeros(32, 4)}
            ),
            ["differ"],
        ),
        (lambda c: c["cfg"].update(encoder_layers=2), ["2 layers", "3"]),
        (lambda c: c["cfg"].update(encoder_ffn_embed_dim=100), ["fc1"]),
        (lambda c: c["cfg"].update(activation_fn="glu"), ["glu"]),
        (lambda c: c.pop("label_dict"), ["label_dict"]),
        (lambda c: c.update(model={"a": torch.zeros(1)}), ["not a BEATs encoder"]),
        (lambda c: c.update(model=[1]), ["no table of named tensors"]),
    ],
)
def test_a_damaged_release_checkpoint_is_refused(tmp_path, released, damage, words):
    damage(released)
    torch.save(released, tmp_path / "x.pt")
    refused(tmp_path / "x.pt", *words)


def test_files_that_are_no_checkpoint(tmp_path):
    refused(tmp_path / "none.pt", code="missing-file")
    (tmp_path / "empty.pt").touch()
    refused(tmp_path / "empty.pt", code="empty-file")
    (tmp_path / "text.pt").write_text("<html>not found</html>")
    refused(tmp_path / "text.pt")
    cut = (GOLDEN / "unilm_finetuned.pt").read_bytes()[:100_000]
    (tmp_path / "cut.pt").write_bytes(cut)
    refused(tmp_path / "cut.pt", "damaged")
    (tmp_path / "alone.pth").write_bytes((GOLDEN / "espnet_tiny/model.pth").read_bytes())
    refused(tmp_path / "alone.pth", "config.yaml")
    refused(tmp_path, "3 .pt or .pth files") if len(list(tmp_path.glob("*.pt*"))) == 3 else refused(
        tmp_path, "files"
    )
    refused(GOLDEN / "unilm_tokenizer.pt", "tokenizer")
    with pytest.raises(UserError, match="not a tokenizer"):
        load_tokenizer(GOLDEN / "unilm_finetuned.pt")


class Evil:
    """Would run a command when unpickled."""

    def __reduce__(self):
        import os

        return os.system, ("touch /nonexistent/owned",)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    torch.save({"cfg": {}, "model": Evil()}, tmp_path / "evil.pt")
    refused(tmp_path / "evil.pt", "could run code")


def test_every_large_and_base_parameter_has_a_place():
    """The correspondence covers a tagger exactly, whatever the architecture."""
    from beatline.config import EncoderConfig
    from beatline.model.checkpoints.layout import correspondence

    large = EncoderConfig(
        encoder_layers=24, encoder_embed_dim=1024, encoder_ffn_embed_dim=4096, encoder_attention_heads=16
    )
    variants = [
        EncoderConfig(),
        large,
        EncoderConfig(conv_bias=True, gru_rel_pos=False),
        EncoderConfig(relative_position_embedding=False, embed_dim=768),
    ]
    for config in variants:
        with torch.device("meta"):
            names = set(Tagger(config, 3).state_dict())
        assert names == {pair.ours for pair in correspondence(config)} | {"head.weight", "head.bias"}
    with torch.device("meta"):
        assert sum(p.numel() for p in Tagger(EncoderConfig(), 527).parameters()) == 90_717_055


def test_initialisation_is_a_function_of_the_seed_and_fills_everything():
    from beatline.config import EncoderConfig

    config = EncoderConfig(
        embed_dim=24,
        encoder_layers=2,
        encoder_embed_dim=48,
        encoder_ffn_embed_dim=96,
        encoder_attention_heads=4,
        conv_pos=32,
        conv_pos_groups=4,
    )
    states = []
    for seed in (0, 0, 1):
        with torch.device("meta"):
            tagger = Tagger(config, 5)
        tagger.to_empty(device="cpu")
        with torch.no_grad():
            for parameter in tagger.parameters():
                parameter.fill_(float("nan"))
        states.append(initialise_tagger(tagger, torch.Generator().manual_seed(seed)).state_dict())
    assert all(torch.isfinite(t).all() for t in states[0].values())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not torch.equal(states[0]["encoder.layers.0.up.weight"], states[2]["encoder.layers.0.up.weight"])


def test_a_file_that_is_written_over_does_not_change_the_model_that_was_read_from_it(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        save(
            tmp_path / name,
            initialise_tagger(Tagger(make_tagger().config, len(LABELS)), torch.Generator().manual_seed(seed)),
            LABELS,
            {},
        )
    tagger = load_checkpoint(tmp_path / "a").tagger()
    before = {name: tensor.clone() for name, tensor in tagger.state_dict().items()}
    (tmp_path / "a/model.safetensors").write_bytes((tmp_path / "b/model.safetensors").read_bytes())
    assert all(torch.equal(tensor, before[name]) for name, tensor in tagger.state_dict().items())
    (tmp_path / "a/model.safetensors").write_bytes(b"")
    assert all(torch.equal(tensor, before[name]) for name, tensor in tagger.state_dict().items())
