"""metrics -> report: a folder that a person reads, the last arrow of the straight line.

In: figures, scores with targets, the training log, the configuration and what became of the data. Out:
`RESULTS.md` in the recipe's form, `labels.csv` and `report.html`, which `report_page` makes. Nothing is
scored here.
"""

import platform
import subprocess
import sys
from datetime import datetime
from importlib import metadata
from pathlib import Path

import torch

from beatline.core import artefact
from beatline.core.html import markdown_cell, number
from beatline.data import leaks
from beatline.evaluate import metrics
from beatline.evaluate.report_page import HEADLINES, ReportInputs, page


def environment() -> dict[str, str]:
    """Date, versions, git hash and platform of this run, by name."""
    return {
        "date": datetime.now().astimezone().strftime("%a %b %d %H:%M:%S %Z %Y"),
        "python version": sys.version.replace("\n", " "),
        "beatline version": metadata.version("beatline"),
        "pytorch version": torch.__version__,
        "git hash": git_hash(Path(__file__).parent),
        "platform": platform.platform(),
    }


def git_hash(folder: Path) -> str:
    """The commit that holds `folder`, with `-dirty` where files were changed since, or `not a git
    checkout`.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        # a package installed into a repository's .venv is not that repository's code: git must track it
        return (
            git("ls-files", "--", ".")
            and git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
        ) or "not a git checkout"
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout"


def write(folder: Path, inputs: ReportInputs) -> Path:
    """The path of the page. Publishes the report: a folder with `RESULTS.md`, `labels.csv`, `report.html`.

    Raises:
        UserError: `disk-full`, `not-writable`; `corrupt-artefact` where a clip's audio cannot be read.
    """
    per_label = metrics.label_table(inputs.figures, inputs.predictions.labels, inputs.train_positives)
    contents = {"RESULTS.md": results_md(inputs), "labels.csv": per_label, "report.html": page(inputs)}
    with artefact.publish(folder, {"kind": "report", **inputs.about}) as partial:
        for name, content in contents.items():
            # an id made of an undecodable file name has lone surrogates, which UTF-8 cannot hold
            (partial / name).write_bytes(content.encode("utf-8", "backslashreplace"))
    return folder / "report.html"


# --- the text files


def results_md(inputs: ReportInputs) -> str:
    """The results in the recipe's form: environment, the recipe's table, then what it leaves out."""
    f = inputs.figures

    def interval(name: str, scale: float) -> str:
        return " to ".join(number(v, 2, scale) for v in f.intervals[name]) if name in f.intervals else "–"

    lines = [
        "# RESULTS",
        "## Environments",
        *(f"- {markdown_cell(name)}: `{markdown_cell(value)}`" for name, value in inputs.environment.items()),
        "",
    ]
    lines += [
        f"## {markdown_cell(inputs.title)}",
        "|Split|mean_acc|mAP|mean_auc|n_labels|n_instances|",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"|test|{number(f.mean_acc, 2, 100)}|{number(f.mAP, 2, 100)}|{number(f.mean_auc, 2, 100)}|"
        f"{f.n_labels}|{f.n_instances}|",
        "",
    ]
    lines += ["|Figure|Value|95 % interval|", "|---|---|---|"]
    lines += [
        f"|{name}|{number(getattr(f, name), 2, scale)}|{interval(name, scale)}|"
        for name, (_, scale, _) in HEADLINES.items()
    ]
    lines += [f"|chance (mAP)|{number(f.chance, 2, 100)}|–|"]
    lines += [
        f"|{markdown_cell(name)} (mAP)|{number(value, 2, 100)}|–|" for name, value in inputs.baseline.items()
    ]
    lines += ["", "|Fact|Value|", "|---|---|", f"|labels scored|{f.n_labels_scored} of {f.n_labels}|"]
    lines += [
        f"|mAP by the reference's convention (AP 0 without a positive)|{number(f.mAP_reference, 2, 100)}|"
    ]
    lines += [
        f"|mean_auc by the reference's convention (AUC 0 without a "
        f"positive)|{number(f.mean_auc_reference, 2, 100)}|"
    ]
    lines += [
        f"|clip list|{f.n_instances} clips, SHA-256 `{f.clips_hash}`|",
        f"|validation|{markdown_cell(inputs.validation_rule)}|",
        *(f"|leak|{markdown_cell(line)}|" for line in leaks.lines(inputs.data_summary.get("leaks", {}))),
        "",
    ]
    lines += [
        "Intervals: bootstrap over clips. A label without a positive clip has no AP and no AUC and is left "
        "out of the means, unless the line says otherwise."
    ]
    return "\n".join(lines) + "\n"
