# SPDX-License-Identifier: Apache-2.0
"""Word, Excel and PowerPoint: the text of files that the usual libraries write, and of what they
cannot write but Word does."""

from __future__ import annotations

import datetime
import io

import docx
import openpyxl
import openpyxl.styles
import pptx
import pytest
from office_files import changed, part, saved, word

from freehold.documents import Limits, readers
from freehold.documents.document import Part
from freehold.errors import DocumentTooLargeError, MalformedDocumentError


def read(data: bytes, reader: str, **limits: int) -> Part:
    (found,) = readers.parse(data, reader, Limits(**limits))
    return found


# -- Word ----------------------------------------------------------------------------------------


def test_paragraphs_tables_headers_and_footers_in_order():
    document = docx.Document()
    document.add_heading("Vertrag über 北京", 1)
    document.add_paragraph("Größe\tTab\nnext line")
    table = document.add_table(2, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "Article", "two\nparagraphs"
    table.cell(1, 1).text = "39.00 €"
    table.cell(1, 0).add_table(1, 2).cell(0, 0).text = "inner"
    document.add_paragraph("")
    document.add_paragraph("")
    document.add_paragraph("After it, ").add_run("in bold").bold = True
    document.sections[0].header.paragraphs[0].text = "Head"
    document.sections[0].footer.paragraphs[0].text = "Foot"
    document.add_section().header.is_linked_to_previous = False
    document.sections[1].header.paragraphs[0].text = "Head"
    found = read(saved(document), "docx")
    assert found.text == (
        "Vertrag über 北京\nGröße\tTab\nnext line\nArticle | two paragraphs\ninner | | 39.00 €\n"
        "\nAfter it, in bold\n\nHead\n\nFoot\n"
    )
    assert (found.pages, found.pages_total, found.notes) == ((), None, ())


def test_all_that_would_be_printed_and_nothing_else():
    box = "<w:txbxContent><w:p><w:r><w:t>in a box</w:t></w:r></w:p></w:txbxContent>"
    found = read(
        word(
            '<w:p><w:pPr><w:tabs><w:tab w:val="left"/></w:tabs></w:pPr>'
            "<w:ins><w:r><w:t>inserted</w:t></w:r></w:ins>"
            "<w:del><w:r><w:delText>deleted</w:delText></w:r></w:del>"
            "<w:moveFrom><w:r><w:t>moved away</w:t></w:r></w:moveFrom>"
            '<w:hyperlink r:id="x"><w:r><w:t xml:space="preserve"> a link</w:t></w:r></w:hyperlink>'
            "<w:r><w:instrText>PAGE</w:instrText><w:t> 7</w:t></w:r>"
            "<w:r><w:t>co</w:t><w:noBreakHyphen/><w:t>op</w:t><w:br/><w:t>line</w:t></w:r></w:p>"
            "<w:sdt><w:sdtContent><w:p><w:r><w:t>controlled</w:t></w:r></w:p></w:sdtContent></w:sdt>"
            f"<w:p><w:r><mc:AlternateContent><mc:Choice Requires='x'>{box}</mc:Choice>"
            f"<mc:Fallback>{box}</mc:Fallback></mc:AlternateContent><w:t>around it</w:t></w:r>"
            "</w:p>",
            footnotes="<w:footnote><w:p><w:r><w:t>a note</w:t></w:r></w:p></w:footnote>",
        ),
        "docx",
    )
    assert found.text == (
        "inserted a link 7co\u2011op\nline\ncontrolled\nin a box\naround it\n\na note\n"
    )


def test_a_part_that_is_referred_to_and_not_there_is_no_harm():
    data = saved(docx.Document())
    text = part(data, "word/document.xml").replace(
        b"<w:sectPr", b"<w:p><w:r><w:t>x</w:t></w:r></w:p><w:sectPr", 1
    )
    gone = changed(data, {"word/document.xml": text, "word/styles.xml": None})
    assert read(gone, "docx").text == "x\n"
    with pytest.raises(MalformedDocumentError, match="holds no document"):
        read(changed(data, {"word/document.xml": None}), "docx")


# -- Excel ---------------------------------------------------------------------------------------


def workbook() -> openpyxl.Workbook:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Prices 2026"
    sheet.append(["Article", "Each", None, "When"])
    sheet.append(["Lampe Größe 5", 39.5, None, datetime.date(2026, 9, 11)])
    sheet.append([None, None])
    sheet.append([None, 0.1 + 0.2, True, datetime.datetime(2026, 9, 11, 8, 30)])
    sheet.append([123456789012345, datetime.time(9, 5), datetime.timedelta(hours=30), "two\nlines"])
    sheet["B9"], sheet["C9"] = 0.215, -1e-7
    sheet["B9"].number_format = "0.0%"
    sheet["D9"] = 45000.5
    sheet["D9"].number_format = '[$-409]d" of "mmmm\\ yyyy'
    sheet["E9"] = 1250
    sheet["E9"].number_format = '#,##0.00 "dozen";[Red]-#,##0.00'
    other = book.create_sheet("北京")
    other["B2"] = "合同"
    other.sheet_state = "hidden"
    book.create_sheet("empty")
    return book


def test_sheets_rows_and_cells():
    found = read(saved(workbook()), "xlsx")
    first, second = (
        "Prices 2026\nArticle | Each |  | When\nLampe Größe 5 | 39.5 |  | 2026-09-11\n"
        " | 0.3 | TRUE | 2026-09-11 08:30:00\n123456789012345 | 09:05:00 | 30:00:00 | two lines\n"
        " | 21.5% | -0.0000001 | 2023-03-15 | 1250",
        "北京\n | 合同",
    )
    assert found.text == f"{first}\n\n{second}\n"
    assert found.notes == ("hidden sheets: 北京",)
    assert [(p.number, p.name, found.text[p.start : p.end]) for p in found.pages] == [
        (1, "Prices 2026", first), (2, "北京", second), (3, "empty", ""),
    ]  # fmt: skip
    assert found.pages_total == 3


def test_dates_before_march_1900_and_since_1904():
    book = openpyxl.Workbook()
    for row, days in enumerate((1, 59, 61, 2_958_466), 1):
        book.active.cell(row, 1, days).number_format = "yyyy-mm-dd"
    assert read(saved(book), "xlsx").text == "Sheet\n1900-01-01\n1900-02-28\n1900-03-01\n2958466\n"
    book.epoch = openpyxl.utils.datetime.CALENDAR_MAC_1904
    assert "\n1904-01-02\n" in read(saved(book), "xlsx").text


def test_formulas_stand_for_their_saved_values():
    book = openpyxl.Workbook()
    book.active.append(["=1+1", "=A1", "x"])
    data = saved(book)
    found = read(data, "xlsx")
    assert found.text == "Sheet\n |  | x\n"
    assert found.notes == ("2 formulas were saved without a value and are missing",)
    sheet = part(data, "xl/worksheets/sheet1.xml").replace(b"<v />", b"<v>2</v>", 1)
    sheet = sheet.replace(b"<v></v>", b"<v>2</v>", 1).replace(b"<v/>", b"<v>2</v>", 1)
    found = read(changed(data, {"xl/worksheets/sheet1.xml": sheet}), "xlsx")
    assert found.text == "Sheet\n2 |  | x\n"


def test_shared_strings_with_runs_escapes_and_pronunciation():
    data = saved(workbook())  # that library writes all strings into the cells
    rows = b"".join(
        b'<row><c t="s"><v>%d</v></c><c t="str"><v>by formula</v></c></row>' % n for n in range(4)
    )
    strings = (
        "<sst><si><t>one</t></si><si><r><t>Ar_x000D_\nti</t></r><r><t>cle_x005F_</t></r>"
        "<rPh><t>ne</t></rPh></si><si><t>北京</t><rPh><t>ペキン</t></rPh></si></sst>"
    )
    listed = part(data, "xl/_rels/workbook.xml.rels").replace(
        b"</Relationships>",
        b'<Relationship Id="s" Type="x/sharedStrings" Target="shared.xml"/></Relationships>',
    )
    found = read(
        changed(data, {
            "xl/worksheets/sheet1.xml": b"<worksheet><sheetData>%s</sheetData></worksheet>" % rows,
            "xl/_rels/workbook.xml.rels": listed,
            "xl/shared.xml": strings.encode(),
        }),
        "xlsx",
    )  # fmt: skip
    assert found.text.startswith(
        "Prices 2026\none | by formula\nAr ticle_ | by formula\n北京 | by formula\n"
        " | by formula\n\n"
    )


def test_a_cell_at_the_far_end_costs_what_its_row_is_long():
    book = openpyxl.Workbook()
    book.active["A1"] = "here"
    book.active["AZ1048576"] = "there"
    assert read(saved(book), "xlsx").text == "Sheet\nhere\n" + " | " * 51 + "there\n"


def test_the_libraries_own_values_are_the_cells(tmp_path):
    data = saved(workbook())
    book = openpyxl.load_workbook(io.BytesIO(data), data_only=True)
    lines = read(data, "xlsx").text.split("\n")
    for row in book.active.iter_rows(values_only=True):
        cells = [value for value in row if isinstance(value, str)]
        assert not cells or any(
            all(cell.replace("\n", " ") in line for cell in cells) for line in lines
        )


# -- PowerPoint ----------------------------------------------------------------------------------


def test_slides_in_the_order_of_the_show_with_notes():
    show = pptx.Presentation()
    for title in ("Zwei", "合同 one"):
        slide = show.slides.add_slide(show.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = "first\nsecond\vline"
    slide.notes_slide.notes_text_frame.text = "say this"
    table = slide.shapes.add_table(2, 2, 0, 0, 100, 100).table
    table.cell(0, 0).text, table.cell(0, 1).text, table.cell(1, 1).text = "a", "b\nc", "d"
    group = slide.shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, 9, 9).text_frame.text = "grouped"
    show.slides.add_slide(show.slide_layouts[6])
    order = show.slides._sldIdLst  # the only way to move a slide
    order.insert(0, order[1])
    first = "合同 one\nfirst\nsecond\nline\na | b c\n | d\ngrouped\n\nNotes: say this"
    second = "Zwei\nfirst\nsecond\nline"
    found = read(saved(show), "pptx")
    assert found.text == f"{first}\n\n{second}\n"
    assert [(p.number, found.text[p.start : p.end]) for p in found.pages] == [
        (1, first), (2, second), (3, ""),
    ]  # fmt: skip
    assert (found.pages_total, found.notes) == (3, ())


def test_hidden_and_damaged_slides_are_said():
    show = pptx.Presentation()
    for title in ("one", "two", "three"):
        show.slides.add_slide(show.slide_layouts[5]).shapes.title.text = title
    data = saved(show)
    hidden = part(data, "ppt/slides/slide3.xml").replace(b"<p:sld ", b'<p:sld show="0" ', 1)
    found = read(
        changed(data, {"ppt/slides/slide3.xml": hidden, "ppt/slides/slide2.xml": b"<p:sld"}), "pptx"
    )
    assert found.text == "one\n\nthree\n"
    assert [page.number for page in found.pages] == [1, 3]
    assert found.pages_total == 3
    assert found.notes == ("damaged slides left out: 2", "slides hidden in the show: 3")


# -- all of them ---------------------------------------------------------------------------------


def test_a_text_that_is_too_long_is_refused():
    document = docx.Document()
    document.add_paragraph("x" * 1001)
    show = pptx.Presentation()
    show.slides.add_slide(show.slide_layouts[5]).shapes.title.text = "x" * 1001
    book = openpyxl.Workbook()
    book.active.append(["x" * 900])
    book.active.append(["y" * 900])
    for kind, what in (("docx", document), ("pptx", show), ("xlsx", book)):
        with pytest.raises(DocumentTooLargeError, match="1,000 characters"):
            read(saved(what), kind, max_characters=1000)
