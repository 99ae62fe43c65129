"""The program on a terminal of its own, for what it does only there."""
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time

import program


class Terminal:
    def __init__(self, *words, columns=80, **environment):
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.master = master
        self.first_modes = self.modes()
        self.process = subprocess.Popen(
            [program.DURE, *map(str, words)], stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True, preexec_fn=take_terminal,
            env={**os.environ, "TERM": "xterm", **environment})
        os.close(slave)
        self.seen = ""
        self.taken = 0

    def _read(self, end):
        ready, _, _ = select.select([self.master], [], [], max(0, end - time.monotonic()))
        data = b""
        if ready:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                pass
        if not data:
            raise AssertionError(f"waited in vain; not taken: {self.seen[self.taken:]!r}")
        self.seen += data.decode("utf-8", "replace")

    def read_until(self, text, timeout=60):
        """What is shown up to text, with it; what comes behind is for the next call."""
        end, start = time.monotonic() + timeout, self.taken
        while text not in self.seen[start:]:
            self._read(end)
        self.taken = self.seen.index(text, start) + len(text)
        return self.seen[start:self.taken]

    def read_characters(self, n, timeout=60):
        """At least n characters."""
        end, start = time.monotonic() + timeout, self.taken
        while len(self.seen) < start + n:
            self._read(end)
        self.taken = len(self.seen)
        return self.seen[start:]

    def wait_for_editing(self, timeout=60):
        """Until the program reads single keys: libedit shows its prompt just before."""
        end = time.monotonic() + timeout
        while self.modes()[3] & termios.ICANON:
            assert time.monotonic() < end, "the terminal stays in line mode"
            time.sleep(0.002)

    def type(self, text):
        os.write(self.master, text.encode())

    def interrupt(self):
        self.type("\x03")

    def modes(self):
        """The settings of the terminal."""
        return termios.tcgetattr(self.master)

    def close(self, timeout=60):
        """Waits for the end; the exit status."""
        try:
            end = time.monotonic() + timeout
            ended = False
            while not ended and time.monotonic() < end:
                ended = self.process.poll() is not None  # before reading: nothing comes after
                while time.monotonic() < end and \
                        select.select([self.master], [], [], 0 if ended else 0.05)[0]:
                    try:
                        self.seen += os.read(self.master, 65536).decode("utf-8", "replace")
                    except OSError:
                        time.sleep(0.05)
                        break
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGKILL)
                raise AssertionError(f"the program did not end; shown: {self.seen!r}")
            return self.process.returncode
        finally:
            os.close(self.master)


def take_terminal():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
