"""The program on a terminal of its own, for what it does only there."""
import os
import pty
import select
import signal
import subprocess
import time

import program


class Terminal:
    def __init__(self, *words, **environment):
        master, slave = pty.openpty()
        self.master = master
        self.process = subprocess.Popen(
            [program.DURE, *map(str, words)], stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True, preexec_fn=take_terminal,
            env={**os.environ, "TERM": "xterm", **environment})
        os.close(slave)
        self.seen = ""

    def read_while(self, waiting, timeout=60):
        """Reads until waiting(what was shown since the call) is false; returns that."""
        end, start = time.monotonic() + timeout, len(self.seen)
        while waiting(self.seen[start:]):
            ready, _, _ = select.select([self.master], [], [], max(0, end - time.monotonic()))
            data = b""
            if ready:
                try:
                    data = os.read(self.master, 65536)
                except OSError:
                    pass
            if not data:
                raise AssertionError(f"waited in vain; shown: {self.seen[start:]!r}")
            self.seen += data.decode("utf-8", "replace")
        return self.seen[start:]

    def read_until(self, text, timeout=60):
        """Everything shown until text comes, with it."""
        return self.read_while(lambda shown: text not in shown, timeout)

    def type(self, text):
        os.write(self.master, text.encode())

    def interrupt(self):
        self.type("\x03")

    def close(self, timeout=60):
        """Waits for the end; the exit status."""
        try:
            end = time.monotonic() + timeout
            while self.process.poll() is None and time.monotonic() < end:
                ready, _, _ = select.select([self.master], [], [], 0.05)
                if ready:
                    try:
                        self.seen += os.read(self.master, 65536).decode("utf-8", "replace")
                    except OSError:
                        time.sleep(0.05)
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGKILL)
                raise AssertionError(f"the program did not end; shown: {self.seen!r}")
            return self.process.returncode
        finally:
            os.close(self.master)


def take_terminal():
    import fcntl
    import termios
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
