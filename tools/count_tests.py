#!/usr/bin/env python3
"""Sums the test cases in the JUnit files that ctest wrote, and prints the failed ones.

    count_tests.py RESULT.xml...

Each test program prints one TAP line per case. A program that ended badly without a `not ok` line
(a crash, a time-out, a missing file) counts as one failed case; one that ran without any TAP line as
one case. The last line is `N passed, N failed, N skipped`; exit status 1 when a case failed or
nothing passed.
"""
import re
import sys
import xml.etree.ElementTree as ElementTree

TAP = re.compile(r"^(not ok|ok) \d+ *-? *(.*)$", re.MULTILINE)


def cases(test):
    """(name, outcome) of each case of one ctest test."""
    output = test.findtext("system-out") or ""
    found = []
    for word, name in TAP.findall(output):
        # cmocka 1.1 writes `not ok 2 # SKIP name`
        outcome = "skipped" if "# SKIP" in name else "passed" if word == "ok" else "failed"
        found.append((name.strip(), outcome))
    status = test.get("status")
    if status == "disabled" or (status == "notrun" and test.find("skipped") is not None):
        return found or [("", "skipped")]
    if status != "run" and not any(outcome == "failed" for _, outcome in found):
        found.append((f"(the program ended badly: {status})", "failed"))
    return found or [("", "passed")]


def main(paths):
    count = {"passed": 0, "failed": 0, "skipped": 0}
    for path in paths:
        for test in ElementTree.parse(path).getroot().iter("testcase"):
            for name, outcome in cases(test):
                count[outcome] += 1
                if outcome != "passed":
                    print(f"{outcome}: {test.get('name')} {name}")
    print(f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped")
    return 1 if count["failed"] or not count["passed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
