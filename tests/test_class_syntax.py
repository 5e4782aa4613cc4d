"""Synonyms and parts as users write them, and what is read as it always was."""

from __future__ import annotations

import pytest

from pcaseg.class_lists import class_list, class_list_names
from pcaseg.class_syntax import ClassTree, has_syntax, read_classes, split_classes
from pcaseg.errors import VocabularyError


@pytest.mark.parametrize(
    ("entries", "names", "synonyms", "objects"),
    [
        (["car", "sky"], ("car", "sky"), (("car",), ("sky",)), (0, 1)),
        (["tv; television"], ("tv; television",), (("tv", "television"),), (0,)),
        (["tv monitor, television"], ("tv monitor, television",), (("tv monitor, television",),), (0,)),
        (["tv, set; telly;"], ("tv, set; telly;",), (("tv, set", "telly"),), (0,)),
        (
            ["car: wheel, window", "sky", "house: roof"],
            ("car", "car wheel", "car window", "sky", "house", "house roof"),
            (("car",), ("car wheel",), ("car window",), ("sky",), ("house",), ("house roof",)),
            (0, 0, 0, 3, 4, 4),
        ),
        (
            ["car; automobile: wheel; tyre, window"],
            ("car; automobile", "car wheel; car tyre", "car window"),
            (("car", "automobile"), ("car wheel", "car tyre"), ("car window",)),
            (0, 0, 0),
        ),
        (["16:9 screen", "a:b", "end:", ": x"], ("16:9 screen", "a:b", "end:", ": x"), None, (0, 1, 2, 3)),
    ],
    ids=lambda value: str(value)[:30],
)
def test_entries(entries, names, synonyms, objects):
    tree = read_classes(entries)
    assert (tree.names, tree.objects) == (names, objects)
    assert tree.synonyms == (synonyms or tuple((name,) for name in names))


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("cat, grass", ["cat", "grass"]),
        ("cat", ["cat"]),
        ("cat; tv monitor, television", ["cat", "tv monitor, television"]),
        ("car: wheel, window; house: roof", ["car: wheel, window", "house: roof"]),
        ("car: wheel, window", ["car: wheel, window"]),
        ("16:9 screen, sky", ["16:9 screen", "sky"]),
    ],
)
def test_one_string(text, entries):
    assert split_classes(text) == entries


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["sky, car: wheel"], "has a comma before its parts"),
        (["car: wheel,, window"], "blank part"),
        (["car: wheel, "], "blank part"),
        (["car: wheel: rim"], "parts of a part"),
        (["car: wheel", "car wheel"], "are one to the text tower"),
        (["car: wheel, wheel"], "are one to the text tower"),
        (["tv; television", "television"], "'television' stands in 'tv; television' and again in 'television'"),
        (["television", "tv; television"], "stands in 'television' and again in 'tv; television'"),
        (["tv; tv"], "stands in 'tv; tv' and again"),
        (["car; car wheel: wheel"], "stands in"),
        ([], "no class names"),
    ],
)
def test_entries_that_are_refused(entries, message):
    with pytest.raises(VocabularyError, match=message) as found:
        read_classes(entries, source="names.txt")
    assert str(found.value).startswith("names.txt: ")


@pytest.mark.parametrize("name", class_list_names())
def test_published_lists_are_read_as_they_are(name):
    assert read_classes(class_list(name)) == ClassTree.plain(class_list(name))


def test_plain_names_keep_their_marks():
    assert ClassTree.plain(["car: wheel", "tv; set"]).names == ("car: wheel", "tv; set")
    assert [has_syntax(text) for text in ("ade20k_150", "C:/names", "car: wheel", "cat; dog")] == [
        False,
        False,
        True,
        True,
    ]
