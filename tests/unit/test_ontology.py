"""Words to labels, and parents' scores, on AudioSet's own labels."""

import numpy as np
import pytest

from beatline.core.errors import UserError
from beatline.core.labels import Label, LabelSet, audioset
from beatline.core.ontology import below, families, label_indices, raise_parents


def names(labels, *words):
    return [labels.names[i] for i in label_indices(labels, words)]


def test_names_mids_and_branches():
    labels = audioset()
    assert names(labels, "dog") == names(labels, "DOG") == names(labels, "/m/0bt9lr") == ["Dog"]
    assert (
        names(labels, "Dog/")
        == names(labels, "/m/0bt9lr/")
        == ["Dog", "Bark", "Yip", "Howl", "Bow-wow", "Growling", "Whimper (dog)"]
    )
    assert names(labels, "Speech", "Dog", "dog") == ["Speech", "Dog"]
    assert set(names(labels, "Human sounds")) == {
        label.name for label in labels.labels if label.mid in below("/m/0dgw9r")
    }  # no label itself: only its branch can be meant
    assert names(labels, "Male speech, man speaking") == ["Male speech, man speaking"]


def test_a_small_set_knows_the_branches_above_it_and_names_that_are_shared():
    labels = LabelSet((Label("/m/05tny_", "Bark"), Label("mine/", "My sound/"), Label("other", "BARK")))
    assert names(labels, "Animal") == names(labels, "dog") == ["Bark"]
    assert label_indices(labels, ["bark"]) == [0, 2] and label_indices(labels, ["my sound/"]) == [1]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("Dgo", "did you mean 'Dog'"),
        ("speach", "did you mean 'Speech'"),
        ("qqqqqqqqqq", "label table"),
        ("", "label table"),
        ("/", "label table"),
    ],
)
def test_unknown_words_give_the_nearest(word, said):
    with pytest.raises(UserError, match=said) as caught:
        label_indices(audioset(), ["Speech", word])
    assert caught.value.code == "unknown-label"


def test_what_no_label_can_stand_for_is_neither_found_nor_proposed():
    labels = LabelSet((Label("/m/05tny_", "Bark"),))
    with pytest.raises(UserError, match="neither it nor a kind"):
        label_indices(labels, ["Music"])
    with pytest.raises(UserError, match="did you mean 'Bark'"):
        label_indices(labels, ["Barq"])
    with pytest.raises(UserError) as caught:
        label_indices(labels, ["Musik"])
    assert "Music" not in caught.value.remedy


def test_parents_are_at_least_their_kinds_and_nothing_else_changes():
    labels = audioset()
    scores = np.random.default_rng(0).random((7, 527)).astype(np.float32)
    before = scores.copy()
    raised = raise_parents(scores, families(labels))
    assert np.array_equal(scores, before)
    for i, mid in enumerate(labels.mids):
        kinds = [i] + [labels.index_of_mid[kind] for kind in below(mid) if kind in labels.index_of_mid]
        assert np.array_equal(raised[:, i], before[:, kinds].max(axis=1))
    assert np.array_equal(raise_parents(scores[0], families(labels)), raised[0])


def test_own_labels_have_no_families():
    assert families(LabelSet.from_names(["dog", "bark"])) == ()
