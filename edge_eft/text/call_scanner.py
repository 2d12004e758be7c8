"""The JSON object of a tool call, read as it comes: its name, and its arguments as written.

The arguments are handed on before they are complete, so they are not parsed: their strings and
brackets are followed. What a tool gets is what the model wrote.
"""

import json
from collections.abc import Generator

_SPACE = " \t\n\r"
_ARGUMENTS = ("arguments", "parameters")  # Hermes' and Llama's word; models mix them up
_OTHERS = ("id", "type", "description")
_WORDS = "+-.0123456789Eaeflnrstu"  # numbers, true, false, null
_Reading = Generator[None, str, str]  # is sent characters; returns the one that follows


class _OtherwiseError(Exception):
    """What came is not the object of a tool call."""


class CallScanner:
    """Reads one object.

    Args:
        needs_arguments: an object without them is not a call.

    Attributes:
        text: what was read.
        name: of the tool, once it is known.
        ended: nothing more is read: the object is complete, or what came is not in it.
        failed: it ended before it was a call for sure.
    """

    def __init__(self, *, needs_arguments: bool) -> None:
        self.text = ""
        self.name: str | None = None
        self.ended = False
        self._needs_arguments = needs_arguments
        self._arguments: list[str] | None = None
        self._reading = self._object()
        next(self._reading)

    @property
    def begun(self) -> bool:
        """Whether this is a call for sure: its name is known and its arguments have begun."""
        return self.name is not None and self._arguments is not None

    @property
    def failed(self) -> bool:
        return self.ended and not self.begun

    def feed(self, text: str) -> str:
        """Read on; return what was not read: what stands behind the object, or cannot be in it."""
        read = 0
        try:
            for read, char in enumerate(text, 1):  # noqa: B007
                self._reading.send(char)
        except StopIteration:
            self.ended = True
        except _OtherwiseError:
            self.ended = True
            read -= 1
        self.text += text[:read]
        return text[read:]

    def take(self) -> str:
        """Return the text of the arguments that came since it was last taken."""
        if not self.begun or self._arguments is None:
            return ""
        taken = "".join(self._arguments)
        self._arguments.clear()
        return taken

    # --- the object -------------------------------------------------------------------------

    def _object(self) -> Generator[None, str, None]:
        char = yield from self._after_space()
        _expect(char == "{")
        while char != "}":
            char = yield from self._after_space()
            _expect(char == '"')
            key = _decoded((yield from self._string()))
            char = yield from self._after_space()
            _expect(char == ":")
            char = yield from self._after_space()
            if key in _ARGUMENTS and self._arguments is None:
                char = yield from self._read_arguments(char)
            elif key == "name" and self.name is None:
                _expect(char == '"')
                name = _decoded((yield from self._string()))
                _expect(bool(name))
                self.name = name
                char = yield from self._after_space()
            else:
                _expect(self.begun or key in _OTHERS)
                char = yield from self._skip(char)
            _expect(char in ",}")
        _expect(self.name is not None)
        if self._arguments is None:
            _expect(not self._needs_arguments)
            self._arguments = ["{}"]

    def _read_arguments(self, char: str) -> _Reading:
        if char == "{":
            self._arguments = [char]
            yield from self._brackets(self._arguments)
            return (yield from self._after_space())
        if char == '"':  # the object as text, as OpenAI's interface has it
            text = _decoded((yield from self._string()))
            _expect(_is_object(text))
            self._arguments = [text]
            return (yield from self._after_space())
        word = char
        while word != "null":
            _expect("null".startswith(word))
            word += yield
        self._arguments = ["{}"]
        return (yield from self._after_space())

    def _skip(self, char: str) -> _Reading:
        if char in "{[":
            yield from self._brackets([])
        elif char == '"':
            yield from self._string()
        else:
            while char not in _SPACE + ",}":
                _expect(char in _WORDS)
                char = yield
            if char not in _SPACE:
                return char
        return (yield from self._after_space())

    # --- its parts --------------------------------------------------------------------------

    def _after_space(self) -> _Reading:
        char = yield
        while char in _SPACE:
            char = yield
        return char

    def _string(self) -> _Reading:
        """Read the rest of a string; return it with its quotes."""
        chars = ['"']
        escaped = False
        while True:
            char = yield
            chars.append(char)
            if char == '"' and not escaped:
                return "".join(chars)
            escaped = char == "\\" and not escaped

    def _brackets(self, kept: list[str]) -> Generator[None, str, None]:
        """Read to the bracket that closes the one just read; all of it goes to `kept`."""
        depth, quoted, escaped = 1, False, False
        while depth:
            char = yield
            kept.append(char)
            if escaped:
                escaped = False
            elif quoted:
                escaped, quoted = char == "\\", char != '"'
            elif char == '"':
                quoted = True
            else:
                depth += (char in "{[") - (char in "}]")


def _expect(fulfilled: bool) -> None:
    if not fulfilled:
        raise _OtherwiseError


def _decoded(string: str) -> str:
    """What a JSON string says, line ends in it allowed."""
    try:
        text = json.loads(string, strict=False)
        text.encode()  # half a character cannot be sent on
    except ValueError:
        raise _OtherwiseError from None
    return str(text)


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
