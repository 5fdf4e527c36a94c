"""Lists a container's whole file system from inside, for any Python 3.9 or later: run as a script, never imported there.

What it cannot see is no part of an environment: other file systems (volumes, kernel file systems), ``/run`` and ``/tmp``. Prints
one JSON object: path to type, mode, owner, group, size, sha256, mtime in ns, link target or link group, extended attributes. With
the argument ``packed`` it prints that compressed, in lines of letters and digits, and their checksum as the last line: a
container's log is cut into lines, and its beginning is lost where it grows.
"""

import base64
import gzip
import hashlib
import json
import os
import stat
import sys

LINE = 8000
LEFT_OUT = ("/run", "/tmp", "/var/tmp", "/proc", "/sys", "/dev")


def main() -> None:
    """Print the listing."""
    mounts = {line.split()[4].encode().decode("unicode_escape") for line in open("/proc/self/mountinfo")} - {"/"}  # noqa: PTH123, SIM115
    groups: dict = {}
    found: dict = {}
    for folder, folders, files in os.walk("/", onerror=lambda error: None):
        folders[:] = sorted(name for name in folders if _wanted(os.path.join(folder, name), mounts))  # noqa: PTH118
        for name in ["", *folders, *sorted(files)]:
            path = os.path.join(folder, name) if name else folder  # noqa: PTH118
            if path in found or not _wanted(path, mounts):
                continue
            entry = _entry(path, groups)
            if entry is not None:
                found[path] = entry
    if sys.argv[1:] != ["packed"]:
        json.dump(found, sys.stdout)
        return
    packed = base64.b64encode(gzip.compress(json.dumps(found).encode())).decode()
    for start in range(0, len(packed), LINE):
        print(packed[start : start + LINE])
    print(hashlib.sha256(packed.encode()).hexdigest())


def _wanted(path: str, mounts: set) -> bool:
    return path not in mounts and path not in LEFT_OUT


def _entry(path: str, groups: dict) -> "list | None":
    try:
        held = os.lstat(path)
        size, content, link = 0, "", ""
        if stat.S_ISREG(held.st_mode):
            size, content = held.st_size, _hash(path)
            if held.st_nlink > 1:
                link = groups.setdefault((held.st_dev, held.st_ino), path)
        elif stat.S_ISLNK(held.st_mode):
            link = os.readlink(path)  # noqa: PTH115
        names = sorted(os.listxattr(path, follow_symlinks=False))
        attributes = [(name, os.getxattr(path, name, follow_symlinks=False).hex()) for name in names]
    except PermissionError:
        return None
    kind, mode = stat.S_IFMT(held.st_mode), stat.S_IMODE(held.st_mode)
    return [kind, mode, held.st_uid, held.st_gid, size, content, held.st_mtime_ns, link, attributes]


def _hash(path: str) -> str:
    with open(path, "rb") as stream:  # noqa: PTH123
        return hashlib.file_digest(stream, "sha256").hexdigest() if sys.version_info >= (3, 11) else _old(stream)


def _old(stream) -> str:
    digest = hashlib.sha256()
    for piece in iter(lambda: stream.read(1 << 20), b""):
        digest.update(piece)
    return digest.hexdigest()


if __name__ == "__main__":
    main()
