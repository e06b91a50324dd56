"""The README's list of layers is the registry's."""

import re

from cnnkern.ops import REGISTRY
from support import ROOT

README = (ROOT / "README.md").read_text()


def names_in(section: str) -> set[str]:
    """Return what stands in backticks between the section's markers."""
    (text,) = re.findall(rf"<!-- {section} -->(.*?)<!-- /{section} -->", README, re.DOTALL)
    return set(re.findall(r"`(\w+)`", text))


def test_every_registered_class_is_in_the_layer_table_and_no_other() -> None:
    assert names_in("layers") == {key.split(">")[1] for key in REGISTRY}
