"A case of the catalogue, and how it is tried."
import functools
import signal
import tempfile
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

import ptl_nb

SECONDS = 20     # no refusal may take longer, a hang included


@dataclass(frozen=True)
class Case:
    area: str                    # kind of input
    name: str                    # what is bad about it
    make: Callable               # empty folder -> the call that must be refused
    words: tuple[str, ...]       # all must be in the message
    error: type = ValueError

    @property
    def id(self) -> str: return f"{self.area}: {self.name}"


def add(cases: list[Case], area: str, name: str, make: Callable, *words: str, error: type = ValueError) -> None:
    "One more case."
    cases.append(Case(area, name, make, words, error))


def call(f: Callable, *arguments, **named) -> Callable:
    "A case that needs nothing made."
    return lambda folder: functools.partial(f, *arguments, **named)


def put_content(file: Path, content: Image.Image | bytes | str | Callable) -> None:
    "Make a file: a picture, bytes, text, or whatever a function of its path makes there."
    if isinstance(content, Image.Image): content.save(file)
    elif isinstance(content, bytes): file.write_bytes(content)
    elif isinstance(content, str): file.write_bytes(content.encode())
    else: content(file)


def refusal(case: Case) -> str:
    """The message that a case is refused with.

    AssertionError where it is accepted, or refused by something else than a documented error.
    """
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused = case.make(Path(folder))
        signal.signal(signal.SIGALRM, _late)
        signal.alarm(SECONDS)
        try: result = refused()
        except Exception as error:
            signal.alarm(0)
            return _judged(case, error, str(error).replace(folder, "<folder>"))
        finally: signal.alarm(0)
    raise AssertionError(f"accepted: {result!r:.200}")


def _judged(case: Case, error: Exception, text: str) -> str:
    "The message, if it comes from this package, is of the right type and holds all words."
    where = traceback.extract_tb(error.__traceback__)[-1]
    ours = Path(where.filename).parent == Path(ptl_nb.__path__[0])
    assert ours, f"raised in {where.filename}, line {where.lineno}: {type(error).__name__}: {text}"
    own = type(error).__module__.startswith("ptl_nb.")        # a kind of it that the package defines
    right = isinstance(error, case.error) if own else type(error) is case.error
    assert right, f"{type(error).__name__}, expected {case.error.__name__}: {text}"
    missing = [w for w in case.words if w not in text]
    assert not missing, f"lacks {missing}: {text}"
    return text


def _late(*_):
    raise TimeoutError(f"not refused within {SECONDS} seconds")
