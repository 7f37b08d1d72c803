#!/usr/bin/env python3
"""input.py OUT.tsv COUNT: the real input of the demo and the Kubernetes tests: the lines of RocksDB's own C++ sources.

They are on every machine that built the store, the same bytes everywhere, and text as people write it: long and short, with quotes,
tabs and repetitions. A line each, key (file and line number) and value (the text), separated by a tab.
"""
import json
import os
import subprocess
import sys

OUT, COUNT = sys.argv[1], int(sys.argv[2])
host = next(line[6:] for line in subprocess.check_output(["rustc", "-vV"], text=True).splitlines() if line.startswith("host: "))
# Only what this platform builds with was fetched; asking for more would ask for a network.
listing = subprocess.check_output(["cargo", "metadata", "--locked", "--offline", "--filter-platform", host, "--format-version", "1"])
metadata = json.loads(listing)
manifest = next(package["manifest_path"] for package in metadata["packages"] if package["name"] == "librocksdb-sys")
sources = os.path.join(os.path.dirname(manifest), "rocksdb")
files = sorted(
    os.path.join(folder, name) for folder, _, names in os.walk(sources) for name in names if name.endswith((".cc", ".h"))
)
written = 0
with open(OUT, "w", encoding="utf-8") as out:
    for path in files:
        with open(path, encoding="utf-8", errors="replace") as source:
            for number, line in enumerate(source, 1):
                text = line.rstrip("\r\n")
                if text.strip() and written < COUNT:
                    out.write(f"rocksdb/{os.path.relpath(path, sources)}:{number}\t{text}\n")
                    written += 1
if written < COUNT:
    raise SystemExit(f"input.py: {sources} has {written} lines, {COUNT} are needed")
