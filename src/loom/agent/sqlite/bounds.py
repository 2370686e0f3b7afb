"""The caps of a SQLite backend, and the functions that its queries may call."""

from __future__ import annotations

import msgspec

__all__ = ["BUILT_IN", "FUNCTIONS", "LEAST", "LONGEST_QUERY", "Bounds"]


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """
    How much a query may take.

    Attributes:
        max_rows: Rows of a result, at least 1.
        max_bytes: Bytes of a result as text, at least 1,024.
        max_cell_bytes: Bytes of a text in a result; a longer one is cut.
        max_value_bytes: Bytes of any value that a query touches or makes. What SQLite does in one
            step cannot be broken off and takes up to the square of this: 0.7 s at 512 KiB (own
            measurement: `instr` of 256 KiB in 512 KiB, both of one letter).
        max_memory_bytes: How much the process may grow while a query runs; sorting is done there.
        max_steps: Instructions of SQLite's machine; about 10 s of work.
        timeout_s: Seconds, waits for a lock included.
    """

    max_rows: int = 1000
    max_bytes: int = 262_144
    max_cell_bytes: int = 16_384
    max_value_bytes: int = 524_288
    max_memory_bytes: int = 268_435_456
    max_steps: int = 1_000_000_000
    timeout_s: float = 10.0


LEAST = {"max_bytes": 1024, "max_cell_bytes": 16, "max_value_bytes": 4096}
"""Below these a query's own text would not fit; other caps are at least 1."""

LONGEST_QUERY = 10_000
"""Bytes of a query's text; large values belong into parameters."""

# Left out: what reaches outside (`load_extension`, `readfile`, `writefile`, `edit`,
# `fts3_tokenizer`, `sqlite_log`), what writes (`optimize`), what tells of the machine
# (`sqlite_compileoption_*`), what takes the square of its input without a pause (`json_patch`),
# and whatever a later SQLite brings.
# Source: https://sqlite.org/lang_corefunc.html and its neighbours, read 2026-11-26.
_FUNCTIONS = """
    -> ->> abs acos acosh asin asinh atan atan2 atanh avg bm25 ceil ceiling changes char coalesce
    concat concat_ws cos cosh count cume_dist current_date current_time current_timestamp date
    datetime degrees dense_rank exp first_value floor format glob group_concat hex highlight if
    ifnull iif instr json json_array json_array_length json_error_position json_extract
    json_group_array json_group_object json_insert json_object json_pretty json_quote json_remove
    json_replace json_set json_type json_valid julianday lag last_insert_rowid last_value lead
    length like likelihood likely ln log log10 log2 lower ltrim match matchinfo max median min mod
    nth_value ntile nullif octet_length offsets percent_rank percentile percentile_cont
    percentile_disc pi pow power printf quote radians random randomblob rank replace round
    row_number rtrim sign sin sinh snippet soundex sqlite_version sqrt strftime string_agg substr
    substring sum tan tanh time timediff total total_changes trim trunc typeof unhex unicode
    unixepoch unlikely upper zeroblob
"""

FUNCTIONS = frozenset(_FUNCTIONS.split())
"""Names of functions, in small letters."""

BUILT_IN = ("json_each", "json_tree")
"""Tables that are in no file, and harmless: the parts of a JSON text as rows."""
