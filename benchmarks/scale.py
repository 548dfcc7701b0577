"""AS-2M on 1, 8 and 64 GPUs, worked out from results.json and a few assumptions; writes the table into
docs/scale.md.

python benchmarks/scale.py [--write]        prints the table; --write puts it between the marks of
                                            docs/scale.md

What was measured here (store, communication, prepare, the arithmetic of a clip) is taken as it was; what was
not (`ASSUMED`: the speed of a GPU, of links and disks, and prices) stands in one place below and is named in
the table. A measured row `gpu_train/speed` replaces the assumed speed.
"""

import json
import sys
from pathlib import Path
from typing import Any

import flops
import harness

from beatline.config import EncoderConfig

CLIPS, STEPS, BATCH = 2_041_789, 50_000, 384
"""Rows of the unbalanced table; steps; clips of one step on all GPUs together."""
BYTES_OF_A_CLIP = 2 * 160_000
EVAL_CLIPS, VALIDATIONS = 20_371, 50
PAGE, MARKS = harness.ROOT / "docs/scale.md", ("<!-- written by benchmarks/scale.py -->", "<!-- end -->")

ASSUMED = {
    # of one GPU training, bf16, full batches; the goal of benchmarks/gpu_train.py, not measured
    "clips_per_s": 1000.0,
    # of one GPU however small its batch: twelve layers' kernels, started one after another
    "least_step_s": 0.012,
    "inference_over_training": 4.0,  # the goals' ratio
    "node_gpus": 8,
    "link_in_a_node_GBps": 300.0,  # bytes each GPU sends while all sum their gradients, NVLink
    "link_of_a_gpu_GBps": 40.0,  # the same between nodes, one 400 Gbit/s card a GPU
    "disk_GBps": 5.0,  # one NVMe disk, reads of 300 kB
    "price_of_a_gpu_hour": 3.0,
}


def parameters(config: EncoderConfig) -> int:
    """Weights of the base model with 527 labels."""
    import torch

    from beatline.model.tagger import Tagger

    with torch.device("meta"):
        return sum(weight.numel() for weight in Tagger(config, 527).parameters())


def column(gpus: int, measured: dict[str, Any], weights: int) -> dict[str, str]:
    """What training takes on so many GPUs."""
    rate, own = measured["clips_per_s"], BATCH / gpus
    compute = max(own / rate, ASSUMED["least_step_s"])
    nodes = -(-gpus // ASSUMED["node_gpus"])
    link = ASSUMED["link_in_a_node_GBps" if nodes == 1 else "link_of_a_gpu_GBps"]
    sent = 4 * weights * 2 * (gpus - 1) / gpus  # a ring sends each gradient twice, less the own part
    talk = sent / (link * 1e9)
    step = compute + talk
    reading = BATCH * BYTES_OF_A_CLIP / step / nodes / 1e9
    validation = VALIDATIONS * EVAL_CLIPS / (rate * ASSUMED["inference_over_training"] * gpus)
    hours = (STEPS * step + validation) / 3600
    return {
        "clips of a step on each GPU": f"{own:g}",
        "step: computing + summing gradients, ms": f"{1000 * compute:.0f} + {1000 * talk:.1f}",
        "share of the step spent on the sum": f"{talk / step:.0%}",
        "gradient bytes each GPU sends in a step, MB": f"{sent / 1e6:.0f}",
        "read from the store, GB/s on each node": f"{reading:.2f}",
        "cores for that, of each node": f"{reading * 1e9 / BYTES_OF_A_CLIP / measured['reading']:.1f}",
        "disks for that, of each node (store not in memory)": f"{reading / ASSUMED['disk_GBps']:.1f}",
        f"wall clock of {STEPS} steps with {VALIDATIONS} validations, hours": f"{hours:.2f}",
        "GPU hours": f"{hours * gpus:.1f}",
        f"cost at {ASSUMED['price_of_a_gpu_hour']:g} a GPU "
        f"hour": f"{hours * gpus * ASSUMED['price_of_a_gpu_hour']:.0f}",
        "a step's cost of scaling (GPU hours over one GPU's)": "",
    } | {"_gpu_hours": str(hours * gpus)}


def table() -> str:
    """The page's table and what it was worked out from."""
    rows = json.loads((harness.HERE / "results.json").read_text())
    config = EncoderConfig()
    weights = parameters(config)
    operations = flops.operations(config, 1, 10.0, training=True)
    seen = "gpu_train/speed" in rows
    measured = {
        "clips_per_s": rows["gpu_train/speed"]["value"] if seen else ASSUMED["clips_per_s"],
        "reading": rows["store/reading"]["value"],
    }
    columns = [column(gpus, measured, weights) for gpus in (1, 8, 64)]
    for one in columns:
        one["a step's cost of scaling (GPU hours over one GPU's)"] = (
            f"{float(one['_gpu_hours']) / float(columns[0]['_gpu_hours']):.2f}"
        )
    lines = ["| | 1 GPU | 8 GPUs, one node | 64 GPUs, eight nodes |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {' | '.join(one[name] for one in columns)} |"
        for name in columns[0]
        if not name.startswith("_")
    ]
    prepare = rows["prepare/of-bare-2"]["facts"]["prepare_clips_a_second"] / 2
    share = rows["communication/share"]
    lines += [
        "",
        f"- Speed of one GPU: {measured['clips_per_s']:.0f} clips/s, "
        f"{'measured (`gpu_train/speed`)' if seen else '**assumed**: the goal, no GPU was at hand'}; "
        f"{operations / 1e9:.0f} GFLOP a clip and step make that "
        f"{measured['clips_per_s'] * operations / 1e12:.0f} TFLOP/s.",
        f"- Weights: {weights / 1e6:.1f} million, {4 * weights / 1e6:.0f} MB of gradients; a checkpoint "
        f"with the optimiser's state {12 * weights / 1e9:.2f} GB.",
        f"- Store: {CLIPS} clips of 10 s are {CLIPS * BYTES_OF_A_CLIP / 1e9:.0f} GB; reading measured "
        f"{measured['reading']:.0f} clips/s a core (`store/reading`), opening "
        f"{rows['store/open']['value']:.1f} s and {rows['store/open-memory']['value']:.0f} MB a process "
        f"(`store/open`).",
        f"- Preparing it: measured {prepare:.0f} clips/s a core of FLAC at 48 kHz, MP3 and WAV in equal "
        f"parts (`prepare/of-bare-2`), so {CLIPS / prepare / 3600:.0f} core hours, "
        f"{CLIPS / prepare / 3600 / 64:.1f} hours on 64 cores with `--engine ray`.",
        f"- Two processes on this machine's CPU spent {share['value']:.1%} of a step on the sum of "
        f"gradients (`communication/share`).",
        f"- Assumed links: {ASSUMED['link_in_a_node_GBps']:g} GB/s in a node, "
        f"{ASSUMED['link_of_a_gpu_GBps']:g} GB/s a GPU between nodes; a disk gives {ASSUMED['disk_GBps']:g} "
        f"GB/s; no step takes less than {1000 * ASSUMED['least_step_s']:g} ms; inference is "
        f"{ASSUMED['inference_over_training']:g} times as fast as training.",
    ]
    return "\n".join(lines)


def page(text: str) -> str:
    """`text` with the table between its marks."""
    before, rest = text.split(MARKS[0])
    return before + MARKS[0] + "\n\n" + table() + "\n\n" + MARKS[1] + rest.split(MARKS[1])[1]


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(page(PAGE.read_text()))
    print(table())
    assert Path(PAGE).exists()
