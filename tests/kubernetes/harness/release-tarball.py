#!/usr/bin/env python3
"""release-tarball.py OUT.tar.gz BIN IMAGES VERSION: the server tarball of a Kubernetes release, as `kind build node-image --type file` reads it."""
import gzip
import io
import os
import sys
import tarfile

OUT, BIN, IMAGES, VERSION = sys.argv[1:5]
with gzip.open(OUT, "wb", compresslevel=0) as compressed, tarfile.open(fileobj=compressed, mode="w|") as archive:

    def add(name, path):
        info = tarfile.TarInfo("kubernetes/" + name)
        info.size, info.mode = os.path.getsize(path), 0o755
        with open(path, "rb") as file:
            archive.addfile(info, file)

    text = (VERSION + "\n").encode()
    version = tarfile.TarInfo("kubernetes/version")
    version.size = len(text)
    archive.addfile(version, io.BytesIO(text))
    for binary in ("kubeadm", "kubelet", "kubectl"):
        add("server/bin/" + binary, f"{BIN}/{binary}")
    for component in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"):
        add(f"server/bin/{component}.tar", f"{IMAGES}/{component}.tar")
