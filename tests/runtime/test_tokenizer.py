"""The runtime's tokenizer against open_clip's, id by id."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pcaseg.class_lists import class_list, class_list_names
from pcaseg.class_names import prompt_for
from pcaseg.cleaning import clean_text
from pcaseg.errors import BundleError, MissingDependencyError, VocabularyError
from pcaseg.runtime.tokenizer import Tokenizer

open_clip_tokenizer = pytest.importorskip("open_clip.tokenizer")

EDGE_CASES = [
    "",
    "   ",
    "\t\n\u3000\u2028\x1c\x85",
    "<end_of_text>",
    "<START_OF_TEXT> cat",
    "<|endoftext|>",
    "!!<end_of_text>",  # inside a run of punctuation: no special token
    "a<end_of_text><start_of_text>!<end_of_text>",
    "!!<end_of_text><start_of_text>",
    "<&#x17f;tart_of_text>",  # long s, which equals s when case is ignored
    "it's I'LL don't '&#x17f; we've o'dd",
    "&amp;lt;b&amp;gt; &AMP; &copy &notit; &#0; &#xD800;",
    "&#x345; a&#x345;b",  # neither letter nor punctuation to the regular expression
    "Ⅷ ① ² ٣ 12345",
    "ﬁre ＦＵＬＬ ｶﾅ",
    "sch\u00c3\u00b6n â€œquotedâ€\x9d",  # mojibake
    "e\u0301 \u1e9b\u0323 \u0958",
    "👨‍👩‍👧 🇫🇷 ❤️",
    "\ud83d\ude00 \ud800",  # surrogates, paired and alone
    "\x00\x1b[31mred\x7f\x9b",
    "İstanbul ẞ ΣΑΣ",
    "日本語 한국어 العربية हिन्दी ไทย",
    "salt & pepper; R&D",
    "word " * 100,
    "x" * 3000,
    "<end_of_text>" * 80,
]
PIECES = ["<start_of_text>", "<end_of_text>", "'s", "'LL", "&amp;", "&#383;", "&#x345;", "&eacute", " ", "!", "Ã©"]


@pytest.fixture(scope="module")
def tokenizer(tokenizer_bytes: bytes) -> Tokenizer:
    return Tokenizer(tokenizer_bytes)


@pytest.fixture(scope="module")
def reference() -> object:
    return open_clip_tokenizer.SimpleTokenizer()


def assert_equal(tokenizer: Tokenizer, reference: object, texts: Sequence[str]) -> None:
    ids, expected = tokenizer(texts), reference(list(texts)).numpy()  # type: ignore[operator]
    assert ids.dtype == np.int64 and ids.shape == (len(texts), 77)
    wrong = [texts[i] for i in np.flatnonzero((ids != expected).any(axis=1))]
    assert not wrong, [ascii(text) for text in wrong[:5]]


def random_text(rng: random.Random) -> str:
    """Letters of every script, marks, symbols and unassigned code points, mixed with what cleaning reacts to."""
    limits = (0x80, 0x600, 0x3100, 0x20000, 0x110000)
    parts = [
        chr(rng.randrange(rng.choice(limits))) if rng.random() < 0.85 else rng.choice(PIECES)
        for _ in range(rng.randrange(16))
    ]
    return "".join(parts)


@pytest.mark.parametrize("name", class_list_names())
def test_class_lists(tokenizer: Tokenizer, reference: object, name: str) -> None:
    names = class_list(name)
    assert_equal(tokenizer, reference, [prompt_for(n) for n in names])
    assert_equal(tokenizer, reference, names)


@pytest.mark.parametrize("text", EDGE_CASES, ids=range(len(EDGE_CASES)))
def test_edge_cases(tokenizer: Tokenizer, reference: object, text: str) -> None:
    assert_equal(tokenizer, reference, [text, prompt_for(text.replace(",", "") or "x")])


def test_random_texts(tokenizer: Tokenizer, reference: object) -> None:
    rng = random.Random(0)
    assert_equal(tokenizer, reference, [random_text(rng) for _ in range(2000)])


def test_every_assigned_block_of_unicode(tokenizer: Tokenizer, reference: object) -> None:
    codes = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000 and c % 101 == 0]
    assert_equal(tokenizer, reference, [f"a&#x{code:x};{chr(code)}b!{chr(code)}" for code in codes])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(st.text(max_size=40), st.lists(st.sampled_from([*PIECES, "a", "ß"]), max_size=12).map("".join)))
def test_any_text(tokenizer: Tokenizer, reference: object, text: str) -> None:
    assert_equal(tokenizer, reference, [text])


def test_long_text_ends_in_the_end_token(tokenizer: Tokenizer) -> None:
    ids = tokenizer(["cat " * 200, "cat"])
    assert ids[0, 0] == ids[1, 0] == 49406
    assert ids[0, -1] == ids[1, 2] == 49407
    assert (ids[1, 3:] == 0).all()


def test_texts_that_are_cut_are_named(tokenizer: Tokenizer) -> None:
    texts = ["cat", "cat " * 75, "cat " * 76, "\u8349" * 60, "cat " * 74 + "1"]
    ids, cut = tokenizer.encode(texts)
    assert cut == [2, 3]
    np.testing.assert_array_equal(ids, tokenizer(texts))


@pytest.mark.parametrize(("words", "fits"), [(68, True), (69, False), (70, False)])
def test_eager_names_are_not_cut_either(tokenizer: Tokenizer, words: int, fits: bool) -> None:
    from pcaseg.model.text_tower import name_tokens

    name = "cat " * words
    assert tokenizer.encode([prompt_for(name)])[1] == ([] if fits else [0])
    if fits:
        assert name_tokens(["dog", name]).shape == (2, 77)
    else:
        with pytest.raises(VocabularyError, match=r"class 1 .* more than the 77 tokens of a prompt"):
            name_tokens(["dog", name])


def test_no_texts(tokenizer: Tokenizer) -> None:
    assert tokenizer([]).shape == (0, 77)


def test_ftfy_is_imported_only_where_it_may_change_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ftfy", None)
    assert clean_text("  Salt & Pepper\t(R&D) &amp ") == "salt & pepper (r&d) &"
    for text in ("café", "a&lt;b", "cat\r", "\x07"):
        with pytest.raises(MissingDependencyError, match="pip install ftfy") as caught:
            clean_text(text)
        assert repr(text) in str(caught.value)


def test_ftfy_leaves_alone_what_skips_it() -> None:
    ftfy = pytest.importorskip("ftfy")
    rng = random.Random(1)
    plain = [chr(c) for c in range(0x20, 0x7F)] + ["\t", "\n", "&", "&", ";"]
    for _ in range(5000):
        text = "".join(rng.choices(plain, k=rng.randrange(30)))
        if "&" not in text or ";" not in text[text.index("&") :]:
            assert ftfy.fix_text(text) == text


def test_the_file_is_the_same_every_time(tokenizer_bytes: bytes) -> None:
    from pcaseg.export.tokenizer import build_tokenizer

    assert build_tokenizer().to_str().encode() == tokenizer_bytes


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff\xfe", b'{"version": "1.0"}', b"[1, 2]"])
def test_corrupt_file(data: bytes) -> None:
    with pytest.raises(BundleError, match="x/tokenizer.json: not a readable tokenizer"):
        Tokenizer(data, source="x/tokenizer.json")


def test_half_a_file(tokenizer_bytes: bytes) -> None:
    with pytest.raises(BundleError, match="not a readable tokenizer"):
        Tokenizer(tokenizer_bytes[: len(tokenizer_bytes) // 2])


def test_a_foreign_tokenizer_is_refused(tokenizer_bytes: bytes) -> None:
    import tokenizers

    foreign = tokenizers.Tokenizer.from_buffer(tokenizer_bytes)
    foreign.no_padding()
    with pytest.raises(BundleError, match="makes 3 ids, not 77"):
        Tokenizer(foreign.to_str().encode())
