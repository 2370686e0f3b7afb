"""Invoices are read as vendors and spreadsheets write them, or refused by line."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.ledger.invoice import InvoiceLine, InvoiceUnreadable, read_invoice
from loom.ledger.invoice_cells import date_order, period_of, read_amount, read_count

PLAIN = b"date,model,input_tokens,output_tokens,amount\n2026-11-05,small,1000,100,0.21\n"
LINE = InvoiceLine(
    line=2,
    period="2026-11-05",
    model="small",
    input_tokens=1000,
    output_tokens=100,
    requests=None,
    amount_usd=Decimal("0.21"),
)


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + PLAIN,
        PLAIN.decode().encode("utf-16"),
        PLAIN.replace(b",", b"\t"),
        PLAIN.replace(b",", b"|"),
        PLAIN + b"Total,,,,0.21\n\n",
        PLAIN + b",Grand total:,,,0.21\n",
        (
            b'"Usage Date";"Model Name";"Prompt Tokens";"Completion Tokens";"Cost (USD)"\r\n'
            b'"05.11.2026";"small";"1.000";"100";"0,21"\r\n'
        ),
        (
            b"Day,Product,Tokens In,Tokens Out,Total,Currency\n"
            b'11/05/2026,small,"1,000",100,$0.21,USD\n'
            b"11/13/2026,other,0,0,0,usd\n"
        ),
    ],
)
def test_many_hands_write_the_same(content: bytes) -> None:
    """Delimiters, headers, encodings and ways of writing numbers: one line comes out."""
    assert LINE == read_invoice(content)[0]


def test_names_above_the_headers_are_passed_over() -> None:
    """An address stands above, and the number of the line is that of the file."""
    (line,) = read_invoice(b"Mistral AI\nInvoice 17\n\n" + PLAIN)
    assert (5, "small") == (line.line, line.model)


def test_columns_may_be_named() -> None:
    """Headers that nobody foresaw are given by name."""
    content = b"When,What,Rechnungsbetrag\n2026-11,small,1.00\n"
    with pytest.raises(InvoiceUnreadable, match="--map amount="):
        read_invoice(content)
    (line,) = read_invoice(content, {"date": "when", "model": "What", "amount": "Rechnungsbetrag"})
    assert ("2026-11", Decimal(1), None) == (line.period, line.amount_usd, line.input_tokens)


def test_days_among_months_are_months() -> None:
    """What cannot be parted is compared as a whole."""
    lines = read_invoice(b"date,model,amount\n2026-11-05,a,1\n2026-11,b,1\n")
    assert ["2026-11", "2026-11"] == [line.period for line in lines]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "needs columns"),
        (b"model,amount\n", "no lines"),
        (b"\x00\x01\x02" * 9, "not a text file"),
        (b"model,amount\nsmall,=1+1\n", "line 2: '=1.1' is a formula"),
        (b"model,amount\nsmall,@SUM(A1)\n", "is a formula"),
        (b"model,amount\nsmall,1.00 EUR\n", "not an amount in US dollars"),
        (b"model,amount,currency\nsmall,1.00,EUR\n", "'EUR', not in US dollars"),
        (b"model,amount\nsmall,\n", "there is no amount"),
        (b"model,amount,input tokens\nsmall,1,1.5\n", "not a whole number"),
        (b"model,amount,date\nsmall,1,05/11/2026\n", "write it as 2026-11-05"),
        (b"model,amount,date\nsmall,1,yesterday\n", "neither a day nor a month"),
        (b"model,amount,date\nsmall,1,2026-13-01\n", "neither a day nor a month"),
        (b"model,amount,date\nsmall,1,9999-12-31\n", "neither a day nor a month"),
        (b"model,amount\nsmall," + b"9" * 99 + b"\n", "not an amount"),
        (b'model,amount\n"' + b"x" * 200_000 + b'",1\n', "field larger"),
        (b"model,amount\n" + b"a,1\n" * 200_001, "more than 200,000 lines"),
        (b"x" * (16 << 20) + b"x", "larger than 16 MiB"),
    ],
)
def test_what_is_no_invoice(content: bytes, told: str) -> None:
    """It is refused with the line and the reason; nothing is guessed."""
    with pytest.raises(InvoiceUnreadable, match=told):
        read_invoice(content)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1234.56", "1234.56"),
        ("$1,234.56", "1234.56"),
        ("1.234,56", "1234.56"),
        ("1 234,56", "1234.56"),
        ("1\u202f234,56\u00a0$", "1234.56"),
        ("1'234.56", "1234.56"),
        ("USD 0.000175", "0.000175"),
        ("0,175", "0.175"),
        ("1,234", "1234"),
        ("1,234,567", "1234567"),
        ("1.234.567", "1234567"),
        ("(2.00)", "-2.00"),
        ("-$2.00", "-2.00"),
        ("$-2.00", None),
        ("1.2.3", None),
        ("1e5", None),
        ("NaN", None),
        ("\u0661", None),
    ],
)
def test_amounts(text: str, amount: str | None) -> None:
    """The last sign parts the fraction; three digits after a lone comma are thousands."""
    if amount is None:
        with pytest.raises(InvoiceUnreadable):
            read_amount(text)
    else:
        assert Decimal(amount) == read_amount(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [("1234567", 1234567), ("1,234,567", 1234567), ("1.234.567", 1234567), ("1 234", 1234),
     ("1234.0", 1234), ("0", 0)],
)  # fmt: skip
def test_counts(text: str, count: int) -> None:
    """Tokens are whole numbers, however they are grouped."""
    assert count == read_count(text)


@pytest.mark.parametrize(
    ("text", "period"),
    [
        ("2026-11-05", "2026-11-05"),
        ("2026-11-05T00:00:00Z", "2026-11-05"),
        ("2026/11/05 12:00", "2026-11-05"),
        ("05.11.2026", "2026-11-05"),
        ("2026-11", "2026-11"),
        ("11/2026", "2026-11"),
        ("Nov 2026", "2026-11"),
        ("November 5, 2026", "2026-11-05"),
        ("5 Nov 2026", "2026-11-05"),
        ("11/11/2026", "2026-11-11"),
    ],
)
def test_periods(text: str, period: str) -> None:
    """Days and months as they are written."""
    assert period == period_of(text, date_order([text]))


def test_the_column_says_what_comes_first() -> None:
    """One day beyond the twelfth decides for all of them."""
    assert "mdy" == date_order(["", "11/05/2026", "11/13/2026"])
    assert "dmy" == date_order(["05/11/2026", "13/11/2026"])
    assert None is date_order(["05/11/2026"])
    assert "2026-11-05" == period_of("11/05/2026", "mdy")


@given(st.binary(max_size=300))
def test_any_file_is_read_or_refused(content: bytes) -> None:
    """No content of a file breaks the reader."""
    for start in (b"", b"model,amount\n", b"date;model;amount\n"):
        try:
            read_invoice(start + content)
        except InvoiceUnreadable:
            continue


@given(st.text(max_size=40))
def test_any_cell_is_read_or_refused(text: str) -> None:
    """No cell breaks the reader."""
    for read in (read_amount, read_count, lambda cell: period_of(cell, None)):
        try:
            read(text)
        except InvoiceUnreadable:
            continue
