"""The list of messages is whole enough to be read."""

from __future__ import annotations

from tests.docs.messages import PACKAGE, messages

SAMPLE = '''
raise ValueError(f"{name} is wrong")
print("left: 1" if left else "nothing left", end="")
db.execute("SELECT no message FROM rows")
told = name + " is told later"

def documented() -> None:
    """This is no message."""
'''


def test_values_are_shown_as_braces() -> None:
    """A message is listed with its line, as far as the source shows it."""
    assert list(messages(SAMPLE)) == [
        (2, "{name} is wrong"),
        (3, "left: 1 / nothing left"),
        (5, " is told later"),
    ]


def test_each_module_that_raises_says_why() -> None:
    """Messages are found all over the package."""
    speaking = [path for path in PACKAGE.rglob("*.py") if list(messages(path.read_text("utf-8")))]
    assert len(speaking) > 30
