"""The console script: a parent without native code, and the child that does the work.

llama.cpp ends its process on a failed assertion, an uncaught C++ exception or a damaged file, and
the system ends it when memory runs out. So the work is done in a child on the same terminal. The
parent waits, hands on signals and the exit status, and if the child is killed it restores the
terminal and says in one line which file was in use, what the library said last, and what to do.

Native code writes its last words to file descriptor 2. In the child that is a pipe to the parent,
and `sys.stderr` is the real one. What the backend is about to do (`library.native`) comes through
the same pipe, as lines that begin with `_MARK`. The parent has loaded nothing that a fork could
harm: no native code, no threads.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import signal
import sys
import threading

TYPE_CHECKING = False  # importing typing takes longer than all of this
if TYPE_CHECKING:
    from typing import Any, NoReturn

_MARK = "\x1e"
_ENDED = "\x1eended"  # Python knows of the child's end; without it a library has called exit()
_DISPLAYS = {True: "\x1edisplays", False: "\x1edisplays nothing"}
_PIPES = "EDGE_EFT_SUPERVISOR"  # environment: the descriptors of the pipe for words, the lifeline
_BOOT = (  # the package may have been found through the working directory or a zip file
    "import sys; root = sys.argv.pop(1); root in sys.path or sys.path.insert(0, root); "
    "from edge_eft.cli.supervise import main; main()"
)
_WORDS_KEPT = 1 << 14  # bytes
_HANDED_ON = (signal.SIGINT, signal.SIGTERM) + (
    (signal.SIGHUP, signal.SIGQUIT) if os.name == "posix" else ()
)
# What ends a process by its own fault; the system sends SIGKILL when memory runs out.
_FATAL = {"SIGABRT", "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP", "SIGSYS", "SIGKILL"}
_RESET = "\x1b[0m\x1b[?25h\x1b[?2004l"  # colours, the cursor, bracketed paste
_WIPE = "\r\x1b[2K"
_to_parent: int | None = None  # in the child: the pipe for words

_REBUILD = (
    "this build of llama.cpp uses instructions that the processor lacks; build it again: "
    'CMAKE_ARGS="-DGGML_NATIVE=OFF" pip install --force-reinstall --no-cache-dir --no-deps '
    "--no-binary llama-cpp-python llama-cpp-python; edge-eft doctor has more, and the best flags"
)
_TOO_LARGE = (
    "memory has probably run out; close other programs, or take a smaller n_ctx, fewer slots or a "
    "smaller quantisation"
)
_CUT = "a file became shorter or its disk went away while it was in use; check both"
_DAMAGED = "a file is damaged, or of a kind that this llama.cpp cannot run; get it again"
_TOO_MANY = "the system allows no more processes, threads or files; close some, or raise its limit"
_NOT_LOADED = "memory has run out, or the installation is damaged: install edge-eft again"


def main() -> NoReturn:
    """Run `edge-eft`: as the parent, or as the child if the environment says so."""
    try:
        if os.name != "posix" or not sys.executable:  # no such signals: the work is done here
            _work()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        if pipes := os.environ.pop(_PIPES, ""):
            _enter_child(*map(int, pipes.split(",")))
        status = _supervise()
    except KeyboardInterrupt:  # after the command, which tells its own ends
        status = 130
    except Exception as error:  # of parent or child
        if _interrupted(error):
            status = 130
        elif message := _lack(error):
            _say(message)
            status = 2
        else:
            raise
    os._exit(status)


def _interrupted(error: BaseException | None) -> bool:
    """Return whether Ctrl-C is behind an error: Python 3.11 wraps it in the body of a class."""
    while error and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__
    return error is not None


def _lack(error: Exception) -> str:
    """Return what the system did not give, and what to do; "" if `error` is a fault of ours."""
    said = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return "memory ran out; close other programs"
    if isinstance(error, ImportError) or "load shared library" in said:
        said = said.rpartition("Original error was: ")[2]  # NumPy tells a long story before it
        return f"a part of edge-eft cannot be loaded ({said}); {_NOT_LOADED}"
    if isinstance(error, OSError) or "start new thread" in said:
        return f"{said}; {_TOO_MANY}"
    return ""


# -- the child -----------------------------------------------------------------------------


def _work(lifeline: int | None = None) -> NoReturn:
    try:
        from .interrupts import watch

        watch(lifeline)
        from . import main as command_line

        command_line.main()
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def displays(something: bool) -> None:
    """Tell the parent whether the terminal's last line is a display: it wipes what we leave."""
    if _to_parent is not None:
        with contextlib.suppress(OSError):
            os.write(_to_parent, f"{_DISPLAYS[something]}\n".encode())


def _enter_child(words: int, lifeline: int) -> NoReturn:
    """Give file descriptor 2 to native code, the real stderr to Python, and do the work."""
    import logging
    import resource

    global _to_parent
    _to_parent = words
    for descriptor in (words, lifeline):
        os.set_inheritable(descriptor, False)
    real = os.dup(2)
    os.dup2(words, 2)
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    # Without a buffer, in which what a full disk refused would wait for the interpreter's exit.
    raw = io.FileIO(real, "w", closefd=False)
    sys.stderr = io.TextIOWrapper(raw, encoding, "backslashreplace", write_through=True)
    sys.__stderr__ = sys.stderr  # type: ignore[misc]
    with contextlib.suppress(OSError, ValueError):  # a core file of a large model fills the disk
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))

    class Marks(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            line = f"{_MARK}{' '.join(record.getMessage().split())}\n"
            with contextlib.suppress(OSError):
                os.write(words, line.encode("utf-8", "surrogateescape"))

    doing = logging.getLogger("edge_eft.backend.native")
    doing.addHandler(Marks())
    doing.setLevel(logging.INFO)
    status = 0
    try:
        _work(lifeline)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
    finally:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # what is left is the interpreter's end
        with contextlib.suppress(OSError):
            os.write(words, f"{_ENDED}\n".encode())
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(status)  # the interpreter's own end takes apart all that was imported: 60 ms


# -- the parent ----------------------------------------------------------------------------


def _supervise() -> int:
    """Start the child and wait for it. Returns the exit status."""
    # Some systems discard even a blocked signal if it would be ignored.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, [*_HANDED_ON, signal.SIGCHLD])
    _fill_streams()
    terminal = _terminal_settings()
    words = _Words()
    lifeline, held = os.pipe()  # it closes when this process ends, however that comes about
    if sys.platform == "darwin":  # Apple's libraries do not work in a fork
        pid = _spawn(words.writer, lifeline)
    elif not (pid := os.fork()):
        for descriptor in (held, words.reader):
            os.close(descriptor)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [signal.SIGINT])
        _enter_child(words.writer, lifeline)
    os.close(lifeline)
    words.listen()
    status = os.waitstatus_to_exitcode(_wait(pid))
    os.close(held)
    if not status:
        return status
    by_library = words.ended_by_library(status)
    if status < 0 or by_library or words.displays:
        _restore(terminal, wipe=words.displays)
    if status > 0 and not by_library:
        return status
    if status > 0:
        _say(words.obituary(f"exit({status})"))
        return 2
    died_of = -status
    name = next((known.name for known in signal.Signals if known == died_of), "")
    if died_of == signal.SIGINT:
        return 130
    if name not in _FATAL:  # a user's or the system's wish: end in the same way
        signal.signal(died_of, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [died_of])
        os.kill(os.getpid(), died_of)
    _say(words.obituary(name))
    return 2


def _spawn(words: int, lifeline: int) -> int:
    """Start the child with an interpreter of its own. Returns its process id."""
    for descriptor in (words, lifeline):
        os.set_inheritable(descriptor, True)
    package = os.path.abspath(__file__)
    for _ in range(3):
        package = os.path.dirname(package)
    command = [sys.executable, "-I" if sys.flags.isolated else "-P", "-c", _BOOT, package]
    environment = {**os.environ, _PIPES: f"{words},{lifeline}"}
    return os.posix_spawn(
        sys.executable, [*command, *sys.argv[1:]], environment, setsigmask=[signal.SIGINT]
    )


def _say(message: str) -> None:
    try:
        from .terminal import one_line

        message = one_line(message)
    except (MemoryError, ImportError, OSError):  # what is lacking is what is to be told
        message = ascii(message)
    with contextlib.suppress(OSError):
        line = f"edge-eft: {message}\n"
        os.write(sys.stderr.fileno(), line.encode("utf-8", "backslashreplace"))


def _wait(pid: int) -> int:
    """Wait for the child, handing on what this process is sent. Returns its wait status."""
    awaited = [*_HANDED_ON, signal.SIGCHLD]
    while True:
        number, from_terminal = _next_signal(awaited)
        if number == signal.SIGCHLD:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return status
        # A terminal sends its signals to the child, too, but its end to the session's leader alone.
        elif not from_terminal or number == signal.SIGHUP:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _next_signal(awaited: list[Any]) -> tuple[int, bool]:
    """Return the next signal that comes, and whether a terminal sent it."""
    if hasattr(signal, "sigwaitinfo"):
        info = signal.sigwaitinfo(awaited)
        return info.si_signo, info.si_code > 0  # from the kernel, not from kill()
    number = signal.sigwait(awaited)  # macOS does not say who sent it
    keys = (signal.SIGINT, signal.SIGQUIT)
    with contextlib.suppress(OSError):
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
        try:
            return number, number in keys and os.tcgetpgrp(terminal) == os.getpgrp()
        finally:
            os.close(terminal)
    return number, False


def _fill_streams() -> None:
    """Open what is closed of stdin, stdout and stderr, so that no file takes its number.

    Reading from such a stdin and writing to such a stdout fails; what is said on stderr is lost.
    """
    for name, mode, unfit in (
        ("stdin", "r", os.O_WRONLY),
        ("stdout", "w", os.O_RDONLY),
        ("stderr", "w", os.O_WRONLY),
    ):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, unfit)  # the lowest number that is free
            os.set_inheritable(descriptor, True)
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115


def _terminal_settings() -> tuple[int, list[Any]] | None:
    """Return a descriptor of the terminal and its settings; None without one."""
    for descriptor in (0, 1, 2):
        if os.isatty(descriptor):
            import termios

            with contextlib.suppress(termios.error):
                return descriptor, termios.tcgetattr(descriptor)
    return None


def _restore(terminal: tuple[int, list[Any]] | None, *, wipe: bool) -> None:
    """Undo what the child may have done to the terminal, and to its last line if `wipe`."""
    if terminal is None:
        return
    import termios

    descriptor, settings = terminal
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])  # it may not be ours any more
    with contextlib.suppress(termios.error, OSError):
        termios.tcsetattr(descriptor, termios.TCSADRAIN, settings)
        for output in (2, 1):  # displays are on stderr
            if os.isatty(output):
                os.write(output, (_WIPE * wipe + _RESET).encode())
                break


def _memory_is_limited() -> bool:
    import resource

    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


class _Words:
    """The pipe from the child's file descriptor 2, and what came through it.

    Attributes:
        reader, writer: its ends; the writer is the child's.
        displays: whether a display was on the terminal when the child was last heard of.
    """

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._last = b""
        self._doing = ""
        self._ended = False
        self.displays = False
        self._files: list[str] = []

    def listen(self) -> None:
        """Read until the child's end is closed."""
        os.close(self.writer)
        try:
            self._thread.start()
        except RuntimeError:  # the system allows no more threads: what is said there is lost
            os.close(self.reader)
            self._ended = True

    def _read(self) -> None:
        rest = b""
        while chunk := os.read(self.reader, 1 << 16):
            *lines, rest = (rest + chunk)[-_WORDS_KEPT:].split(b"\n")
            for line in lines:
                self._take(line)
        self._take(rest)

    def _take(self, line: bytes) -> None:
        if not line.startswith(_MARK.encode()):
            self._last = (self._last + b"\n" + line)[-_WORDS_KEPT:]
            return
        said = line.decode("utf-8", "replace")
        if said in _DISPLAYS.values():
            self.displays = said == _DISPLAYS[True]
            return
        if line == _ENDED.encode():
            self._ended = True
            return
        self._doing = line[1:].decode("utf-8", "replace")
        file = self._doing.removeprefix("loading ")
        if file not in (self._doing, *self._files):
            self._files.append(file)

    def _hear_out(self) -> None:
        if self._thread.ident:
            self._thread.join(timeout=1)

    def ended_by_library(self, status: int) -> bool:
        """Return whether native code ended the child with this status above 0, and not Python."""
        self._hear_out()
        # OpenBLAS raises SIGINT where it gets no threads. Else 130 is a user's wish.
        return b"OpenBLAS blas_thread_init" in self._last if status == 130 else not self._ended

    def obituary(self, name: str) -> str:
        """Return what happened and what to do, for a child that died of `name`."""
        self._hear_out()
        said = [line for line in self._last.decode("utf-8", "replace").split("\n") if line.strip()]
        keys = ("what():", "ASSERT", "pthread_create")
        telling = [line for line in said if any(key in line for key in keys)] or said
        words = telling[-1].strip()[:300] if telling else "it gave no reason"
        doing = self._doing or ("using " + ", ".join(self._files) if self._files else "")
        fix = {"SIGILL": _REBUILD, "SIGBUS": _CUT, "SIGKILL": _TOO_LARGE}.get(name, _DAMAGED)
        # Libraries that find no memory while they are loaded follow null pointers.
        starved = not doing and _memory_is_limited()
        if starved or any(key in words.lower() for key in ("alloc", "memory", "mem_buffer")):
            fix = _TOO_LARGE
        elif "Resource temporarily unavailable" in words or "pthread_create" in words:
            fix = _TOO_MANY
        while_doing = f" while {doing}" if doing else ""
        return f"llama.cpp died of {name}{while_doing} ({words}); {fix}"
