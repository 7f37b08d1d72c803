#!/usr/bin/env python3
"""spec.py DOCKERFILE CONTEXT TAG...: the Dockerfile of a FROM-scratch image as a specification for archive.py, on stdout.

So the Dockerfile stays the one place that says what is in an image, with or without a docker daemon. Knows FROM scratch, COPY
[--chown=UID:GID] of directories, USER, ENV, EXPOSE, ENTRYPOINT, CMD and LABEL; anything else is refused rather than left out.
"""
import json
import os
import shlex
import sys

DOCKERFILE, CONTEXT, TAGS = sys.argv[1], sys.argv[2], sys.argv[3:]
image = {"tags": TAGS, "files": {}, "owners": {}, "env": [], "labels": {}, "ports": []}


def refuse(line, why):
    raise SystemExit(f"spec.py: {DOCKERFILE}: {line!r}: {why}")


def copy(line, words):
    owner = None
    if words[0].startswith("--chown="):
        owner = words.pop(0).partition("=")[2]
    if len(words) != 2:
        refuse(line, "one source and one destination are expected")
    source, destination = os.path.join(CONTEXT, words[0]), words[1].rstrip("/")
    if not os.path.isdir(source):
        refuse(line, f"{source} is no directory; run images/build")
    found = {destination: "dir"} if destination else {}
    for folder, folders, files in os.walk(source):
        inside = destination + folder[len(source):]
        found.update({f"{inside}/{name}": "dir" for name in folders})
        for name in files:
            path = os.path.join(folder, name)
            found[f"{inside}/{name}"] = "->" + os.readlink(path) if os.path.islink(path) else path
    image["files"].update(found)
    if owner:
        image["owners"].update({path: owner for path in found})


with open(DOCKERFILE) as file:
    lines = [line.strip() for line in file if line.strip() and not line.startswith("#")]
for line in lines:
    instruction, _, rest = line.partition(" ")
    if instruction == "FROM" and rest == "scratch":
        continue
    elif instruction == "COPY":
        copy(line, rest.split())
    elif instruction == "USER":
        image["user"] = rest
    elif instruction == "ENV":
        image["env"] += shlex.split(rest)
    elif instruction == "EXPOSE":
        image["ports"] += [f"{port}/tcp" for port in rest.split()]
    elif instruction in ("ENTRYPOINT", "CMD"):
        image[instruction.lower()] = json.loads(rest)
    elif instruction == "LABEL":
        image["labels"].update(pair.split("=", 1) for pair in shlex.split(rest))
    else:
        refuse(line, "not an instruction this project's images need")
json.dump([image], sys.stdout, indent=1, sort_keys=True)
