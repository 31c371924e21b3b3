"""Sheets for people: nothing that a spreadsheet runs or rewrites, read back unchanged from any dialect; damage costs a row."""

import codecs
import csv
import io
import itertools
import random
import string

import polars as pl
import pytest

from linrep.errors import RecipeError
from linrep.interpret import sheet
from linrep.interpret.views import Latent
from linrep.places import place
from linrep.sheets import guarded, read_csv, unguarded, write_csv
from linrep.steer.config import Human
from linrep.steer.judges.human import People, item_of, read_filled, read_sheet, write_sheet
from linrep.steer.judges.verdict import Answer

COLUMNS = ("item", "text", "more")
LEADS = [
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
    "\r\n",
    "＝",
    "＋",
    "－",
    "＠",
    " =",
    '"=',
    "'=",
    "\u200b=",
    "\ufeff=",
    "\xa0+",
    ";=",
    ",=",
    "|",
    "%",
    "(",
]
REWRITTEN = [
    "1/2",
    "3-4",
    "1e5",
    "99893267e9313770",
    "007",
    "TRUE",
    "wahr",
    "Jan 5",
    "MAR-07",
    "5%",
    "$3",
    "(5)",
    "1,000",
    "12:30",
    "NaN",
    "Ｔrue",
]
NASTY = [f"{lead}cmd|' /C calc'!A0" for lead in LEADS] + LEADS + REWRITTEN + [
    '=HYPERLINK("http://x","y")', "a boat", "", "'", "''", "'tis", "it's", 'say "hi"', "a,b;c\td|e", "two\nlines", "ünï 🚤",
    "漢字", "'=1", "''=1",
]  # fmt: skip
DIALECTS = [
    {"delimiter": delimiter, "quoting": quoting, "lineterminator": end}
    for delimiter, quoting, end in itertools.product(",;\t|", (csv.QUOTE_MINIMAL, csv.QUOTE_ALL), ("\n", "\r\n"))
]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"]


def resaved(data, dialect, encoding="utf-8"):
    """As a spreadsheet saves it again."""
    rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    out = io.StringIO(newline="")
    csv.writer(out, **dialect).writerows(rows)
    return out.getvalue().encode(encoding)


def one_end(text):
    """Spreadsheets know one way to end a line within a cell."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def live(cell):
    """What spreadsheets run or rewrite, said otherwise than the code does."""
    return cell.lstrip(string.whitespace + "\"'\u200b\ufeff\xa0")[:1] in tuple("=+-@＝＋－＠") or cell[:1] in tuple(
        "0123456789$(%\t\r\n"
    )


@pytest.mark.parametrize("text", NASTY)
def test_no_cell_is_a_formula_and_all_come_back_unchanged(text):
    assert not live(guarded(text)) or guarded(text)[0] == "'"
    assert guarded(text)[:1] in ("", "'") or guarded(text)[0].isalpha()
    assert unguarded(guarded(text)) == text
    assert guarded("a red boat") == "a red boat"


def test_guards_of_any_text_can_be_taken_off():
    rng = random.Random(0)
    some = ["'", "=", "-", '"', "a", " ", "1", "\n", "ä", "＝", "\x00", "/"]
    for _ in range(5000):
        text = "".join(rng.choices(some, k=rng.randrange(6)))
        assert unguarded(guarded(text)) == text
        assert guarded(text)[:1] in ("", "'", "a", "ä")


def test_ends_of_lines_within_cells_come_back_as_they_were(tmp_path):
    write_csv(place(tmp_path / "s.csv"), COLUMNS, [("i", text, None) for text in NASTY])
    assert [row.cells["text"] for row in read_csv(place(tmp_path / "s.csv"), COLUMNS).rows] == NASTY


@pytest.mark.parametrize("dialect", DIALECTS, ids=str)
def test_a_sheet_is_read_back_from_every_dialect_and_encoding(tmp_path, dialect):
    file = place(tmp_path / "s.csv")
    texts = [one_end(text) for text in NASTY]
    write_csv(file, COLUMNS, [(f"i{string.ascii_lowercase[i % 26]}", text, i) for i, text in enumerate(texts)])
    written = file.read_bytes()
    for encoding in ENCODINGS:
        file.write_bytes(resaved(written, dialect, encoding))
        table = read_csv(file, COLUMNS)
        assert table.damaged == ()
        assert [row.cells["text"] for row in table.rows] == texts
        assert [row.cells["more"] for row in table.rows] == [str(i) for i in range(len(texts))]


def test_a_damaged_row_is_told_by_its_line_and_costs_no_other(tmp_path):
    file = tmp_path / "s.csv"
    file.write_text(
        'sep=;\nText;ITEM;more;own\na;i;1;\n"b"c;j;2;x\n\n;;;\n"two\nlines";k;3\n d;l;4;;;\ne;m;5;;;too many\nf;n;6;x'
    )
    table = read_csv(place(file), COLUMNS)
    assert [(row.line, row.cells["item"], row.cells["text"]) for row in table.rows] == [
        (3, "i", "a"), (7, "k", "two\nlines"), (9, "l", " d"), (11, "n", "f"),
    ]  # fmt: skip
    assert len(table.damaged) == 2
    assert table.damaged[0].startswith("line 4: ")
    assert table.damaged[1] == "line 10: it has 6 cells, the head has 4"
    file.write_text('item,text,more\ni,a,1\nj,"never closed,2\nk,c,3\n')
    table = read_csv(place(file), COLUMNS)
    assert [row.cells["item"] for row in table.rows] == ["i"]
    assert table.damaged[0].startswith("line 3 to 4: ")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is no sheet"),
        (b"a,b\n1,2\n", "is no sheet"),
        (b"item,text,text,more\n", "each once"),
        ("item,text,more\ni,käse,1\n".encode("latin-1"), "byte 18 is not UTF-8"),
        (codecs.BOM_UTF8 + b"item\xff", "begins as UTF-8-SIG and is not"),
        (codecs.BOM_UTF16_LE + b"i\x00t", "begins as UTF-16 and is not"),
        (b"PK\x03\x04\x14\x00", "is a workbook: save it as CSV"),
    ],
)
def test_a_file_that_is_no_sheet_is_one_line(tmp_path, data, said):
    (tmp_path / "s.csv").write_bytes(data)
    with pytest.raises(RecipeError, match=said):
        read_csv(place(tmp_path / "s.csv"), COLUMNS)
    with pytest.raises(RecipeError, match="cannot read the sheet"):
        read_csv(place(tmp_path / "none.csv"), COLUMNS)


CLASSES = ['=HYPERLINK("http://x")', "-boat", "+tree", "@house", "\tstar", "n=1", "＝key"]


def answers(n=40):
    return [Answer(f"a thing {i}", "", CLASSES[0], CLASSES[1], "-what?") for i in range(n)]


def test_a_humans_sheet_guards_the_choices_too_and_its_items_are_letters(tmp_path):
    file = place(tmp_path / "s.csv")
    write_sheet(answers(), CLASSES, file)
    for row in csv.DictReader(io.StringIO(file.read_bytes().decode("utf-8-sig"), newline="")):
        assert row["item"].isalpha()
        assert all(not live(cell) or cell[0] == "'" for cell in row.values() if cell)
    keys = {f"{i:016x}" for i in range(0, 16**16, 16**13 + 7)} | {"99893267e9313770"}
    assert len({item_of(key) for key in keys}) == len(keys)
    assert all(item_of(key).isalpha() for key in keys)


def filled(file, choose):
    data = file.read_bytes()
    again = data.startswith(codecs.BOM_UTF16_LE)
    text = data.decode("utf-16" if again else "utf-8-sig")
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=";" if again else ","))
    rows = [rows[0], *(choose(i, row) for i, row in enumerate(rows[1:]))]
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=";", lineterminator="\r\n").writerows(rows)
    file.write_bytes(out.getvalue().encode("utf-16"))


def test_a_sheet_that_comes_back_damaged_costs_its_damaged_rows_which_are_counted(tmp_path):
    file, given = place(tmp_path / "s.csv"), answers()
    judge = People(Human(sheet=str(tmp_path / "s.csv")), file, CLASSES)
    judge(given)
    bad = {0: ("9.9893267E+15", "A", "yes"), 1: (None, "E", "yes"), 2: (None, "a. ", "perhaps"), 3: (None, "", "")}

    def choose(i, row):
        item, choice, sensible = bad.get(i, (None, " Ｂ) ", "Yes"))
        return [item or row[0], *row[1:-2], choice, sensible]

    filled(file, choose)
    verdicts = judge(given)
    assert sum(verdict.score is not None for verdict in verdicts) == 36
    assert {verdict.coherence for verdict in verdicts if verdict.score is not None} == {1.0}
    assert judge.extra["sheet"]["refused"] == 3
    assert "line 2: no answer '9.9893267E+15'" in judge.extra["sheet"]["why"]
    assert "line 3: choice is 'e'" in judge.extra["sheet"]["why"]
    assert "1 of 40 rows" in str(judge.waiting)
    filled(file, lambda i, row: ["1", *row[1:]])
    with pytest.raises(RecipeError, match="line 2: no answer '1' in this artefact; and 39 more"):
        read_sheet(file, given, CLASSES)


def test_an_answer_judged_twice_and_not_alike_has_no_verdict(tmp_path):
    file, given = place(tmp_path / "s.csv"), answers(3)
    write_sheet(given, CLASSES, file)
    filled(file, lambda i, row: [*row[:-2], "a", "yes"])
    rows = file.read_bytes().decode("utf-16").splitlines()
    for more, n in ((rows[1], 3), (rows[1].replace(";a;yes", ";none;yes"), 2)):
        file.write_bytes("\r\n".join([*rows, more]).encode("utf-16"))
        found = read_filled(file, given, CLASSES)
        assert (len(found.verdicts), len(found.refused)) == (n, 3 - n)


def test_edited_explanations_are_read_from_any_dialect_and_damage_costs_a_row(tmp_path):
    file = place(tmp_path / "e.csv")
    names = [f"sae-{i}" for i in range(len(NASTY))]
    frame = pl.DataFrame(
        {
            "layer": 2,
            "sae": names,
            "latent": range(len(NASTY)),
            "explanation": [one_end(text) for text in NASTY],
            "source": "x",
        }
    )
    scores = pl.DataFrame({"layer": [2], "sae": ["sae-0"], "latent": [0], "task": ["detection"], "modality": ["image"],
                           "control": ["own"], "value": [0.5]})  # fmt: skip
    sheet.write_sheet(file, frame, scores)
    rows = csv.reader(io.StringIO(file.read_bytes().decode("utf-8-sig"), newline=""))
    assert all(not live(row[3]) or row[3][0] == "'" for row in rows)
    wanted = {
        Latent(2, name, i): " ".join(text.split())
        for i, (name, text) in enumerate(zip(names, NASTY, strict=True))
        if text.strip()
    }
    written = file.read_bytes()
    for dialect in DIALECTS[::3]:
        file.write_bytes(resaved(written, dialect, "utf-16"))
        assert sheet.read_edited(file) == (wanted, [])
    head = "layer;sae;latent;explanation\n"
    file.write_bytes((head + "2;a;1;x\ntwo;a;2;y\n2,0;a;3;z\n2;b;1;p\n2;b;1;q\n2;c;1;p\n2;c;1;p\n").encode())
    found = sheet.read_edited(file)
    assert found.texts == {Latent(2, "a", 1): "x", Latent(2, "a", 3): "z", Latent(2, "c", 1): "p"}
    assert found.refused == [
        "line 3: layer and latent should be numbers",
        "line 6: latent 1 of b stands twice, and not alike, see line 5",
    ]
