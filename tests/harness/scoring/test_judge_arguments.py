"""The arguments of a judge's model, which are stored beside its verdicts: no secret is among them."""

import pytest
from culteval.errors import UsageError
from culteval.harness.scoring.judge import judge_answers


@pytest.mark.parametrize(
    "arguments",
    ["auth_token=sesame", "model=m,header={'Authorization': 'sesame'}", "hf_token=sesame", "base_url=http://me:sesame@h/v1",
     "base_url=https://h/v1?key=sesame"],
)  # fmt: skip
def test_secrets_are_refused(tmp_path, arguments):
    with pytest.raises(UsageError, match=r"--model-args: .*environment") as refused:
        judge_answers(tmp_path, None, {}, "local-completions", arguments)
    assert "sesame" not in str(refused.value) and not list(tmp_path.iterdir())


def test_other_arguments_are_not(tmp_path):
    with pytest.raises(UsageError, match="no open answers"):
        judge_answers(tmp_path, None, {}, "hf", "pretrained=m,add_bos_token=True,think_end_token=</think>")
