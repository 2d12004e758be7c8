"""`edge-eft serve` as people start it: a child process, with clients of it."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass

import httpx
import openai
import psutil


@dataclass
class Live:
    """A running `edge-eft serve`."""

    process: subprocess.Popen
    url: str

    @property
    def http(self):
        return httpx.Client(base_url=self.url, timeout=120)

    @property
    def openai(self):
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=120)

    def family(self):
        """The server's processes below the one that was started: the HTTP one and the engine."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def engine(self):
        """The engine's process."""
        return next(p for p in self.family() if "edge_eft.engine.host" in " ".join(p.cmdline()))

    def stop(self):
        self.process.terminate()
        return self.process.wait(timeout=20)


def start(*words, **environment):
    """Start a server and wait until it says where it is."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_eft", "serve", *words, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )
    said = ""
    for line in process.stdout:
        said += line
        if found := re.search(r"http://[0-9.:\[\]a-z]+", line):
            return Live(process, found[0].rstrip("/"))
    raise AssertionError(f"exit status {process.wait()}: {said}")
