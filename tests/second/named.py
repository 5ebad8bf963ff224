"""Items whose name counts: secrets, questions and answers (`src/PROTOCOL.md`, "Items")."""

import re

from .messages import ANSWER, ASK, REFUSALS, SECRET, Head

NAMED = (SECRET, ASK, ANSWER)
# The feature without which an item is not sent.
FEATURE_OF = {SECRET: "secrets", ASK: "questions", ANSWER: "questions"}
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
# What waits of secrets, and questions of the other end in the life of a channel.
MAX_WAITING, MAX_QUESTIONS = 64, 1 << 16
NO_SPACE, BAD_NAME, WRONG_SIZE, NAME_USED, NOT_ASKED = (
    REFUSALS.index(name) for name in ("no space", "bad name", "wrong size", "name used", "not asked")
)


class Named:
    """Which questions there are in either direction, and the secrets that wait for their use."""

    def __init__(self) -> None:
        # Own questions by their number, and the names of those that are answered.
        self._own: dict[int, str] = {}
        self._answered: set[str] = set()
        # Names of the other end's.
        self._theirs: set[str] = set()
        self._secrets: dict[str, tuple[int, bytes]] = {}

    def sent(self, kind: int, number: int, name: str) -> None:
        """An item of this end is on its way; of a question the name is remembered."""
        if kind == ASK:
            self._own[number] = name

    def not_taken(self, number: int) -> None:
        """The other end has refused an item of this one: if it was a question, it is not asked."""
        self._own.pop(number, None)

    def refusal(self, head: Head) -> int | None:
        """Why it is not taken, as far as its head tells."""
        if not NAME.fullmatch(head.name):
            return BAD_NAME
        if head.kind == SECRET:
            if not head.inline:
                return WRONG_SIZE
            full = len(self._secrets) >= MAX_WAITING and head.name not in self._secrets
            return NO_SPACE if full else None
        if head.kind == ASK:
            if head.name in self._theirs:
                return NAME_USED
            return NO_SPACE if len(self._theirs) >= MAX_QUESTIONS else None
        if head.name not in self._own.values():
            return NOT_ASKED
        return NAME_USED if head.name in self._answered else None

    def arrived(self, head: Head, content: bytes) -> None:
        """It is whole, and nothing was wrong with it."""
        if head.kind == SECRET:
            self._secrets[head.name] = (head.item, content)
        elif head.kind == ASK:
            self._theirs.add(head.name)
        else:
            self._answered.add(head.name)

    def use(self, name: str) -> tuple[int, bytes] | None:
        """Number and value of a secret, which waits no longer."""
        return self._secrets.pop(name, None)
