"""ESPnet's own numbers. Run by the peers' Python (`peers.sh`), never imported; knows nothing of beatline.

    peer_espnet.py new FOLDER CHECKPOINT [--labels N] [--seed S]     config.yaml and model.pth as the AS-20K
        recipe makes them from CHECKPOINT
    peer_espnet.py score FOLDER IN.npz OUT.npz                       logits and scores of a model folder
    peer_espnet.py train FOLDER IN.npz OUT.npz [--decay D] [--clips N]  losses and gradient norms of training
    steps

Several commands with `+` between them run in one process, which saves the imports. FOLDER holds `config.yaml`
and one `.pth`, in ESPnet's layout with `frontend: null` and `normalize: null`. IN.npz: `waveforms` (batch,
samples) float32, zero after each clip's end; `lengths` (batch,) int64; for `train` also `targets` (batch,
labels) and `train_lr` (steps,). OUT.npz of `score`: `logits` of the padded batch, `scores_alone` of each clip
alone as its inference program makes them, both (batch, labels). OUT.npz of `train`: `loss` and `grad_norm`
(before clipping) (steps,), `logits_after` (batch, labels), `parameter_names`, `first_step_grad_norms`. Each
step is one padded batch of N clips, the data in order and over again; BCE, AdamW (0.01, (0.9, 0.98)),
gradient norm clipped at 1.
"""

import argparse
import sys
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
import yaml
from espnet2.asr.encoder import beats_encoder
from espnet2.cls.decoder.linear_decoder import LinearDecoder
from espnet2.cls.espnet_model import ESPnetClassificationModel
from espnet2.torch_utils.initialize import initialize


def build(config: dict) -> ESPnetClassificationModel:
    """ESPnet's classification model of a config.yaml, as its task builds it (the task itself needs a dozen
    packages more).
    """
    assert (config["encoder"], config["decoder"], config["model"]) == ("beats", "linear", "espnet")
    absent = ("frontend", "specaug", "normalize", "preencoder")
    assert all(config[part] is None for part in absent), "only the parts of the AS-20K recipe"
    labels = len(config["token_list"]) - 1  # without <unk>
    encoder = beats_encoder.BeatsEncoder(input_size=config["input_size"], **config["encoder_conf"])
    decoder = LinearDecoder(labels, encoder_output_size=encoder.output_size(), **config["decoder_conf"])
    parts = {"encoder": encoder, "decoder": decoder} | dict.fromkeys(absent)
    return ESPnetClassificationModel(
        vocab_size=labels, token_list=config["token_list"], **parts, **config["model_conf"]
    )


def load(folder: Path) -> ESPnetClassificationModel:
    """The model of a folder, every tensor of the file used and every parameter filled."""
    (file,) = folder.glob("*.pth")
    model = build(yaml.safe_load((folder / "config.yaml").read_text()))
    model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True), strict=True)
    return model.eval()


def new(folder: Path, checkpoint: Path, labels: int, seed: int) -> None:
    """Writes what fine-tuning `checkpoint` starts from. The architecture stays in the checkpoint,
    `beats_config` holds the recipe's changes alone.
    """
    torch.manual_seed(seed)
    config = {
        "token_list": [f"label_{i}" for i in range(labels)] + ["<unk>"],
        "token_type": "word",
        "init": "xavier_normal",
        "input_size": 1,
        **dict.fromkeys(("frontend", "specaug", "normalize", "preencoder")),
        "encoder": "beats",
        "encoder_conf": {
            "beats_ckpt_path": str(checkpoint),
            "beats_config": {
                "layer_wise_gradient_decay_ratio": 0.3,
                "encoder_layerdrop": 0.0,
                "dropout": 0.0,
            },
            "use_weighted_representation": False,
            "roll_augment": False,
            "roll_interval": 16000,
        },
        "decoder": "linear",
        "decoder_conf": {},
        "model": "espnet",
        "model_conf": {"classification_type": "multi-label", "mixup_probability": 0.0, "lsm_weight": 0.0},
    }
    model = build(config)
    initialize(model, config["init"])
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    torch.save(model.state_dict(), folder / "model.pth")


def logits_of(
    model: ESPnetClassificationModel, waveforms: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    return model.decoder(*model.encode(waveforms, lengths))


@torch.no_grad()
def score(
    model: ESPnetClassificationModel, waveforms: torch.Tensor, lengths: torch.Tensor
) -> dict[str, np.ndarray]:
    alone = [
        model.score(waveform[None, :length]) for waveform, length in zip(waveforms, lengths, strict=True)
    ]
    return {"logits": logits_of(model, waveforms, lengths).numpy(), "scores_alone": torch.cat(alone).numpy()}


class ScaleGradient(torch.autograd.Function):
    """The decay that ESPnet means: its own function gets (tokens, ratio) as one tuple, in which autograd sees
    no tensor.
    """

    @staticmethod
    def forward(ctx, tokens, ratio):
        ctx.ratio = ratio
        return tokens.view_as(tokens)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.ratio, None


class ReleaseDecay:
    """Stands in for ESPnet's `GradMultiply`."""

    @staticmethod
    def apply(pair):
        return ScaleGradient.apply(*pair)


def train(
    model: ESPnetClassificationModel, arrays: dict[str, torch.Tensor], decay: str, clips: int
) -> dict[str, np.ndarray]:
    if decay == "none":
        model.encoder.encoder.layer_wise_gradient_decay_ratio = 1.0
    elif decay == "release":
        beats_encoder.GradMultiply = ReleaseDecay
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.01, betas=(0.9, 0.98))
    losses, norms, first = [], [], None
    batches = len(arrays["waveforms"]) // clips
    for step, lr in enumerate(arrays["train_lr"].tolist()):
        rows = slice(clips * (step % batches), clips * (step % batches) + clips)
        logits = logits_of(model.train(), arrays["waveforms"][rows], arrays["lengths"][rows])
        loss = model.classification_loss(logits, arrays["targets"][rows])
        optimiser.zero_grad()
        loss.backward()
        if first is None:
            first = [0.0 if p.grad is None else float(p.grad.norm()) for p in model.parameters()]
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)))
        optimiser.param_groups[0]["lr"] = lr
        optimiser.step()
        losses.append(float(loss.detach()))
    with torch.no_grad():
        after = logits_of(model.eval(), arrays["waveforms"], arrays["lengths"])
    names = [name for name, _ in model.named_parameters()]
    return {
        "loss": np.array(losses),
        "grad_norm": np.array(norms),
        "logits_after": after.numpy(),
        "parameter_names": np.array(names),
        "first_step_grad_norms": np.array(first),
    }


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("new")
    command.add_argument("folder", type=Path)
    command.add_argument("checkpoint", type=Path)
    command.add_argument("--labels", type=int, default=527)
    command.add_argument("--seed", type=int, default=0)
    for name in ("score", "train"):
        command = commands.add_parser(name)
        command.add_argument("folder", type=Path)
        command.add_argument("input")
        command.add_argument("output")
        if name == "train":
            command.add_argument("--decay", choices=("none", "release", "espnet-cut"), default="espnet-cut")
            command.add_argument("--clips", type=int, default=4)
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    if args.command == "new":
        return new(args.folder, args.checkpoint, args.labels, args.seed)
    arrays = {
        name: torch.from_numpy(array)
        for name, array in np.load(args.input).items()
        if array.dtype.kind in "fi"
    }
    model = load(args.folder)
    if args.command == "score":
        np.savez(args.output, **score(model, arrays["waveforms"], arrays["lengths"]))  # type: ignore[arg-type]
    else:
        np.savez(args.output, **train(model, arrays, args.decay, args.clips))  # type: ignore[arg-type]


if __name__ == "__main__":
    for is_plus, words in groupby(sys.argv[1:], key="+".__eq__):
        if not is_plus:
            run(parse(list(words)))
