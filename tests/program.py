"""Runs the program under test for the end-to-end suites.

    done = program.run("version", "--json")        a Done; fails the test unless the status is 0
    program.run("version", "x", status=2)
"""
import json
import os
import subprocess

DURE = os.environ["DURE"]
SOURCE = os.environ["DURE_SOURCE_DIR"]


class Done:
    """What a finished run left."""

    def __init__(self, process):
        self.status = process.returncode
        self.out_bytes, self.err_bytes = process.stdout, process.stderr

    @property
    def out(self):
        return self.out_bytes.decode()

    @property
    def err(self):
        return self.err_bytes.decode()

    @property
    def json(self):
        return json.loads(self.out_bytes)


def run(*words, stdin=b"", status=0, timeout=120, **environment):
    if isinstance(stdin, str):
        stdin = stdin.encode()
    process = subprocess.run([DURE, *map(str, words)], input=stdin, capture_output=True,
                             timeout=timeout, env={**os.environ, **environment})
    done = Done(process)
    if done.status != status:
        raise AssertionError(f"dure {' '.join(map(str, words))}: status {done.status}, expected "
                             f"{status}\n{done.out_bytes!r}\n{done.err_bytes!r}")
    return done
