"""Label tables: order, mids, names."""

import pytest

from beatline.core.errors import UserError
from beatline.core.labels import Label, LabelSet, audioset, espnet_token, from_espnet_tokens


def test_audioset_is_the_official_table():
    table = audioset()
    assert (
        len(table) == 527
        and table.labels[0] == Label("/m/09x0r", "Speech")
        and table.labels[1].name == "Male speech, man speaking"
    )
    assert LabelSet.from_csv(table.to_csv()) == table


def test_espnet_tokens_map_to_mids_and_specials_have_no_output():
    labels = from_espnet_tokens(["Music", "Male_speech,_man_speaking", "my_own", "<blank>", "<unk>"])
    assert labels.mids == ("/m/04rlf", "/m/05zppz", "my_own")
    assert len({espnet_token(name) for name in audioset().names}) == 527


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n",
        "index,mid,display_name\n0,/m/1,One\n2,/m/2,Two\n",
        "mid,display_name\n/m/1,\n",
        "mid,display_name\n",
        "mid,display_name\n/m/1,A\n/m/1,B\n",
    ],
)
def test_a_bad_table_is_refused(text):
    with pytest.raises(UserError) as caught:
        LabelSet.from_csv(text)
    assert caught.value.code == "bad-table"


def test_select_and_hash_follow_order():
    two, other = audioset().select([137, 0]), audioset().select([0, 137])
    assert (
        two.mids == ("/m/04rlf", "/m/09x0r")
        and two.names == ("Music", "Speech") == other.names[::-1]
        and two.hash != other.hash
    )
