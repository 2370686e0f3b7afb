"""What a docstring says of a thing and of its fields, in the three forms that people write."""

from __future__ import annotations

import inspect
import re
from typing import Literal

import msgspec

__all__ = ["Described", "describe"]


class Described(msgspec.Struct, frozen=True):
    """
    A docstring taken apart.

    Attributes:
        summary: The text outside all sections; empty when there is none.
        fields: What is said of each argument or attribute, by name.
    """

    summary: str
    fields: dict[str, str]


# griffelib costs 230 ms at import (measured on this project's reference machine): it is loaded
# only for a docstring that has one of these.
_SPHINX = re.compile(r"(?m)^\s*:(?:param|parameter|arg|argument|key|keyword|var|ivar|cvar)\b")
_NUMPY = re.compile(r"(?m)^(?:Parameters|Other Parameters|Attributes)\n-{3,}\s*$")
_GOOGLE = re.compile(r"(?m)^(?:Args|Arguments|Params|Parameters|Attributes|Keyword Args):\s*$")


def describe(docstring: str | None) -> Described:
    """
    Take a docstring apart; Google, NumPy and Sphinx forms are known by their headings.

    Args:
        docstring: As it stands in the code; None for none.

    Returns:
        The summary, and the texts of the sections Args, Parameters and Attributes by name.
    """
    text = inspect.cleandoc(docstring or "").strip()
    form = _form(text)
    if form is None:
        return Described(text, {})
    return _parsed(text, form)


def _form(text: str) -> Literal["google", "numpy", "sphinx"] | None:
    if _NUMPY.search(text):
        return "numpy"
    if _GOOGLE.search(text):
        return "google"
    return "sphinx" if _SPHINX.search(text) else None


def _parsed(text: str, form: Literal["google", "numpy", "sphinx"]) -> Described:
    # The submodules would be quicker, but only the package itself is griffelib's public face.
    from griffe import (  # noqa: PLC0415 - heavy, see above
        Docstring,
        DocstringSectionAttributes,
        DocstringSectionOtherParameters,
        DocstringSectionParameters,
        DocstringSectionText,
    )

    summary: list[str] = []
    fields: dict[str, str] = {}
    # `warnings=False`: a type that a docstring leaves out stands in the annotation.
    # It cleans indentation anew, counting from the second line: the text must begin there.
    for section in Docstring(f"\n{text}").parse(form, warnings=False):
        if isinstance(section, DocstringSectionText):
            summary.append(section.value.strip())
        elif isinstance(
            section,
            DocstringSectionParameters
            | DocstringSectionOtherParameters
            | DocstringSectionAttributes,
        ):
            for field in section.value:
                # Stars are Python's way to say "the rest"; the name has none.
                fields[field.name.lstrip("*")] = " ".join(field.description.split())
    return Described("\n\n".join(summary), {name: said for name, said in fields.items() if said})
