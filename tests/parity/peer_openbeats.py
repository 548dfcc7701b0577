"""The openbeats package's own numbers. Run by the peers' Python (`peers.sh`), never imported; knows nothing
of beatline.

    peer_openbeats.py new CHECKPOINT [--labels N] [--seed S] [--cfg JSON]    random weights in the BEATs
        release's layout; JSON changes its cfg
    peer_openbeats.py score CHECKPOINT IN.npz OUT.npz                        filter bank, tokens, padding and
        logits
    peer_openbeats.py double CHECKPOINT IN.npz OUT.npz                       the same without logits, all in
        float64
    peer_openbeats.py fbank IN.npz OUT.npz                                   raw log-mel energies of
        torchaudio's Kaldi filter bank

Several commands with `+` between them run in one process, which saves the imports.

IN.npz: `waveforms` (batch, samples) float32, zero after each clip's end; `lengths` (batch,) int64. OUT.npz of
`score`: `fbank` (batch, frames, 128) normalised, `tokens` (batch, tokens, width) and `is_padding` (batch,
tokens) of the padded batch; for clip i alone `tokens_alone_i` (tokens, width); where the checkpoint has a
head, `logits_alone` and `scores_alone` (batch, labels). OUT.npz of `fbank`: `log_mel` (batch, frames, 128).
"""

import argparse
import json
import sys
from itertools import groupby

import numpy as np
import torch
from openbeats.beats_encoder import BeatsEncoder, beats_frontend
from openbeats.model import OpenBeats
from openbeats.utils import build_classifier

BASE = {  # what the released iter3 checkpoints state
    "input_patch_size": 16,
    "embed_dim": 512,
    "conv_bias": False,
    "encoder_layers": 12,
    "encoder_embed_dim": 768,
    "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12,
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "deep_norm": True,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "dropout_input": 0.0,
    "encoder_layerdrop": 0.0,
    "layer_wise_gradient_decay_ratio": 1.0,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "relative_position_embedding": True,
    "num_buckets": 320,
    "max_distance": 800,
    "gru_rel_pos": True,
}


@torch.no_grad()
def new(checkpoint: str, labels: int, seed: int, changes: dict) -> None:
    """Writes an encoder as openbeats initialises it, then moved off that start.

    At the start every bias is 0, every scale 1 and the position table next to 0: a reader that mixed them up
    would go unseen.
    """
    torch.manual_seed(seed)
    cfg = {
        name: value for name, value in (BASE | changes).items() if value is not None
    }  # null leaves a key out
    encoder = BeatsEncoder(input_size=0, beats_config=cfg)
    for name, parameter in encoder.named_parameters():
        if name.endswith("relative_attention_bias.weight"):
            parameter.normal_(0.0, 0.5)
        elif parameter.dim() == 1 or name.endswith(("grep_a", "weight_g")):
            parameter.mul_(1 + 0.1 * torch.randn_like(parameter)).add_(
                0.1 * torch.randn_like(parameter) * (parameter.dim() == 1)
            )
    content = {"cfg": cfg, "model": encoder.state_dict()}
    if labels:
        head = torch.nn.Linear(cfg["encoder_embed_dim"], labels)
        content["model"] |= {"predictor.weight": head.weight.data, "predictor.bias": head.bias.data}
        content["cfg"] |= {"finetuned_model": True, "predictor_class": labels}
        content["label_dict"] = {i: f"/m/{i:03d}" for i in range(labels)}
    torch.save(content, checkpoint)


def load(checkpoint: str) -> OpenBeats:
    """The package's model. It takes the release's `predictor` for no head, so the head goes in under a name
    that it knows.
    """
    model = OpenBeats.from_pretrained(checkpoint)
    content = torch.load(checkpoint, weights_only=True)
    expected = {name for name in content["model"] if not name.startswith("predictor.")}
    assert expected <= set(model.encoder.state_dict()), "openbeats left tensors of the checkpoint out"
    if "predictor.weight" in content["model"]:
        head = {f"classifier.{part}": content["model"][f"predictor.{part}"] for part in ("weight", "bias")}
        model.classifier, model.multi_label = build_classifier(head, model.encoder.output_size()), True
    return model


@torch.no_grad()
def encode(encoder: BeatsEncoder, waveforms: torch.Tensor, lengths: torch.Tensor) -> dict[str, np.ndarray]:
    """The padded batch, in the encoder's and the waveforms' precision."""
    is_sample_padding = torch.arange(waveforms.shape[1]) >= lengths[:, None]
    fbank = beats_frontend(waveforms, fbank_mean=encoder.fbank_mean, fbank_std=encoder.fbank_std)
    tokens, is_padding, *_ = encoder.extract_features(waveforms[:, :, None], is_sample_padding)
    return {"fbank": fbank.numpy(), "tokens": tokens.numpy(), "is_padding": is_padding.numpy()}


@torch.no_grad()
def score(model: OpenBeats, waveforms: torch.Tensor, lengths: torch.Tensor) -> dict[str, np.ndarray]:
    result = encode(model.encoder, waveforms, lengths)
    alone = [model.encode(waveform[:length]) for waveform, length in zip(waveforms, lengths, strict=True)]
    result |= {f"tokens_alone_{i}": clip["patch_embeddings"] for i, clip in enumerate(alone)}
    if model.classifier is not None:
        result |= {
            f"{ours}_alone": np.stack([clip[theirs] for clip in alone])
            for ours, theirs in (("logits", "logits"), ("scores", "probs"))
        }
    return result


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("new")
    command.add_argument("checkpoint")
    command.add_argument("--labels", type=int, default=0)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--cfg", type=json.loads, default={})
    for name in ("score", "double", "fbank"):
        command = commands.add_parser(name)
        if name != "fbank":
            command.add_argument("checkpoint")
        command.add_argument("input")
        command.add_argument("output")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    if args.command == "new":
        return new(args.checkpoint, args.labels, args.seed, args.cfg)
    arrays = {name: torch.from_numpy(array) for name, array in np.load(args.input).items()}
    waveforms, lengths = arrays["waveforms"], arrays["lengths"]
    if args.command == "score":
        np.savez(args.output, **score(load(args.checkpoint), waveforms, lengths))  # type: ignore[arg-type]
    elif args.command == "double":
        np.savez(args.output, **encode(load(args.checkpoint).encoder.double(), waveforms.double(), lengths))  # type: ignore[arg-type]
    else:
        np.savez(args.output, log_mel=beats_frontend(waveforms, fbank_mean=0.0, fbank_std=0.5).numpy())


if __name__ == "__main__":
    for is_plus, words in groupby(sys.argv[1:], key="+".__eq__):
        if not is_plus:
            run(parse(list(words)))
