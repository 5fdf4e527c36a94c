"""The benchmarks run, and say what they measured."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(not shutil.which("zstd"), reason="needs the program zstd to compare with")
def test_one_round_gives_a_ratio_to_each_peer_and_the_machines_facts() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--smoke"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"seed \d+\. .* cores", ended.stdout)
    ratios = re.findall(r"^(tar \| zstd|image, read back) +.* (\d+\.\d+)$", ended.stdout, re.MULTILINE)
    assert [name for name, _ in ratios] == ["tar | zstd", "image, read back"]
    assert float(ratios[0][1]) == 1.0
    assert all(float(ratio) > 0 for _, ratio in ratios)
