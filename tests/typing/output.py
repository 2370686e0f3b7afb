"""What type checkers say of structured output; never run."""

from typing import Any, assert_type

import msgspec

from loom.client.output import parse_output
from loom.core.request import ToolSpec
from loom.shuttle.decode import decode_json
from loom.shuttle.schema import json_schema
from loom.shuttle.tool import tool_spec, tool_specs


class Person(msgspec.Struct):
    """Somebody."""

    name: str


assert_type(parse_output(Person, "{}"), Person)
assert_type(parse_output(list[Person], "[]", finish_reason="stop"), list[Person])
assert_type(parse_output(int, "1"), int)
assert_type(decode_json(dict[str, int], "{}"), dict[str, int])
assert_type(json_schema(Person), dict[str, Any])
assert_type(tool_spec({"function": {"name": "now"}}), ToolSpec)
assert_type(tool_specs([ToolSpec(name="now")]), tuple[ToolSpec, ...])
