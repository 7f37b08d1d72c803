#!/usr/bin/env python3
"""image-spec.py BIN ROOTFS OUT VERSION KIND_SOURCE: specifications for images/archive.py of every image a kind node carries.

The control plane and the add-ons, all FROM scratch. kind pulls only images whose tags are not in the release tarball it is given,
so the add-ons travel inside kube-apiserver's archive.
"""
import glob
import json
import os
import re
import subprocess
import sys

BIN, ROOTFS, OUT, VERSION, KIND_SOURCE = sys.argv[1:6]
os.makedirs(OUT, exist_ok=True)


def resolve(path):
    """The file inside ROOTFS that `path` names, links followed as a chroot would."""
    for _ in range(10):
        host = ROOTFS + path
        if not os.path.islink(host):
            return host
        target = os.readlink(host)
        path = target if target.startswith("/") else os.path.normpath(os.path.join(os.path.dirname(path), target))
    raise SystemExit(f"image-spec: a loop of links at {path}")


def libraries(path):
    listing = subprocess.run(["chroot", ROOTFS, "ldd", path], capture_output=True, text=True).stdout
    return re.findall(r"(/\S+) \(0x", listing)


def image(tags, files, **settings):
    return dict(tags=tags, files=files, **settings)


def single(name):
    return {"/usr/local/bin/" + name: f"{BIN}/{name}", "/tmp": "dir"}


# kube-proxy alone needs tools beside its binary: iptables, nft, conntrack and what they link.
proxy = single("kube-proxy") | {"/run": "dir"}
plugins = glob.glob(ROOTFS + "/usr/lib/*-linux-gnu/xtables/*.so")
tools = ["/usr/sbin/xtables-nft-multi", "/usr/sbin/nft", "/usr/sbin/conntrack"]
for path in tools + [plugin[len(ROOTFS):] for plugin in plugins]:
    proxy[path] = resolve(path)
    for library in libraries(path):
        proxy[library] = next(host for host in (resolve("/usr" + library), resolve(library)) if os.path.exists(host))
for name in ("iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"):
    proxy["/usr/sbin/" + name] = "->xtables-nft-multi"

# Tags are what kubeadm and kind's own sources ask for, read from them, so that they cannot drift.
listed = subprocess.run([f"{BIN}/kubeadm", "config", "images", "list", "--kubernetes-version", VERSION], capture_output=True, text=True).stdout.split()
constants = "".join(open(file).read() for file in glob.glob(KIND_SOURCE + "/pkg/build/nodeimage/const_*.go"))
containerd = open(KIND_SOURCE + "/images/base/files/etc/containerd/config.toml").read()


def wanted(part):
    return next(tag for tag in listed if part in tag)


def constant(name):
    return re.search(name + r' = "([^"]+)"', constants).group(1)


sandbox = re.search(r'sandbox_image = "([^"]+)"', containerd)
applets = ("sh", "mkdir", "rm", "ls", "cat", "chmod", "sleep", "wget", "nslookup", "tar")
addons = [
    image([wanted("/etcd:")], single("etcd")),
    image([wanted("coredns")], {"/coredns": BIN + "/coredns"}, entrypoint=["/coredns"]),
    image(sorted({wanted("/pause:")} | ({sandbox.group(1)} if sandbox else set())), {"/pause": BIN + "/pause"}, entrypoint=["/pause"], user="65535:65535"),
    image([constant("kindnetdImage")], single("kindnetd"), entrypoint=["/usr/local/bin/kindnetd"]),
    image([constant("storageProvisionerImage")], single("local-path-provisioner")),
    image([constant("storageHelperImage")], {"/bin/busybox": ROOTFS + "/bin/busybox", "/tmp": "dir"} | {"/bin/" + applet: "->busybox" for applet in applets}),
]


def component(name, files=None):
    return image([f"registry.k8s.io/{name}:{VERSION}"], files or single(name))


archives = {
    "kube-apiserver": [component("kube-apiserver")] + addons,
    "kube-controller-manager": [component("kube-controller-manager")],
    "kube-scheduler": [component("kube-scheduler")],
    "kube-proxy": [component("kube-proxy", proxy)],
}
for name, images in archives.items():
    with open(f"{OUT}/{name}.json", "w") as file:
        json.dump(images, file, indent=1)
