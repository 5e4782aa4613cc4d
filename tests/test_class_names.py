"""Class names as the text tower reads them, and the files that they come from."""

from __future__ import annotations

import html
from pathlib import Path

import pytest

from pcaseg.class_lists import class_list, class_list_names
from pcaseg.class_names import MAX_NAME_CHARACTERS, check_class_names, first_synonym, prompt_for, read_class_names
from pcaseg.cleaning import invisible_character, reading
from pcaseg.errors import PcasegError, VocabularyError
from pcaseg.text_files import read_lines

UNSEEN = [0x00, 0x09, 0x7F, 0x85, 0xAD, 0x34F, 0x61C, 0x115F, 0x180E, 0x200B, 0x200C, 0x200D, 0x200E, 0x2028, 0x202E]
UNSEEN += [0x2060, 0x2064, 0x2066, 0x2800, 0x3164, 0xFE00, 0xFE0F, 0xFEFF, 0xFFA0, 0xFFF9, 0xE0041, 0xE0100]
UNSEEN += [0xFDD0, 0xFFFE]

SEEN = {
    "Persian": "می‌شود",
    "Hindi": "क्‍ष",
    "half form": "क्‍",
    "Bengali": "র‍্যাব",
    "Sinhala": "ශ්‍රී",
    "Mongolian": "ᠠ᠋ᠨ",
    "Arabic number sign": "\u0600١",
    "family": "👨‍👩‍👧",
    "firefighter": "👩🏽‍🚒",
    "heart": "❤️ sign",
    "keycap": "1️⃣",
    "sign of information": "\u2139\ufe0f",
    "two exclamation marks": "\u203c\ufe0f hot",
    "wavy dash": "\u3030\ufe0f",
    "England": "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "accents": "cafe\u0301 naïve",
    "no-break space": "red\u00a0car",
    "entity": "salt &amp; pepper",
}

ALIKE = [
    ("red  car", "red car"),
    (" sky ", "sky"),
    ("red\u00a0car", "red car"),
    ("red\u3000car", "Red\u2009Car"),
    ("caf\u00e9", "cafe\u0301"),
    ("\u212b", "\u00e5"),
    ("\ufb01re", "fire"),
    ("\uff26ull", "full"),
    ("salt &amp; pepper", "Salt & Pepper"),
    ("salt &amp;amp; pepper", "salt & pepper"),
    ("sky&nbsp;", "sky"),
    ("driver\u2019s seat", "driver's seat"),
    ("sch\u00c3\u00b6n", "sch\u00f6n"),
    ("sky-blue", "sky - blue"),
    ("3d printer", "3 d printer"),
    ("12", "1 2"),
    ("cat, feline", "cat, kitty"),
]
APART = [("redcar", "red car"), ("cat", "cats"), ("e", "\u00e9"), ("a-b", "a b"), ("!!", "! !"), ("x, cat", "cat")]


@pytest.mark.parametrize("code", UNSEEN, ids=hex)
def test_invisible_characters_are_refused(code: int) -> None:
    names = [f"sky{chr(code)}", f"s{chr(code)}ky", f"{chr(code)}sky", f"空{chr(code)}間", f"cat, s{chr(code)}ky"]
    if html.unescape(f"&#{code};") == chr(code):
        names.append(f"sky&#{code};")
    for name in names:
        with pytest.raises(VocabularyError, match=rf"class 1 .* invisible character U\+{code:04X} \(.*remove it"):
            check_class_names(["grass", name])


@pytest.mark.parametrize("name", SEEN.values(), ids=SEEN.keys())
def test_joiners_that_are_needed_are_kept(name: str) -> None:
    assert invisible_character(name) is None
    assert check_class_names([name, "grass"]) == (name, "grass")


@pytest.mark.parametrize(("first", "second"), ALIKE)
def test_names_that_the_tower_reads_alike_are_refused(first: str, second: str) -> None:
    with pytest.raises(VocabularyError, match=r"class 0 \(.*\) and class 2 \(.*\) are one to the text tower; keep one"):
        check_class_names([first, "grass", second])


def test_spellings_that_look_alike_are_told_apart() -> None:
    with pytest.raises(VocabularyError, match=r"'caf\\xe9'|'cafe\\u0301'"):
        check_class_names(["caf\u00e9", "cafe\u0301"])


@pytest.mark.parametrize(("first", "second"), APART)
def test_names_that_the_tower_tells_apart_stay(first: str, second: str) -> None:
    assert check_class_names([first, second]) == (first, second)


def test_readings_are_equal_where_the_tokens_are() -> None:
    tokenize = pytest.importorskip("open_clip.tokenizer").tokenize
    for first, second in ALIKE + APART:
        prompts = [prompt_for(first), prompt_for(second)]
        same = bool((tokenize(prompts[0]) == tokenize(prompts[1])).all())
        assert same == (reading(prompts[0]) == reading(prompts[1])), prompts


@pytest.mark.parametrize("name", class_list_names())
def test_published_lists_pass(name: str) -> None:
    assert check_class_names(class_list(name)) == class_list(name)


def test_published_pairs_are_exempt_in_other_lists() -> None:
    pair = [name for name in class_list("ade20k_847") if first_synonym(name) == "screen"]
    assert len(pair) == 2 and check_class_names(pair) == tuple(pair)
    with pytest.raises(VocabularyError, match="one to the text tower"):
        check_class_names([*pair, "screen, display"])


def test_limits_are_found_at_once() -> None:
    assert len(check_class_names([f"n{i:05}" for i in range(65535)])) == 65535
    for count in (65536, 70000):
        with pytest.raises(VocabularyError, match=f"{count} classes do not fit 16-bit labels; give at most 65535"):
            check_class_names(["same"] * count)
    with pytest.raises(VocabularyError, match="501 characters"):
        check_class_names(["x" * (MAX_NAME_CHARACTERS + 1)])
    for blank in ("", " ", "\u3000", "&nbsp;", ", cat"):
        with pytest.raises(VocabularyError, match="class 1 is blank"):
            check_class_names(["cat", blank])


THREE = ("sky", "tv monitor, television", "3d printer")
PLAIN = "sky\ntv monitor, television\n3d printer\n"

FILES = {
    "plain": PLAIN,
    "no last line end": PLAIN.rstrip(),
    "UTF-8 mark": PLAIN.encode("utf-8-sig"),
    "UTF-16": PLAIN.encode("utf-16"),
    "UTF-16 big": b"\xfe\xff" + PLAIN.encode("utf-16-be"),
    "UTF-32": PLAIN.encode("utf-32"),
    "CRLF": PLAIN.replace("\n", "\r\n"),
    "CR": PLAIN.replace("\n", "\r"),
    "blank lines": "\n \n" + PLAIN.replace("\n", " \n\n\t"),
    "comments": "# my list\n" + PLAIN.replace("\n3d", "\n  # more\n3d") + "#end",
    "colons": "0: sky\n1: tv monitor, television\n2: 3d printer",
    "from one": "1:sky\n2:tv monitor, television\n3:3d printer",
    "commas": "0,sky\n1,tv monitor, television\n2,3d printer",
    "tabs": "0\tsky\n1\ttv monitor, television\n2\t3d printer",
    "semicolons": "0; sky\n1; tv monitor, television\n2; 3d printer",
    "trailing commas": PLAIN.replace("\n", ",\n"),
    "trailing commas behind ids": "0,sky,\n1,tv monitor, television,\n2,3d printer,,",
    "quoted": '"sky"\n"tv monitor, television"\n"3d printer"',
    "quoted CSV": 'id,name\n0,sky\n1,"tv monitor, television"\n2,"3d printer"',
    "quoted ids": '"id","name"\n"0","sky"\n"1","tv monitor, television"\n"2","3d printer"',
    "quotes behind ids": '0,sky\n1,"tv monitor, television"\n2,"3d printer"',
    "unquoted CSV": "ID, Name\n0, sky\n1, tv monitor, television\n2, 3d printer",
    "TSV": "index\tclass\n0\tsky\n1\ttv monitor, television\n2\t3d printer",
    "names first": 'name,id\nsky,0\n"tv monitor, television",1\n3d printer,2',
    "colours": 'id,name,r,g,b\n0,sky,1,2,3\n1,"tv monitor, television",4,5,6\n2,3d printer,7,8,9',
    "ratios": "Idx\tRatio\tName\n1\t0.2\tsky\n2\t0.1\ttv monitor, television\n3\t0\t3d printer",
    "spaces": "0 sky\n1 tv monitor, television\n2 3d printer",
    "full stops": "1. sky\n2. tv monitor, television\n3. 3d printer",
    "brackets": "0) sky\n1) tv monitor, television\n2) 3d printer",
    "JSON list": '["sky", "tv monitor, television",\n "3d printer"]',
    "JSON object": '{"0": "sky", "1": "tv monitor, television", "2": "3d printer"}',
    "JSON in UTF-16": '["sky", "tv monitor, television", "3d printer"]'.encode("utf-16"),
    "brackets on both sides": "(0) sky\n(1) tv monitor, television\n(2) 3d printer",
    "arrows": "0->sky\n1 => tv monitor, television\n2 -> 3d printer",
    "wide signs": "\uff10\uff1asky\n\uff11\uff1atv monitor, television\n\uff12\uff1a3d printer",
    "wide commas": "0\uff0csky\n1\uff0ctv monitor, television\n2\uff0c3d printer",
    "Excel's mark": "sep=;\nid;name\n0;sky\n1;tv monitor, television\n2;3d printer",
    "synonyms of ADE20K": "Idx,Ratio,Stuff,Name\n1,0.2,1,sky\n2,0.1,0,tv monitor;television\n3,0,0,3d printer",
    "other headers": 'category_id,category_name\n0,sky\n1,"tv monitor, television"\n2,3d printer',
    "values of pixels": 'Value,Class\n0,sky\n1,"tv monitor, television"\n2,3d printer',
    "ids in one word": 'trainId,name\n0,sky\n1,"tv monitor, television"\n2,3d printer',
    "one column": 'name\nsky\n"tv monitor, television"\n3d printer',
}


@pytest.mark.parametrize("case", FILES)
def test_files_of_other_tools(tmp_path: Path, case: str) -> None:
    path, data = tmp_path / "names.txt", FILES[case]
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    assert read_class_names(path) == THREE


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("3d printer\n747, plane\nsky", ("3d printer", "747, plane", "sky")),
        ("747, plane\nsky", ("747, plane", "sky")),
        ('"# 1 fan"\n"#2"\nC# book', ("# 1 fan", "#2", "C# book")),
        ("2 wheeler\n3 wheeler", ("2 wheeler", "3 wheeler")),
        ("7 up\n4:3 monitor\n3 piece suit", ("7 up", "4:3 monitor", "3 piece suit")),
        ('12" record\ncat', ('12" record', "cat")),
        ("label\nclass", ("label", "class")),
        ('"sky, heaven"', ("sky, heaven",)),
        ("salt &amp; pepper\nsky", ("salt &amp; pepper", "sky")),
        ("train (toy)\nsky [blue]", ("train (toy)", "sky [blue]")),
    ],
)
def test_names_with_numbers_and_signs_stay(tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    path = tmp_path / "names.txt"
    path.write_text(text, encoding="utf-8")
    assert read_class_names(path) == names


BAD_FILES = {
    "Latin-1": ("sky\ncafé".encode("latin-1"), "line 2 is not UTF-8 text; save the file as UTF-8"),
    "half a UTF-16": (PLAIN.encode("utf-16")[:-1], "not UTF-16"),
    "UTF-16 without mark": (PLAIN.encode("utf-16-le"), "line 1 holds NUL bytes"),
    "NUL": (b"sky\ngr\0ass", "line 2 holds NUL bytes"),
    "empty": (b"", "no class names"),
    "comments alone": (b"# sky\n", "no class names"),
    "header alone": (b"id,name\n", "no class names"),
    "comment behind": (b"sky\ngrass  # green", "line 2 .* comment behind its text"),
    "id missing": (b"0: sky\n1: cat\ngrass", "line 3 has no id"),
    "id left out": (b"0: sky\n2: grass", "line 2 has the id 2"),
    "ids in disorder": (b"id,name\n1,sky\n0,grass", "line 3 has the id 0"),
    "ids from seven": (b"7,sky\n8,grass", "line 1 has the id 7"),
    "id of another kind": (b"id,name\n0,sky\nx,grass", "line 3 has the id x"),
    "cell missing": (b"id,name\n0,sky\n1", "line 3 has no name"),
    "open quote": (b'cat\n"sky\ngrass"', "line 2 .* not quoted well"),
    "tab within": (b"sky\tblue\ngrass", "line 1 .*invisible character U\\+0009"),
    "zero-width space": ("# x\nsky\u200b\ngrass".encode(), "line 2 .*ZERO WIDTH SPACE"),
    "twice": (b"# x\nsky\n\ngrass\nSKY", "line 2 .* and line 5 .* one to the text tower"),
    "id of the first alone": (b"0: sky\ngrass", "line 1 .*'0: sky'.* has an id, but not every line"),
    "id of the last alone": (b"sky\n1: grass", "line 2 .* has an id, but not every line"),
    "ids behind": (b"sky: 0\ngrass: 1", "line 1 and all others end in a number"),
    "single quotes": (b"sky\n'grass',", "line 2 .* single quotes"),
    "marks of a list": (b"- sky\n- grass", "line 1 .* mark of a list"),
    "list of Python": (b"['sky', 'grass']", "line 1 begins JSON that cannot be read"),
    "JSON of numbers": (b"# x\n[1, 2]", "line 2 begins JSON that is no list of names"),
    "JSON with a hidden mark": (b'["sky",\n"gr\xc2\xadass"]', "line 2 .*SOFT HYPHEN"),
    "JSON ids from seven": (b'{"7": "sky"}', "line 1 has the id 7"),
    "JSON of lists": (b'{"names": ["sky"]}', "no list of names"),
    "labels of CVAT": (b"# label:color\nsky:1,2,3::\ngrass:4,5,6::", "line 2 .* file of another kind"),
    "YAML": (b"names:\n  0: sky\n  1: grass", "line 1 .*'names:'.* file of another kind"),
    "YAML in one line": (b"nc: 2\nnames: [sky, grass]", "line 2 .* file of another kind"),
    "protocol buffers": (b'item {\n  id: 1\n  name: "sky"\n}', "line 1 .* file of another kind"),
    "table of Markdown": (b"| id | name |\n|---|---|\n| 0 | sky |", "line 1 .* mark of a list, table"),
    "comments of C": (b"// classes\nsky", "line 1 .* mark of a list, table or comment"),
    "comments of INI": (b"; classes\nsky", "line 1 .* mark of a list, table or comment"),
    "negative ids": (b"-1: void\n0: sky", "line 1 .* mark of a list"),
    "colours first": (b"0 0 0 sky\n128 64 0 grass", "line 1 .* several numbers"),
    "colours with commas": (b"0,0,0,sky\n1,2,3,grass", "line 1 .* several numbers"),
    "slanted quotes": ("sky\n\u201cgrass\u201d".encode(), "line 2 .* single quotes or slanted"),
    "one line": (b"sky, grass, tree", "line 1 is the only one and has commas"),
    "one line of semicolons": (b"sky; grass; tree\n", "line 1 .* holds a semicolon"),
    "unknown header": (b"grey,thing\n10,sky\n20,grass", "line 2 .* has an id, but not every line"),
    "header of other words": (b"a,b\n0,sky\n1,grass", "line 2 .* has an id, but not every line"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "is a Git LFS pointer"),
    "web page": (b"<!DOCTYPE html>\n<html>404</html>", "is a saved web page"),
    "blank name": (b"id,name\n0,sky\n1,", "line 3 is blank"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_files_that_are_refused_with_their_line(tmp_path: Path, case: str) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(BAD_FILES[case][0])
    with pytest.raises(VocabularyError, match=rf"names\.txt: .*{BAD_FILES[case][1]}"):
        read_class_names(path)


def test_lines_keep_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "val.txt"
    path.write_bytes(b"\xef\xbb\xbf# split\r\n2007_1\r\n\r\n 2007_2 \r2007_3")
    assert read_lines(path) == [(2, "2007_1"), (4, "2007_2"), (5, "2007_3")]
    with pytest.raises(PcasegError, match=r"none\.txt: cannot be read .*complete it"):
        read_lines(tmp_path / "none.txt", mend="complete it")
