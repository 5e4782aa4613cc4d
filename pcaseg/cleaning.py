"""Text as the text tower reads it, and the characters in it that nobody sees."""

from __future__ import annotations

import html
import re
import unicodedata
from functools import lru_cache
from itertools import pairwise

from pcaseg.errors import MissingDependencyError

_UNTOUCHED_BY_FTFY = re.compile(r"[\t\n\x20-\x7e]*")
_HTML_ENTITY = re.compile(r"&.*;", re.DOTALL)

_INVISIBLE = re.compile(  # Default_Ignorable_Code_Point without format characters, empty Braille, no characters
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8"
    "\ufdd0-\ufdef\ufffe\uffff\U000e0000-\U000e0fff]"
)
_DRAWN = re.compile("[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd]")  # format characters with ink
_REGION_FLAG = re.compile("\U0001f3f4[\U000e0030-\U000e007a]+\U000e007f")
_JOINERS, _EMOJI_STYLES = "\u200c\u200d", "\ufe0e\ufe0f"
_EMOJI_AMONG_SIGNS = "\u203c\u2049\u2139\u3030\u303d"  # emoji that Unicode counts as letters or punctuation
_JOINING_SCRIPTS = re.compile(
    "ARABIC|SYRIAC|MANDAIC|NKO|MONGOLIAN|DEVANAGARI|BENGALI|GURMUKHI|GUJARATI|ORIYA|TAMIL|TELUGU|KANNADA|MALAYALAM|"
    "SINHALA|TIBETAN|MYANMAR|KHMER|BALINESE|JAVANESE|SUNDANESE"
)
"""Scripts whose letters a joiner changes, as Unicode's names of their letters begin."""


def clean_text(text: str) -> str:
    """Text as CLIP was trained to see it: encoding mistakes and HTML entities mended, lower case, single spaces.

    Encoding mistakes are mended by ftfy, which is imported only for text that it might change: it leaves printable
    ASCII alone unless that holds an HTML entity.

    Raises:
        MissingDependencyError: the text needs ftfy, which is not installed.
    """
    if not _UNTOUCHED_BY_FTFY.fullmatch(text) or _HTML_ENTITY.search(text):
        text = _fix_text(text)
    text = html.unescape(html.unescape(text))
    return " ".join(text.split()).lower()


@lru_cache(maxsize=4096)
def reading(text: str) -> str:
    """The same string for any two texts that the text tower reads alike.

    To `clean_text` it adds that the tokenizer splits at digits and between letters and signs, with a space or without.

    Raises:
        MissingDependencyError: as `clean_text`.

    >>> reading("Salt  &amp; Pepper 2") == reading("salt& pepper2")
    True
    """
    words = clean_text(text).split(" ")
    return words[0] + "".join(
        " " + word if _kind(last[-1:]) == _kind(word[:1]) != "N" else word for last, word in pairwise(words)
    )


def invisible_character(text: str) -> str | None:
    """The first character of a text, or of what its HTML entities stand for, that nobody sees, described; or None.

    These are control, format and filler characters and line separators. Joiners between letters of scripts that need
    them and within emoji, and the styles of emoji, are no such characters.

    >>> invisible_character("s\\u200bky")
    'U+200B (ZERO WIDTH SPACE)'
    """
    if text.isascii() and text.isprintable() and "&" not in text:
        return None
    for shown in dict.fromkeys((text, html.unescape(html.unescape(text)))):
        shown = _REGION_FLAG.sub("\U0001f3f4", shown)
        for place, character in enumerate(shown):
            if _is_invisible(character) and not _is_needed(shown, place):
                name = unicodedata.name(character, "control character")
                return f"U+{ord(character):04X} ({name})"
    return None


def _is_invisible(character: str) -> bool:
    kind = unicodedata.category(character)
    return (kind in ("Cc", "Cf", "Cs", "Zl", "Zp") and not _DRAWN.match(character)) or bool(_INVISIBLE.match(character))


def _is_needed(text: str, place: int) -> bool:
    """Tells whether the invisible character there changes how its neighbours are written."""
    character, before, after = text[place], text[:place], text[place + 1 :]
    if character in _EMOJI_STYLES:
        return _is_emoji(before[-1:]) or bool(re.search("[0-9#*]$", before) and after.startswith("\u20e3"))
    script = _script(before[-1:])
    if character in _JOINERS:
        if _JOINING_SCRIPTS.fullmatch(script) and (
            script == _script(after[:1]) or unicodedata.combining(before[-1]) == 9
        ):
            return True  # 9: a virama, whose joiner may end the word
        return character == "\u200d" and _is_emoji(before.rstrip(_EMOJI_STYLES)[-1:]) and _is_emoji(after[:1])
    return script == "MONGOLIAN" == _script(character)


def _script(character: str) -> str:
    return unicodedata.name(character, "").partition(" ")[0] if character else ""


def _is_emoji(character: str) -> bool:
    """Tells whether it is a symbol that emoji are made of: skin tones, letters in circles and the like among them."""
    if not character or character.isascii():
        return False
    return character in _EMOJI_AMONG_SIGNS or unicodedata.category(character) in ("So", "Sk", "Sm")


def _kind(character: str) -> str:
    """L for letters, N for numbers, P for all else: what the tokenizer splits between."""
    kind = unicodedata.category(character)[0] if character else "P"
    return kind if kind in "LN" else "P"


def _fix_text(text: str) -> str:
    try:
        import ftfy
    except ImportError as error:
        raise MissingDependencyError(
            f"{text!r}: names beyond plain ASCII need the package ftfy, or the model would read other tokens than in "
            "training; pip install ftfy"
        ) from error
    fixed: str = ftfy.fix_text(text)
    return fixed
