"""Sentences of what models write: first ones, and whole ones; abbreviations end none."""

import pytest
from culteval.optimizers.clca.dialogues.sentences import first_sentence, whole_sentences
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Yes. No? I thi", "Yes. No?"),
        ("Yes, of course", "Yes, of course"),
        ("Wait… what is", "Wait…"),
        ('He said "no." And th', 'He said "no."'),
        ("All is well.", "All is well."),
        ("", ""),
        ("Good evening, Dr. Lee, may I", "Good evening, Dr. Lee, may I"),
        ("Good evening. I look for Mrs. Lee and", "Good evening."),
        ("Good evening. I look for Mr.", "Good evening."),
        ("Ask John F. Kennedy. He may", "Ask John F. Kennedy."),
        ("Hello. It is so in the U.S.", "Hello. It is so in the U.S."),
        ("Hello. We live in Main St.", "Hello. We live in Main St."),
        ("So do I. And th", "So do I."),
    ],
)
def test_sentences_cut_short_are_left_out(text, kept):
    assert whole_sentences(text) == kept


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("\n\n Yes. No. Ma", "Yes."),
        ("", ""),
        ("Emily wants Mrs. Lee to stay.", "Emily wants Mrs. Lee to stay."),
        ("Emily wants to stay. Mrs. Lee does not.", "Emily wants to stay."),
        ("Ann wants St. Mary's to open. And", "Ann wants St. Mary's to open."),
        ("Ann wants J. R. Smith to leave! Now", "Ann wants J. R. Smith to leave!"),
        ("Ann wants quiet\nand more", "Ann wants quiet"),
        ('Ann wants to hear "no." Bob too.', 'Ann wants to hear "no."'),
    ],
)
def test_the_first_sentence_of_a_text(text, first):
    assert first_sentence(text) == first


SHORT = st.sampled_from(["Mr.", "Mrs.", "Ms.", "Dr.", "Prof.", "St.", "A.", "J.", "Z.", "J. R."])
NAME = st.sampled_from(["Lee", "Garcia", "Wang", "Öz"])
MARK = st.sampled_from([".", "!", "?", "…"])


@given(SHORT, NAME, MARK)
def test_an_abbreviation_before_a_name_ends_no_sentence(short, name, mark):
    one, other = f"I look for {short} {name}{mark}", f"Then {short} {name} said so{mark}"
    assert first_sentence(f"{one} {other}") == one
    assert whole_sentences(f"{one} {other}") == f"{one} {other}"
    assert whole_sentences(f"{one} And then {short} {name} wa") == one
    assert whole_sentences(f"And then {short} {name} wa") == f"And then {short} {name} wa"


@given(st.text(max_size=80))
def test_what_is_kept_is_the_beginning(text):
    assert text.startswith(whole_sentences(text)) and text.lstrip().startswith(first_sentence(text))
    assert whole_sentences(whole_sentences(text)) == whole_sentences(text)
