"""Kubernetes quantities: ``2Gi``, ``1500m``, ``1e3``. Source: apimachinery's ``resource.Quantity``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from torpor_hub.domain.units import Amount

QUANTITY = re.compile(r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+))(?:(?P<power>[eE][+-]?\d+)|(?P<suffix>[numkKMGTPE]i?|))")
DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
GPU = "nvidia.com/gpu"


def parse(text: str) -> Decimal:
    """Return a quantity as a number: bytes, cores or pieces.

    Raises:
        ValueError: when ``text`` is no quantity.
    """
    found = QUANTITY.fullmatch(text.strip())
    if found is None or (found["suffix"] and found["suffix"] not in DECIMAL and found["suffix"] not in BINARY):
        raise ValueError(f"'{text}' is no quantity.")
    if found["power"]:
        return Decimal(found["number"] + found["power"])
    suffix = found["suffix"]
    factor = Decimal(1024) ** BINARY[suffix] if suffix in BINARY else Decimal(10) ** DECIMAL[suffix]
    return Decimal(found["number"]) * factor


def amount(values: Mapping[str, Any]) -> Amount:
    """Return what a map such as ``limits`` or ``allocatable`` holds of CPU, memory and GPUs; 0 for what it does not name.

    Raises:
        ValueError: when a value is no quantity.
    """
    cpu, memory, gpu = (parse(str(values.get(name, "0"))) for name in ("cpu", "memory", GPU))
    return Amount(int(cpu * 1000), int(memory), int(gpu))
