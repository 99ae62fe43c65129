"""Runs the program under test for the end-to-end suites.

    done = program.run("version", "--json")        a Done; fails the test unless the status is 0
    program.run("version", "x", status=2)
"""
import array
import ast
import json
import os
import re
import resource
import subprocess
import time

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
        return self.err_bytes.decode(errors="replace")

    @property
    def json(self):
        return json.loads(self.out_bytes)


def run(*words, stdin=b"", status=0, timeout=120, address_space=None, **environment):
    """address_space: the bytes that the program may map."""
    if isinstance(stdin, str):
        stdin = stdin.encode()
    limit = address_space and (
        lambda: resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space)))
    process = subprocess.run([DURE, *map(str, words)], input=stdin, capture_output=True,
                             timeout=timeout, env={**os.environ, **environment}, preexec_fn=limit)
    done = Done(process)
    if done.status != status:
        raise AssertionError(f"dure {' '.join(map(str, words))}: status {done.status}, expected "
                             f"{status}\n{done.out_bytes!r}\n{done.err_bytes!r}")
    return done


def writes_without_names(folder):
    """Whether a file there can be written without a name until it is whole."""
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_RDWR))
        return True
    except OSError:
        return False


def is_writing(process, folder):
    """Whether the process has written into a file there, which has a temporary name or none."""
    opened, start = f"/proc/{process.pid}/fd", os.path.realpath(folder) + "/"
    try:
        written = [name for name in os.listdir(folder)
                   if ".tmp-" in name and os.stat(os.path.join(folder, name)).st_size > 0]
        links = [os.path.join(opened, name) for name in os.listdir(opened)]
        written += [link for link in links if os.readlink(link).startswith(start) and
                    os.readlink(link).endswith(" (deleted)") and os.stat(link).st_size > 0]
    except OSError:  # one closed meanwhile
        return False
    return bool(written)


def wait_until_it_writes(process, folder, seconds=60):
    end = time.monotonic() + seconds
    while not is_writing(process, folder):
        assert time.monotonic() < end, "nothing is written"
        assert process.poll() is None, "the process has ended"
        time.sleep(0.01)


def sanitized():
    """Whether the program was built with sanitizers, whose shadow is terabytes of addresses."""
    cache = read(os.environ["DURE_BUILD_DIR"], "CMakeCache.txt")
    return re.search(r"^DURE_SANITIZE:\w+=.", cache, re.MULTILINE) is not None


GOLDEN = os.path.join(SOURCE, "tests/golden")


def models():
    """The folders of the model fixtures."""
    root = os.path.join(GOLDEN, "models")
    return sorted(os.path.join(root, name) for name in os.listdir(root)
                  if os.path.isdir(os.path.join(root, name)))


def model(name):
    return os.path.join(GOLDEN, "models", name)


def read(*parts):
    with open(os.path.join(*parts), encoding="utf-8", newline="") as file:
        return file.read()


def ids(*parts):
    """The token ids in a file."""
    return [int(word) for word in read(*parts).split()]


def json_lines(*parts):
    return [json.loads(line) for line in read(*parts).split("\n") if line]


def npy(path):
    """(shape, flat array of float) of a NumPy file of float32."""
    with open(path, "rb") as file:
        data = file.read()
    assert data[:8] == b"\x93NUMPY\x01\x00", data[:8]
    end = 10 + int.from_bytes(data[8:10], "little")
    header = ast.literal_eval(data[10:end].decode())
    assert header["descr"] == "<f4" and not header["fortran_order"], header
    return header["shape"], array.array("f", data[end:])
