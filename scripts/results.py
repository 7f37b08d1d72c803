#!/usr/bin/env python3
"""results.py cargo LOG RESULTS [--as WORDS] [TARGET...]: appends to RESULTS a line for each suite in the log of a `cargo test`.
results.py summary RESULTS: prints every suite, and `N passed, N failed` at the end; fails if a test failed or a suite ran none.

A suite is the unit tests of a package, or one of its integration test targets. Which there have to be is asked of cargo, so a suite
that silently stopped running is found: it is written down with no test, which fails. With TARGETs, only those test targets. WORDS stand
behind the names of suites that run a second time, in another way.
"""
import json
import os
import re
import subprocess
import sys

RUNNING = re.compile(r"^\s*Running .*\((?:.*/)?([A-Za-z0-9_]+)-[0-9a-f]+\)")
RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored; .*finished in ([0-9.]+)s")


def suites_of_workspace():
    """By the stem of an executable: the suite its tests belong to; and whether cargo runs it without further features."""
    metadata = json.loads(subprocess.check_output(["cargo", "metadata", "--no-deps", "--locked", "--offline", "--format-version", "1"]))
    found = {}
    for package in metadata["packages"]:
        for target in package["targets"]:
            stem = target["name"].replace("-", "_")
            if "test" in target["kind"]:
                found[stem] = (f"{package['name']} {target['name']}", not target.get("required-features"))
            elif "custom-build" not in target["kind"] and target.get("test", True):
                found[stem] = (f"{package['name']} unit", True)
    return found


def cargo(log, results, targets):
    words = ""
    if targets[:1] == ["--as"]:
        words, targets = " " + targets[1], targets[2:]
    suites = suites_of_workspace()
    wanted = {suite for stem, (suite, runs) in suites.items() if (stem in targets if targets else runs)}
    counts = {suite: [0, 0, 0, 0.0] for suite in wanted}
    current = None
    with open(log, errors="replace") as lines:
        for line in lines:
            line = re.sub(r"\x1b\[[0-9;]*m", "", line)
            if match := RUNNING.match(line):
                # An executable that dies without a result was a failure, until its result says otherwise.
                current = suites.get(match.group(1), (match.group(1), True))[0]
                counts.setdefault(current, [0, 0, 0, 0.0])[1] += 1
            elif line.lstrip().startswith("Doc-tests"):
                current = None
            elif (match := RESULT.match(line)) and current:
                count = counts[current]
                count[0] += int(match.group(1))
                count[1] += int(match.group(2)) - 1
                count[2] += int(match.group(3))
                count[3] += float(match.group(4))
                current = None
    with open(results, "a") as out:
        for suite, (passed, failed, ignored, seconds) in sorted(counts.items()):
            out.write(f"{suite}{words}\t{passed}\t{failed}\t{ignored}\t{seconds:.0f}\n")


def summary(results):
    passed = failed = 0
    complaints = []
    print(f"\n{'suite':<36} {'passed':>7} {'failed':>7} {'ignored':>8} {'seconds':>8}")
    with open(results) as lines:
        for line in lines:
            suite, ran, bad, ignored, seconds = line.rstrip("\n").split("\t")
            print(f"{suite:<36} {ran:>7} {bad:>7} {ignored:>8} {seconds:>8}")
            passed += int(ran)
            failed += int(bad)
            if int(ran) + int(bad) == 0:
                complaints.append(f"the suite '{suite}' ran no test")
                failed += 1
    if passed == 0:
        complaints.append("no test ran at all")
        failed = max(failed, 1)
    for complaint in complaints:
        print(f"FAILED: {complaint}")
    print(f"\n{passed} passed, {failed} failed")
    return 1 if failed else 0


if sys.argv[1] == "cargo":
    cargo(sys.argv[2], sys.argv[3], sys.argv[4:])
else:
    sys.exit(summary(sys.argv[2]))
