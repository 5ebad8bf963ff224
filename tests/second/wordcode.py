"""The code that two people tell each other (`src/PROTOCOL.md`, "Code")."""

import re
from importlib.resources import files

WORDS = tuple((files("mnemonic") / "wordlist" / "english.txt").read_text("ascii").split())
KNOWN = frozenset(WORDS)
# The first four letters are unique in the list; a prefix of that many or more names its word.
PREFIXES = {word[:length]: word for word in WORDS for length in range(4, len(word) + 1)}
LONGEST = 256
# The property `White_Space` of Unicode; Python's own notion has four separators more.
SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"


class CodeError(ValueError):
    """What was typed is no code; the text is the name that `tests/vectors/codes.json` gives to the reason."""


def parse(typed: str, any_words: bool = False) -> tuple[str, str]:
    """The nameplate and the normalised code. `any_words` reads a code of another list as it stands."""
    typed = typed.strip(SPACE)
    if len(typed.encode()) > LONGEST:
        raise CodeError("too long")
    nameplate = re.match(r"[0-9]*", typed).group()
    if not 1 <= len(nameplate) <= 10:
        raise CodeError("nameplate")
    rest = typed[len(nameplate):]
    if any_words:
        if not (rest.startswith("-") and len(rest) > 1):
            raise CodeError("count")
        return nameplate, typed
    parts = [part for part in re.split(f"[-_.{SPACE}]+", rest.lower()) if part]
    words = [word_of(part) for part in parts] if len(parts) == 3 else joined("".join(parts))
    return nameplate, "-".join([nameplate, *words])


def word_of(part: str) -> str:
    """The word that a part is, or is the beginning of."""
    if part in KNOWN:
        return part
    if part not in PREFIXES:
        raise CodeError("unknown word")
    return PREFIXES[part]


def joined(letters: str) -> list[str]:
    """Three whole words that were typed without something between them, if there is one way to read them."""
    ways = [
        [letters[:first], letters[first:second], letters[second:]]
        for first in range(1, len(letters))
        for second in range(first + 1, len(letters))
        if {letters[:first], letters[first:second], letters[second:]} <= KNOWN
    ]
    if len(ways) != 1:
        raise CodeError("count")
    return ways[0]
