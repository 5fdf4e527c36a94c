"""Random folders: what is restored is what was saved, and saving is repeatable."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.oci.trees import IS_ROOT, listing
from torpor_hub.oci.layers import restore, write_layer

OWNER_MAY = 0 if IS_ROOT else 0o700


@dataclass
class Node:
    kind: str
    content: bytes
    mode: int
    mtime_ns: int
    xattrs: dict[str, bytes]
    children: dict[bytes, Node]


def is_name(name: bytes) -> bool:
    return name not in (b".", b"..") and not name.startswith(b".wh.") and b"/" not in name and b"\0" not in name


names = st.one_of(
    st.binary(min_size=1, max_size=12),
    st.text(min_size=1, max_size=12).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.integers(1, 255).map(lambda length: b"l" * length),
    st.sampled_from([b"a", b"b", b"a.b", b"a-", b"\n", b"\xff"]),
).filter(is_name)
contents = st.one_of(st.binary(max_size=2000), st.integers(0, 5).map(lambda count: b"ab" * 512 * count))
targets = st.one_of(st.binary(min_size=1, max_size=200), st.just(b"../../etc/passwd")).filter(lambda t: b"\0" not in t)
times = st.integers(-(2**31) * 10**9, 4_102_444_800 * 10**9)
xattrs = st.dictionaries(
    st.text("abc=%é. ", min_size=1, max_size=6).map("user.{}".format), st.binary(max_size=60), max_size=2
)


def nodes(children: st.SearchStrategy[dict[bytes, Node]]) -> st.SearchStrategy[Node]:
    def node(
        kind: str, content: st.SearchStrategy[bytes], below: st.SearchStrategy[dict[bytes, Node]]
    ) -> st.SearchStrategy[Node]:
        return st.builds(Node, st.just(kind), content, st.integers(0, 0o7777), times, xattrs, below)

    none: st.SearchStrategy[dict[bytes, Node]] = st.just({})
    return st.one_of(
        node("file", contents, none),
        node("folder", st.just(b""), children),
        node("symlink", targets, none),
        node("fifo", st.just(b""), none),
        node("link", st.binary(max_size=1), none),
    )


folders: st.SearchStrategy[dict[bytes, Node]] = st.recursive(
    st.just({}), lambda below: st.dictionaries(names, nodes(below), max_size=5), max_leaves=12
)
roots = st.builds(Node, st.just("folder"), st.just(b""), st.integers(0, 0o7777), times, xattrs, folders)


def build(path: bytes, node: Node, files: list[bytes]) -> None:
    if node.kind == "link" and files:
        os.link(files[len(node.content) * (len(files) - 1)], path)
        return
    if node.kind == "symlink":
        os.symlink(node.content, path)  # noqa: PTH211 - bytes
        os.utime(path, ns=(0, node.mtime_ns), follow_symlinks=False)
        return
    if node.kind == "folder":
        os.makedirs(path, exist_ok=True)  # noqa: PTH103 - bytes
        for name, child in node.children.items():
            build(path + b"/" + name, child, files)
    elif node.kind == "fifo":
        os.mkfifo(path)
    else:
        with open(path, "wb") as file:  # noqa: PTH123 - bytes
            file.write(node.content)
        files.append(path)
    if node.kind != "fifo":
        for key, value in node.xattrs.items():
            os.setxattr(path, key, value)
    os.chmod(path, node.mode | OWNER_MAY)  # noqa: PTH101 - bytes
    os.utime(path, ns=(0, node.mtime_ns))


@given(roots)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_restored_is_what_was_saved(root: Node) -> None:
    folder = Path(tempfile.mkdtemp(prefix="torpor-"))
    try:
        source, copy = folder / "source", folder / "copy"
        build(os.fsencode(source), root, [])
        first, second = io.BytesIO(), io.BytesIO()
        layer = write_layer(source, first.write)
        before = listing(source)
        assert write_layer(source, second.write).record == layer.record
        assert first.getvalue() == second.getvalue()
        assert restore([layer.record], lambda _digest: io.BytesIO(first.getvalue()), copy) == ()
        assert listing(copy) == before
        assert layer.skipped == ()
        assert layer.entries == len(before)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
