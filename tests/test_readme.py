"""The README's list of layers is the registry's."""

import re

from cnnkern.graph import Op
from cnnkern.ops import REGISTRY
from cnnkern.ops.layout import Identity, Input
from support import ROOT

README = (ROOT / "README.md").read_text()
WITHOUT_STEP = (Identity, Input)  # a pass or the planner removes them


def names_in(section: str) -> set[str]:
    """Return what stands in backticks between the section's markers."""
    (text,) = re.findall(rf"<!-- {section} -->(.*?)<!-- /{section} -->", README, re.DOTALL)
    return set(re.findall(r"`(\w+)`", text))


def test_every_registered_class_is_in_the_layer_table_and_no_other() -> None:
    assert names_in("layers") == {key.split(">")[1] for key in REGISTRY}


def test_classes_without_kernel_are_named() -> None:
    missing = {
        key.split(">")[1]
        for key, op in REGISTRY.items()
        if op.lower is Op.lower and not op.is_view and not issubclass(op, WITHOUT_STEP)
    }
    assert names_in("no kernel") == missing
