"""What training cannot use is refused before anything is prepared."""

import pytest
import torch

import beatline
from beatline.core.errors import UserError


@pytest.mark.parametrize(
    "option, named",
    [
        ("--train.objective=clip", "did you mean clips?"),
        ("--augment.order=[mixup, gian]", "did you mean gain?"),
        ("--model.head=liner", "did you mean linear?"),
        ("--optim.rates={heads: 2}", "head"),
        ("--train.device=cuda", "no GPU"),
    ],
)
def test_run_refuses_it_before_prepare(tmp_path, option, named):
    if "cuda" in option and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    config = beatline.load_config("mini", (f"--out={tmp_path / 'run'}", option))
    with pytest.raises(UserError, match="bad-config") as refused:
        beatline.run(config)
    assert named in str(refused.value)
    assert not (tmp_path / "run").exists()
