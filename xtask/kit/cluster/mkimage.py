#!/usr/bin/env python3
"""Pack files into a one-layer OCI image archive, without Docker and without root.

  mkimage.py REF OUT.tar [--busybox] [--add SRC[:DST]]... [--tree DIR[:DST]]... [--cmd ARG...]

--add copies a file to DST (default: the same path). If it is a dynamically linked
program, its libraries and loader, as ldd lists them, come along, so that any of the
host's programs can go into an image. --busybox adds a shell: the host's static
busybox and a link for each of its applets. --tree adds a directory. --cmd (last)
is the image's command. Equal input gives an equal archive.

Import the archive with `cluster.sh load OUT.tar`; use it in pods as REF with
`imagePullPolicy: IfNotPresent`.
"""
import argparse, hashlib, io, json, os, platform, re, shutil, subprocess, tarfile

ETC = {
    "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "/etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
EMPTY_DIRS = ("/bin", "/dev", "/etc", "/proc", "/root", "/run", "/sys", "/tmp", "/var")


def libraries(path):
    """The shared libraries and the loader that a program needs (none if it is static)."""
    with open(path, "rb") as f:
        if f.read(4) != b"\x7fELF":
            return []
    p = subprocess.run(["ldd", path], capture_output=True, text=True)
    if "not found" in p.stdout:
        raise SystemExit(f"{path}: " + "; ".join(l.strip() for l in p.stdout.splitlines() if "not found" in l))
    return re.findall(r"(/\S+) \(0x", p.stdout) if p.returncode == 0 else []


def collect(args):
    """Map each path in the image to bytes (file content), a str (symlink target) or a source path in a tuple."""
    files = {k: v.encode() for k, v in ETC.items()}
    def add(src, dst):
        files[dst] = (src,)
        for lib in libraries(src):
            files.setdefault(lib, (lib,))
    for spec in args.add:
        src, _, dst = spec.partition(":")
        add(src, dst or os.path.abspath(src))
    for spec in args.tree:
        src, _, dst = spec.partition(":")
        for root, _, names in os.walk(src):
            for name in names:
                p = os.path.join(root, name)
                q = os.path.join(dst or os.path.abspath(src), os.path.relpath(p, src))
                files[q] = os.readlink(p) if os.path.islink(p) else (p,)
    if args.busybox:
        busybox = shutil.which("busybox") or exit("busybox is missing (package busybox-static)")
        add(busybox, "/bin/busybox")
        for applet in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split():
            files.setdefault("/bin/" + applet, "busybox")
    return files


def layer(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        dirs = set(EMPTY_DIRS)
        for path in files:
            while (path := os.path.dirname(path)) != "/":
                dirs.add(path)
        for d in sorted(dirs):
            info = tarfile.TarInfo(d.lstrip("/"))
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if d == "/tmp" else 0o755
            tar.addfile(info)
        for path, content in sorted(files.items()):
            info = tarfile.TarInfo(path.lstrip("/"))
            info.mode = 0o644
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
                continue
            if isinstance(content, tuple):
                info.mode = 0o755 if os.access(content[0], os.X_OK) else 0o644
                with open(content[0], "rb") as f:
                    content = f.read()
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def write_image(ref, out, lay, cmd):
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    digest = lambda b: "sha256:" + hashlib.sha256(b).hexdigest()
    oci = "application/vnd.oci.image."
    descriptor = lambda kind, b: {"mediaType": oci + kind, "digest": digest(b), "size": len(b)}
    config = json.dumps({
        "architecture": arch, "os": "linux",
        "config": {"Cmd": cmd, "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(lay)]},
    }).encode()
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": oci + "manifest.v1+json",
        "config": descriptor("config.v1+json", config), "layers": [descriptor("layer.v1.tar", lay)],
    }).encode()
    entry = descriptor("manifest.v1+json", manifest)
    entry["annotations"] = {"io.containerd.image.name": ref, "org.opencontainers.image.ref.name": ref.rsplit(":", 1)[-1]}
    entry["platform"] = {"architecture": arch, "os": "linux"}
    with tarfile.open(out + ".tmp", "w") as tar:
        def add(name, data):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        add("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        add("index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())
        for blob in (config, manifest, lay):
            add("blobs/sha256/" + digest(blob)[7:], blob)
    os.replace(out + ".tmp", out)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("ref")
    p.add_argument("out")
    p.add_argument("--busybox", action="store_true")
    p.add_argument("--add", action="append", default=[], metavar="SRC[:DST]")
    p.add_argument("--tree", action="append", default=[], metavar="DIR[:DST]")
    p.add_argument("--cmd", nargs=argparse.REMAINDER, default=["/bin/sh"])
    args = p.parse_args()
    write_image(args.ref, args.out, layer(collect(args)), args.cmd)


if __name__ == "__main__":
    main()
