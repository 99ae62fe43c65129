"""Runs the unittest cases of the calling script and prints one TAP line per case.

    if __name__ == "__main__":
        tap.main()
"""
import sys
import traceback
import unittest


class _Result(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.lines = 0

    def _line(self, word, test, note=""):
        self.lines += 1
        print(f"{word} {self.lines} - {test.id().removeprefix('__main__.')}{note}", flush=True)

    def _details(self, text):
        for line in text.rstrip().splitlines():
            print(f"# {line}", flush=True)

    def addSuccess(self, test):
        self._line("ok", test)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._line("ok", test, f" # SKIP {reason}")

    def _failed(self, test, error):
        self._line("not ok", test)
        self._details("".join(traceback.format_exception(*error)))

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._failed(test, err)

    def addError(self, test, err):
        super().addError(test, err)
        self._failed(test, err)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._failed(subtest, err)

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self._line("not ok", test, " (passed, but was expected to fail)")


def main():
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])
    result = _Result()
    suite.run(result)
    print(f"1..{result.lines}")
    sys.exit(0 if result.wasSuccessful() and result.lines > 0 else 1)
