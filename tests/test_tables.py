"""Tables on disk: read as they are written, or refused with what to do."""

import os
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ntkbayes.datasets import read_table
from ntkbayes.errors import (
    DataError,
    DataWarning,
    MissingDependencyError,
    StorageError,
    UnknownNameError,
)


def write(path, text):
    path.write_text(text)
    return path


def test_parquet_without_pyarrow_names_the_extra_that_brings_it(tmp_path, monkeypatch):
    path = tmp_path / "birds.parquet"
    pd.DataFrame({"wing": [1.0, 2.0], "kind": ["tit", "wren"]}).to_parquet(path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'ntkbayes\[parquet\]'"):
        read_table(path, target="kind")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".pq", ".CSV"])
def test_tables_of_every_suffix_hold_the_same_data(tmp_path, suffix):
    frame = pd.DataFrame(
        {"a": [1.5, 2.0, 3.0], "kind": ["u", "None", "u"], "b": [True, False, True]}
    )
    path = tmp_path / f"table{suffix}"
    if suffix in (".parquet", ".pq"):
        frame.to_parquet(path)
    else:
        frame.to_csv(path, sep="\t" if suffix == ".tsv" else ",", index=False)
    data = read_table(path, target="kind")
    assert (data.name, data.feature_names, data.class_names) == ("table", ("a", "b"), ("None", "u"))
    np.testing.assert_array_equal(data.features, [[1.5, 1], [2, 0], [3, 1]])
    np.testing.assert_array_equal(data.labels, [1, 0, 1])


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ("1 0", (0, 1)),
        ("a 1", ("1", "a")),
        ("True False", (False, True)),
        ("1.5 1", (1, 1.5)),
        ("2.0 1.0", (1.0, 2.0)),
        ("9007199254740993 9007199254740992", (9007199254740992, 9007199254740993)),
        # What does not convert back is text, or two classes would be one.
        ("1.10 1.1", ("1.1", "1.10")),
        ("1e3 1000", ("1000", "1e3")),
        ("007 7", ("007", "7")),
        ("+1 -1", ("+1", "-1")),
        ("1_0 10", ("10", "1_0")),
        ("0x1F 31", ("0x1F", "31")),
        ("TRUE FALSE", ("FALSE", "TRUE")),
        ("NA EU", ("EU", "NA")),
        ("A a", ("A", "a")),
    ],
)
def test_labels_in_text_are_values_only_if_they_convert_back(tmp_path, labels, classes):
    first, second = labels.split()
    path = write(tmp_path / "t.csv", f"x,y\n1,{first}\n2,{second}\n")
    data = read_table(path, target="y")
    assert data.class_names == classes
    assert [type(c) for c in data.class_names] == [type(c) for c in classes]
    assert [str(data.class_names[k]) for k in data.labels] == [first, second]


def test_numbers_in_text_are_read_to_the_last_bit(tmp_path):
    values = np.random.default_rng(0).standard_normal(50) * 10.0 ** np.arange(-150, 150, 6)
    rows = "".join(f"{v!r},{i % 2}\n" for i, v in enumerate(values.tolist()))
    data = read_table(write(tmp_path / "t.csv", f"x,y\n{rows}"), target="y")
    np.testing.assert_array_equal(data.features[:, 0], values)


@pytest.mark.parametrize(
    ("text", "names", "features"),
    [
        ("NA,null,y\n1,2,a\n3,4,b\n", ("NA", "null"), [[1, 2], [3, 4]]),
        ("nan,n/a,y\n1,2,a\n3,4,b\n", ("nan", "n/a"), [[1, 2], [3, 4]]),
        ("\ufeffx,z,y\n1,2,a\n3,4,b\n", ("x", "z"), [[1, 2], [3, 4]]),
        ("x,z,y\r\n1,2,a\r\n\r\n3,4,b\r\n", ("x", "z"), [[1, 2], [3, 4]]),
        ("x,z,y\r1,2,a\r3,4,b", ("x", "z"), [[1, 2], [3, 4]]),
        ('"x\nm",z,y\n 1 ,"2","a"\n3,4,b\n', ("x\nm", "z"), [[1, 2], [3, 4]]),
        ("x,z,y\n1e0,true,a\n+3,false,b\n", ("x", "z"), [[1, 1], [3, 0]]),
        ("0,1,y\n1,2,a\n3,4,b\n", ("0", "1"), [[1, 2], [3, 4]]),
    ],
)
def test_text_is_read_as_it_is_written(tmp_path, text, names, features):
    (tmp_path / "t.csv").write_bytes(text.encode())
    data = read_table(tmp_path / "t.csv", target="y")
    assert (data.feature_names, data.class_names) == (names, ("a", "b"))
    np.testing.assert_array_equal(data.features, features)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; it needs a header and rows"),
        (" \n\n", "is empty; it needs a header and rows"),
        ("x,y\n", "features are empty"),
        ("x,kinds\n1,2\n", r"no column 'y'; its columns are \['x', 'kinds'\]"),
        (",".join(map("c{}".format, range(50))), r"'c11', … \(50 in all\)\]"),
        ("x y\n1 a\n", r"\['x y'\]; write the file with commas if spaces separate"),
        ("y\n1\n2\n", "no features: its only column is the target 'y'"),
        ("x,y\n1,a\n2,\n3,b\n", r"1 target\(s\) are missing, in rows 1"),
        ("x,y\n1,a\n2, \n3,b\n", r"1 target\(s\) are missing, in rows 1"),
        ("x,y\n1,1\n2,nan\n3,2\n", "the label 'nan' is among numbers; drop such rows"),
        (
            "x,y\n1,a\n,b\n3,b\n",
            r"1 value\(s\) are missing, in the column\(s\) 'x' \(1\), the first in row 1; .*--impute",
        ),
        ("x,y\n1,a\nred,b\n3,b\n", "column 'x' holds 'red' in row 1; encode it as numbers or drop"),
        ("x,y\n1,a\nNA,b\n", "column 'x' holds 'NA' in row 1; if it stands for a missing value"),
        ("x,y\n1,a\ninfinity,b\n", "column 'x' holds inf in row 1; numbers must be finite"),
        ("x,y\n1,a\n0x1F,b\n", "holds '0x1F' in row 1"),
        ("x,y\n1,a\n2024-01-31,b\n", "holds '2024-01-31' in row 1; count time in a unit"),
        ("x,y\n1,a\nyes,b\n", "holds 'yes' in row 1"),
        ('x,y\n1,a\n"1,5",b\n', r"holds '1,5' in row 1; write plain numbers.* such as 1234\.5"),
        ('x,y\n1,a\n"1,234.5",b\n', r"'1,234\.5' in row 1; write plain numbers"),
        ("x,y\n1,a\n5%,b\n", "holds '5%' in row 1; write plain numbers"),
        ("x,y\n1,a\n€ 1 000,b\n", "holds '€ 1 000' in row 1; write plain numbers"),
        ("x,y\n1,a\n1_000,b\n", "holds '1_000' in row 1; write plain numbers"),
        ("x,x,y\n1,2,a\n1,3,b\n", "more than one column called 'x'"),
        (",x,y\n0,2,a\n1,3,b\n", "a column without a name, number 1 of 3: perhaps row numbers"),
        ("x,y,\n2,a,\n3,b,\n", "a column without a name, number 3 of 3.* separator at the end"),
        ("Unnamed: 0,x,y\n0,2,a\n1,3,b\n", r"column 'Unnamed: 0', .*remove it .*index=False"),
        ("5.1,3.5,setosa\n4,3,setosa\n6,3,lily\n", "its first line must hold the column names"),
        ("5.1,3.5,y\n4,3,y\n6,3,z\n", r"first line .* looks like data, 5\.1, 3\.5, y, …"),
        ("x,y\n1, a\n2,a\n3,b\n", "labels ' a' and 'a' look alike"),
        ("x,y\n1,café\n2,cafe\u0301\n3,b\n", r"'caf\\xe9' and 'cafe\\u0301' look alike"),
        ("x,y\n1,a\n2,a\u200b\n3,b\n", r"labels 'a' and 'a\\u200b' look alike"),
        ("x,y\n1,True\n2,true\n3,False\n", "labels 'True' and 'true' look alike"),
        ("x,y\n" + "".join(f"{i % 7},{i + 0.5}\n" for i in range(30)), "like regression"),
        ("x,y\n" + "".join(f"{i % 7},{i / 10:.2f}\n" for i in range(50)), "like regression"),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, message):
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_table(path, target="y")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x;y\n1,5;a\n", r"single column, 'x;y'; .*read_csv\('.*', sep=';', decimal=','\)"),
        (b"x\ty\n1\ta\n", r"single column, .* separated by tabs.* sep='\\t'\)\.to_csv"),
        (b"sep=;\nx;y\n1;a\n", "separated by semicolons"),
        (b"a, b;y\n1,5;a\n1;5;a\n", "line 3 has 1 fields, the first 2; .* by semicolons"),
        (b"# made in May\nx,y\n1,a\n", "begins with a comment"),
        (b"x,y\n1,2\n1,2,3\n", "line 3 has 3 fields, the first 2; fix the line"),
        (b"x,y\n0,2,a\n1,3,b\n", "line 2 has 3 fields, the first 2"),
        (b"x,y\n1,2\n1\n", "line 3 has 1 fields, the first 2"),
        (b'x,y\n1,"a\n2,b\n', "unexpected end of data; fix the quotes"),
        (b'x,y\n1,"a" b\n2,b\n', "line 2: ',' expected after '\"'; fix the quotes"),
        (b"x,y\n1,caf\xe9\n", r"line 2 is not UTF-8 \(byte 0xe9\), .* iconv -f LATIN1"),
        ("x,y\n1,a\n".encode("utf-16"), "is UTF-16: save it as UTF-8, e.g. by iconv"),
        ("x,y\n1,a\n".encode("utf-32"), "is UTF-32: save it as UTF-8, e.g. by iconv -f UTF-32"),
        ("x,y\n1,a\n".encode("utf-16-be"), "line 1 holds the character NUL"),
        (b"x,y\n1,a\n2,b\0\n", "line 3 holds the character NUL"),
        (b"\x1f\x8b\x08\0", "compressed by gzip: unpack it"),
        (b"PK\x03\x04\0", "zip archive or an Excel workbook"),
        (b"PAR1\0", r"a Parquet file: name it \.parquet"),
    ],
)
def test_text_that_is_no_such_table_is_refused_with_the_remedy(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(StorageError, match=message):
        read_table(tmp_path / "t.csv", target="y")


def test_a_column_that_counts_the_rows_is_a_warning(tmp_path):
    rows = "".join(f"{i + 1},{i % 3},{'ab'[i % 2]}\n" for i in range(10))
    with pytest.warns(DataWarning, match=r"column 'id' counts the rows.*; remove it if"):
        data = read_table(write(tmp_path / "t.csv", f"id,x,y\n{rows}"), target="y")
    assert data.feature_names == ("id", "x")


@pytest.mark.parametrize("target", ["2", "kind", "__index_level_0__"])
def test_every_column_of_a_parquet_file_can_be_the_target(tmp_path, target):
    index = pd.Index(["u", "v", "u"], name=None if target.startswith("_") else target)
    frame = pd.DataFrame({0: [1, 2, 3], 1: [True, False, True]}, index=index)
    if target == "2":
        frame = frame.reset_index(names=2)
    frame.to_parquet(tmp_path / "t.parquet")
    data = read_table(tmp_path / "t.parquet", target=target)
    assert (data.feature_names, data.class_names) == (("0", "1"), ("u", "v"))
    np.testing.assert_array_equal(data.features, [[1, 1], [2, 0], [3, 1]])
    np.testing.assert_array_equal(data.labels, [0, 1, 0])


def test_ordered_categories_of_a_parquet_file_keep_their_order(tmp_path):
    levels = pd.Categorical(["low", "high", "low"], categories=["low", "high"], ordered=True)
    pd.DataFrame({"x": [1, 2, 4], "y": levels}).to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet", target="y").class_names == ("low", "high")


@pytest.mark.parametrize("name", [None, "id"])
def test_an_index_of_a_parquet_file_is_no_feature(tmp_path, name):
    frame = pd.DataFrame({"x": [1, 2], "y": ["a", "b"]}, index=pd.Index([7, 9], name=name))
    frame.to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet", target="y").feature_names == ("x",)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (pd.array([2, 1, 3], dtype="Int64"), [2, 1, 3]),
        ([Decimal("1.50"), Decimal("0.1"), Decimal("7")], [1.5, 0.1, 7]),
        (pd.array([True, False, True], dtype="boolean"), [1, 0, 1]),
        (
            pd.array([2, None, 3], dtype="Int64"),
            r"missing, in the column\(s\) 'x' \(1\), the first in row 1",
        ),
        (
            pd.array([True, None, True], dtype="boolean"),
            r"missing, in the column\(s\) 'x' \(1\), the first in row 1",
        ),
        (pd.to_datetime(["2024-01-31"] * 3), "holds .*2024-01-31.*; count time in a unit"),
        (pd.to_timedelta([1, 2, 3], unit="s"), "column 'x' holds .*; count time in a unit"),
        ([[1], [2, 3], []], r"holds array\(\[1\]\) in row 0"),
        ([b"1", b"2", b"3"], "holds b'1' in row 0"),
    ],
)
@pytest.mark.parametrize("others", [{}, {"z": [0.0, 1, 2]}])  # alone, a column keeps its type
def test_types_of_parquet_columns_are_numbers_or_refused(tmp_path, column, values, others):
    path = tmp_path / "t.parquet"
    pd.DataFrame({"x": column, **others, "y": ["a", "b", "a"]}).to_parquet(path)
    if isinstance(values, str):
        with pytest.raises(DataError, match=values):
            read_table(path, target="y")
    else:
        np.testing.assert_array_equal(read_table(path, target="y").features[:, 0], values)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_name_that_is_not_utf8_becomes_a_name_that_can_be_written(tmp_path, suffix):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")).with_suffix(suffix)
    frame = pd.DataFrame({"x": [1, 2], "y": ["a", "b"]})
    path.write_bytes(frame.to_csv(index=False).encode() if suffix == ".csv" else frame.to_parquet())
    assert read_table(path, target="y").name == "caf\\udce9"


def test_a_misspelt_target_gets_a_suggestion(tmp_path):
    path = write(tmp_path / "t.csv", "x,species\n1,2\n")
    with pytest.raises(DataError, match=r"no column 'spices'.*did you mean 'species'"):
        read_table(path, target="spices")


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(StorageError, match="there is no file"):
        read_table(tmp_path / "none.csv", target="y")
    with pytest.raises(StorageError, match="there is no file"):
        read_table(write(tmp_path / "file", "") / "none.csv", target="y")
    with pytest.raises(StorageError, match=r"cannot read .*\.csv: .*; check the path"):
        read_table(tmp_path / f"{'long' * 100}.csv", target="y")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(StorageError, match=r"folder\.csv is a folder; give a file"):
        read_table(tmp_path / "folder.csv", target="y")
    with pytest.raises(StorageError, match=r"known suffixes are \.csv, \.tsv, \.parquet and \.pq"):
        read_table(tmp_path / "table.xlsx", target="y")
    with pytest.raises(StorageError, match=r"as \.parquet") as broken:
        read_table(write(tmp_path / "t.parquet", "not parquet"), target="y")
    assert broken.value.__cause__ is not None


# --- like another table ---------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["1 2 3", "1.5 2 10", "True False True", "a b 1.10"])
def test_a_second_table_has_the_classes_of_the_first(tmp_path, labels):
    words = labels.split()
    rows = [f"{i},{word}" for i, word in enumerate(words)]
    train = read_table(write(tmp_path / "a.csv", "\n".join(["x,y", *rows])), target="y")
    few = write(tmp_path / "b.csv", f"x,y\n7,{words[1]}\n8,{words[1]}\n")
    test = read_table(few, target="y", like=train)
    assert test.class_names == train.class_names
    np.testing.assert_array_equal(test.labels, [train.labels[1]] * 2)


def test_a_label_that_the_first_table_has_not_is_refused(tmp_path):
    train = read_table(write(tmp_path / "a.csv", "x,y\n1,a\n2,b\n"), target="y")
    other = write(tmp_path / "b.csv", "x,y\n1,a\n2,c\n")
    with pytest.raises(DataError, match="unseen label 'c' in row 1"):
        read_table(other, target="y", like=train)


# --- targets that are numbers ---------------------------------------------------------------------


def numbers_in(tmp_path, column):
    path = tmp_path / "prices.csv"
    rows = "".join(f"{i % 7},{value}\n" for i, value in enumerate(column))
    path.write_text(f"rooms,price\n{rows}")
    return path


def test_a_column_of_numbers_is_read_as_real_targets(tmp_path):
    path = numbers_in(tmp_path, ["1.5", "2", "1e3"])
    data = read_table(path, target="price", targets="numbers")
    assert data.class_names is None
    np.testing.assert_array_equal(data.targets[:, 0], [1.5, 2.0, 1000.0])
    again = read_table(path, target="price", like=data)
    np.testing.assert_array_equal(again.targets, data.targets)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (["1.5", "two", "3"], "row 1 holds 'two'; if these are classes, leave out --likelihood"),
        (["1.5", "", "3"], "row 1 holds nan; drop such rows"),
        (["1.5", "inf", "3"], "row 1 holds inf; drop such rows"),
    ],
)
def test_targets_that_are_no_numbers_are_refused_by_row(tmp_path, column, message):
    with pytest.raises(DataError, match=message):
        read_table(numbers_in(tmp_path, column), target="price", targets="numbers")


def test_numbers_that_nearly_every_point_has_another_of_are_no_classes(tmp_path):
    with pytest.raises(DataError, match=r"look like regression or counts; use .*--likelihood"):
        read_table(numbers_in(tmp_path, map(str, range(40))), target="price")


def test_an_unknown_kind_of_targets_is_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'numbers'"):
        read_table(numbers_in(tmp_path, ["1"]), target="price", targets="number")
