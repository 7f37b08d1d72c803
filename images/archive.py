#!/usr/bin/env python3
"""archive.py OUT.tar SPEC.json: writes FROM-scratch images as one deterministic docker-archive; needs no daemon, base image or network.

SPEC is a list of images:
  {"tags": ["name:tag"], "files": {"/path/in/image": SOURCE}, "owners": {"/path/in/image": "uid:gid"},
   "env": [], "entrypoint": [], "cmd": [], "user": "uid:gid", "labels": {}, "ports": ["6379/tcp"]}
SOURCE is a host file, "dir", "->link target" or "=literal text". The owner is root unless said. The same content gives the same bytes: no times, owners or names
of this machine get in. Prints one line an image: its first tag and the digest of its configuration (the image id).
"""
import hashlib
import io
import json
import os
import platform
import sys
import tarfile

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def entry(name, mode, size=0, kind=tarfile.REGTYPE, link="", owner="0:0"):
    info = tarfile.TarInfo(name.lstrip("/"))
    info.mode, info.size, info.type, info.linkname, info.mtime = mode, size, kind, link, 0
    info.uid, info.gid = (int(part) for part in owner.split(":"))
    return info


def layer(files, owners):
    buffer = io.BytesIO()
    tar = tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT)
    made = set()

    def parents(path):
        parent = os.path.dirname(path)
        if parent in ("", "/") or parent in made:
            return
        parents(parent)
        made.add(parent)
        tar.addfile(entry(parent, 0o755, kind=tarfile.DIRTYPE))

    for path in sorted(files):
        source, owner = files[path], owners.get(path, "0:0")
        parents(path)
        if source == "dir":
            if path not in made:
                made.add(path)
                tar.addfile(entry(path, 0o1777 if path == "/tmp" else 0o755, kind=tarfile.DIRTYPE, owner=owner))
        elif source.startswith("->"):
            tar.addfile(entry(path, 0o777, kind=tarfile.SYMTYPE, link=source[2:], owner=owner))
        elif source.startswith("="):
            data = source[1:].encode()
            tar.addfile(entry(path, 0o644, len(data), owner=owner), io.BytesIO(data))
        else:
            with open(source, "rb") as file:
                data = file.read()
            tar.addfile(entry(path, 0o755 if os.access(source, os.X_OK) else 0o644, len(data), owner=owner), io.BytesIO(data))
    tar.close()
    return buffer.getvalue()


def main():
    out, spec_path = sys.argv[1], sys.argv[2]
    with open(spec_path) as file:
        spec = json.load(file)
    architecture = ARCHITECTURES[platform.machine()]
    temporary = f"{out}.{os.getpid()}.tmp"
    written, manifest, repositories = set(), [], {}
    with tarfile.open(temporary, "w") as archive:

        def put(name, data):
            if name not in written:
                written.add(name)
                archive.addfile(entry(name, 0o644, len(data)), io.BytesIO(data))

        for image in spec:
            data = layer(image["files"], image.get("owners", {}))
            layer_id = hashlib.sha256(data).hexdigest()
            config = {
                "architecture": architecture,
                "os": "linux",
                "created": "1970-01-01T00:00:00Z",
                "config": {
                    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"] + image.get("env", []),
                    "Entrypoint": image.get("entrypoint"),
                    "Cmd": image.get("cmd"),
                    "User": image.get("user", ""),
                    "WorkingDir": "/",
                    "ExposedPorts": {port: {} for port in image.get("ports", [])},
                    "Labels": image.get("labels", {}),
                },
                "rootfs": {"type": "layers", "diff_ids": ["sha256:" + layer_id]},
                "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "archive.py"}],
            }
            encoded = json.dumps(config, sort_keys=True).encode()
            image_id = hashlib.sha256(encoded).hexdigest()
            put(layer_id + ".tar", data)
            put(image_id + ".json", encoded)
            manifest.append({"Config": image_id + ".json", "RepoTags": image["tags"], "Layers": [layer_id + ".tar"]})
            for tag in image["tags"]:
                name, _, version = tag.rpartition(":")
                repositories.setdefault(name, {})[version] = layer_id
            print(image["tags"][0], "sha256:" + image_id)
        # Before manifest.json: kind reads whichever of the two comes first, and needs the tags of this one.
        put("repositories", json.dumps(repositories).encode())
        put("manifest.json", json.dumps(manifest).encode())
    os.rename(temporary, out)


if __name__ == "__main__":
    main()
