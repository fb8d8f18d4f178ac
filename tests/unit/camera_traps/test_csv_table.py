"""Tables of pictures and of cameras, with the names, times and flaws that people's tables have."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from refusals import refused
from remarked import remarked
from wildpdiff.camera_traps.csv_table import CsvTableReader
from wildpdiff.camera_traps.formats import find_reader, read_pictures
from wildpdiff.camera_traps.records import PictureTable
from wildpdiff.camera_traps.table_suite import TableSuite
from wildpdiff.errors import DataError


def read(folder: Path, text: str, **columns: str) -> PictureTable:
    (folder / "t.csv").write_text(text, encoding="utf-8")
    return CsvTableReader().read(folder / "t.csv", columns)


def test_the_projects_own_columns(tmp_path: Path) -> None:
    table = read(
        tmp_path,
        "path,label,task,split,group,datetime,sequence,frame,elevation\n"
        "a/1.jpg,fox,North,train,seen,2020-05-01 10:00:00,s1,2,1480\n"
        "a/2.jpg,NA,North,,,,,,NA\n"
        "a/3.jpg,fox,North,unlabelled,seen,,,,\n",
    )
    first, second, third = table.pictures
    assert (first.path, first.camera, first.labels, first.line) == ("a/1.jpg", "North", ("fox",), 2)
    assert (first.split, first.group, first.sequence, first.frame) == ("train", "seen", "s1", 2)
    assert first.time == datetime(2020, 5, 1, 10)
    assert first.values == {"elevation": "1480"}
    assert second.labels == third.labels == ()
    assert second.values == {}
    assert table.columns == ("elevation",)
    assert table.remarks == ()
    assert table.root == tmp_path


@pytest.mark.parametrize(
    ("header", "path"),
    [
        ("Path,Label,Task", "a.jpg"),
        ("FILE_NAME,Common Name,Station ID", "a.jpg"),
        ("filepath,species,site", "a.jpg"),
        ("Image,Class,Location", "a.jpg"),
    ],
)
def test_usual_names_in_any_case(tmp_path: Path, header: str, path: str) -> None:
    table = read(tmp_path, f"{header}\n{path},fox,North\n")
    (picture,) = table.pictures
    assert (picture.path, picture.labels, picture.camera) == (path, ("fox",), "North")


def test_a_choice_among_several_columns_is_the_users(tmp_path: Path) -> None:
    text = "file,species,scientific name,site,camera\na.jpg,fox,Vulpes vulpes,Wood,C1\n"
    with refused(DataError, "'species'", "'scientific name'", "--columns label="):
        read(tmp_path, text)
    with refused(DataError, "'camera'", "'site'", "--columns task="):
        read(tmp_path, text, label="species")
    table = read(tmp_path, text, label="Species", task="camera")
    assert table.pictures[0].labels == ("fox",)
    assert table.pictures[0].camera == "C1"
    assert table.columns == ("scientific name", "site")
    with refused(DataError, "'Specie'", "'species'"):
        read(tmp_path, text, label="Specie")
    with refused(DataError, "'colour'"):
        read(tmp_path, text, colour="species")


def test_an_exact_name_wins(tmp_path: Path) -> None:
    table = read(tmp_path, "path,filename,label,species,task,site\na/b.jpg,b.jpg,fox,Vulpes,C1,Wood\n")
    assert table.pictures[0].path == "a/b.jpg"
    assert table.columns == ("filename", "species", "site")


def test_addresses_lead_to_copies_of_the_pictures(tmp_path: Path) -> None:
    (tmp_path / "copies" / "a b").mkdir(parents=True)
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / "copies" / "a b" / name).touch()
    path = tmp_path / "a.csv"
    path.write_text("image_url,label,site\nhttps://x.org/s/a%20b/1.jpg?size=9,fox,A\ngs://s/a b/2.jpg,fox,A\n")
    assert [picture.path for picture in read_pictures(path).pictures] == ["s/a b/1.jpg", "a b/2.jpg"]
    path.write_text("path,label,site\ngs://s/p/a b/1.jpg,fox,A\ngs://s/p/a b/2.jpg,fox,A\n")
    table = read_pictures(path)
    assert [(table.root / picture.path).is_file() for picture in table.pictures] == [True, True]


def test_a_folder_and_a_file_make_a_path(tmp_path: Path) -> None:
    table = read(tmp_path, "Station,Species,Directory,FileName\nS1,fox,.\\raw\\S1,1.JPG\nS1,fox,,raw/2.JPG\n")
    assert [picture.path for picture in table.pictures] == ["raw/S1/1.JPG", "raw/2.JPG"]


def test_a_named_file_has_its_folder(tmp_path: Path) -> None:
    text = "Bild,Directory,Art\n{}1.JPG,raw/S1,fox\n"
    assert read(tmp_path, text.format(""), file="Bild").pictures[0].path == "raw/S1/1.JPG"
    assert read(tmp_path, text.format("all/S1/"), file="Bild").pictures[0].path == "all/S1/1.JPG"


def test_a_path_without_the_file_is_the_folder(tmp_path: Path) -> None:
    table = read(tmp_path, "path,filename,label\nraw/S1,1.JPG,fox\nraw/S1,2.JPG,fox\n")
    assert [picture.path for picture in table.pictures] == ["raw/S1/1.JPG", "raw/S1/2.JPG"]


def test_a_table_without_a_known_label_says_so(tmp_path: Path) -> None:
    table = read(tmp_path, "path,task,Tierart,frame\na.jpg,x,Fuchs,3.0\n")
    assert table.pictures[0].labels == ()
    assert table.pictures[0].frame == 3
    assert any("Tierart" in remark and "--columns label=" in remark for remark in table.remarks)


def test_times_in_one_column_or_two(tmp_path: Path) -> None:
    table = read(
        tmp_path, "file,label,Date,Time\na.jpg,fox,13/02/2020,10:30\nb.jpg,fox,1/2/2020,10:31\nc.jpg,fox,foo,bar\n"
    )
    assert [picture.time for picture in table.pictures] == [
        datetime(2020, 2, 13, 10, 30),
        datetime(2020, 2, 1, 10, 31),
        None,
    ]
    assert len(table.remarks) == 1
    assert "'foo bar'" in table.remarks[0]
    assert table.columns == ()
    assert read(tmp_path, "file,taken\na.jpg,2013:05:01 10:00:00\n").pictures[0].time == datetime(2013, 5, 1, 10)


def test_a_date_alone_is_no_time(tmp_path: Path) -> None:
    for date in ("2020-02-13", "2020:02:13", "13.02.2020"):
        table = read(tmp_path, f"file,date\na.jpg,{date}\n")
        assert table.pictures[0].time is None
        assert table.pictures[0].values == {"date": date}


def test_times_are_found_under_any_name(tmp_path: Path) -> None:
    taken = ("8.05.2020 10:00:00", "9.05.2020 10:01:00", "9.05.2020 10:01:02", "10.05.2020 23:00:00")
    rows = [f"{n}.jpg,fox,{n // 2},{time},01.01.2020 08:00:00" for n, time in enumerate(taken)]
    text = "\n".join(["path,label,task,Aufnahmezeit,aufgestellt", *rows])
    table = read(tmp_path, text)
    assert [picture.time for picture in table.pictures[:2]] == [datetime(2020, 5, 8, 10), datetime(2020, 5, 9, 10, 1)]
    assert table.columns == ("aufgestellt",)
    (told,) = table.remarks
    assert "'Aufnahmezeit'" in told
    others = ["geprüft", *(f"2021-01-0{number} 09:00:00" for number in range(1, 5))]
    several = [f"{line},{other}" for line, other in zip(text.splitlines(), others, strict=True)]
    table = read(tmp_path, "\n".join(several))
    assert table.pictures[0].time is None
    assert len([remark for remark in table.remarks if "may hold" in remark]) == 2


def test_several_rows_of_a_picture_are_several_labels(tmp_path: Path) -> None:
    table = read(tmp_path, "path,label,task\na.jpg,fox,x\nb.jpg,fox,x\na.jpg,deer,x\nb.jpg,fox,x\na.jpg,fox,y\n")
    assert [(p.camera, p.path, p.labels) for p in table.pictures] == [
        ("x", "a.jpg", ("fox", "deer")),
        ("x", "b.jpg", ("fox",)),
        ("y", "a.jpg", ("fox",)),
    ]
    assert len(table.remarks) == 2
    both = read(tmp_path, "path,label,task,split,group\na.jpg,fox,x,,seen\na.jpg,deer,x,train,\n")
    assert (both.pictures[0].split, both.pictures[0].group) == ("train", "seen")
    with refused(DataError, "line 3", "line 2", "a.jpg", "train", "test"):
        read(tmp_path, "path,label,task,split\na.jpg,fox,x,train\na.jpg,fox,x,test\n")


def test_rows_without_a_path_or_camera_are_left_out(tmp_path: Path) -> None:
    table = read(tmp_path, "path,label,task\na.jpg,fox,x\n,fox,x\nb.jpg,fox,\n")
    assert len(table.pictures) == 1
    assert "line 3" in table.remarks[0]
    assert "2," in table.remarks[0]
    with refused(DataError, "path", "camera"):
        read(tmp_path, "path,label,task\n,fox,x\n")
    with refused(DataError, "no rows"):
        read(tmp_path, "path,label,task\n")


def test_usual_words_for_splits_and_other_groups(tmp_path: Path) -> None:
    table = read(tmp_path, "path,label,split,Group\na.jpg,fox,Val,north\nb.jpg,fox,HOLDOUT,south\nc.jpg,fox,x,\n")
    assert [picture.split for picture in table.pictures] == ["validation", "test", "x"]
    assert {picture.group for picture in table.pictures} == {""}
    assert table.columns == ("Group",)
    assert read(tmp_path, "path,label,Group\na.jpg,fox,Seen\n").pictures[0].group == "seen"


def test_windows_and_absolute_paths(tmp_path: Path) -> None:
    (tmp_path / "cams" / "A").mkdir(parents=True)
    (tmp_path / "cams" / "A" / "1.jpg").touch()
    table = read(
        tmp_path,
        f"path,task\ncams\\A\\2.jpg,A\n./cams//A/3.jpg,A\n{tmp_path}/cams/A/4.jpg,A\n"
        "D:\\Photos 2020\\cams\\A\\1.jpg,A\nD:\\Photos 2020\\cams\\A\\5.jpg,A\nE:\\else\\6.jpg,A\n../7.jpg,A\n",
    )
    assert [p.path for p in table.pictures] == [
        *(f"cams/A/{number}.jpg" for number in (2, 3, 4, 1, 5)),
        "E:/else/6.jpg",
        "../7.jpg",
    ]
    assert any("D:/Photos 2020" in remark and "2," in remark for remark in table.remarks)
    assert any("E:" in remark and "line 7" in remark for remark in table.remarks)


@pytest.mark.parametrize("path", ["1.jpg", "A/1.jpg", "photos/A/1.jpg"])
def test_files_are_found_in_a_folder_next_to_the_table(tmp_path: Path, path: str) -> None:
    (tmp_path / "images" / Path(path).parent).mkdir(parents=True)
    (tmp_path / "images" / path).touch()
    table = read(tmp_path, f"path,label\n{path},fox\n")
    assert (table.root / table.pictures[0].path).is_file()
    (tmp_path / "images" / path).rename(tmp_path / "1.jpg")
    table = read(tmp_path, f"path,label\n{path},fox\n")
    assert (table.root / table.pictures[0].path).is_file()


def test_absolute_paths_of_another_machine_are_found_in_a_folder_next_to_the_table(tmp_path: Path) -> None:
    (tmp_path / "bilder" / "A").mkdir(parents=True)
    (tmp_path / "bilder" / "A" / "1.jpg").touch()
    text = "path,label\nD:\\Fotos\\2020\\A\\1.jpg,fox\nD:\\Fotos\\2020\\A\\2.jpg,fox\n"
    table = read(tmp_path, text)
    assert (table.root, [picture.path for picture in table.pictures]) == (tmp_path / "bilder", ["A/1.jpg", "A/2.jpg"])
    (tmp_path / "copy" / "A").mkdir(parents=True)
    (tmp_path / "copy" / "A" / "1.jpg").touch()
    assert read(tmp_path, text).pictures[0].path == "D:/Fotos/2020/A/1.jpg", "two folders may be meant"


def test_a_table_of_cameras(tmp_path: Path) -> None:
    table = read(tmp_path, "Station;Latitude;Habitat;Start\nA;47,1;wood;1\nA;47,1;wood;2\nB;47,2;NA;1\n;1;1;1\n")
    assert table.pictures == ()
    assert table.cameras == {"A": {"Latitude": "47,1", "Habitat": "wood"}, "B": {"Latitude": "47,2", "Start": "1"}}
    assert len(table.remarks) == 2
    assert any("'Start'" in remark for remark in table.remarks)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("foo,bar\n1,2\n", ("'path'", "foo, bar", "--columns")),
        ("Bild,camera\n" + "".join(f"{n}.jpg,A\n" for n in range(9)), ("'path'", "9 of 1", "--columns path=")),
        ("camera,lat\n", ("no rows",)),
    ],
)
def test_a_table_that_is_neither_is_refused(tmp_path: Path, text: str, values: tuple[str, ...]) -> None:
    with refused(DataError, "t.csv", *values):
        read(tmp_path, text)


def test_tables_are_found_by_content_and_spreadsheets_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("file\tspecies\na.jpg\tfox\n")
    assert read_pictures(tmp_path / "list.txt").pictures[0].labels == ("fox",)
    (tmp_path / "book.xlsx").write_bytes(b"PK\x03\x04")
    assert isinstance(find_reader(tmp_path / "book.xlsx"), CsvTableReader)
    with refused(DataError, "book.xlsx", "CSV"):
        read_pictures(tmp_path / "book.xlsx")
    (tmp_path / "prose.txt").write_text("Dear reader,\nthis is no table.\n")
    assert not CsvTableReader().reads(tmp_path / "prose.txt")


def test_a_column_that_differs_in_every_row_takes_seconds(tmp_path: Path) -> None:
    rows = (f"cam/{n}.jpg,fox,C{n % 50},{n},2020-01-01 10:{n // 60 % 60:02}:{n % 60:02}\n" for n in range(40_000))
    started = time.process_time()
    table = read(tmp_path, "path,label,task,count,taken\n" + "".join(rows))
    assert len(table.pictures) == 40_000
    assert time.process_time() - started < 20, "linear in the rows"


def test_several_labels_of_a_picture_in_a_cell_or_in_rows(tmp_path: Path) -> None:
    rows = ["1.jpg,deer; fox,A", "2.jpg,deer|deer,A", "3.jpg,fox,A", "3.jpg,deer,A", "4.jpg,deer,A", "4.jpg,Deer ,A"]
    table = read(tmp_path, "\n".join(["path,label,task", *rows]))
    assert [set(map(str.lower, p.labels)) for p in table.pictures] == [
        {"deer", "fox"},
        {"deer"},
        {"fox", "deer"},
        {"deer"},
    ]
    remarked(table.remarks, "'deer; fox'", "line 2")
    remarked(table.remarks, "3.jpg", "line 5")
    for number in range(1, 5):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.jpg")
    suite = TableSuite.of(tmp_path / "t.csv", image_size=8)
    remarked(suite.remarks, "2 pictures")
    assert suite.classes == ("deer",)


def test_times_that_spreadsheets_count(tmp_path: Path) -> None:
    half = datetime(2023, 7, 16, 12)
    for header, cell in (("datetime", "45123.5"), ("DateTime", '"45123,5"'), ("date", "45123.5")):
        table = read(tmp_path, f"path,label,task,{header}\n1.jpg,fox,A,{cell}\n2.jpg,fox,A,2023-07-16 13:00\n")
        assert [p.time for p in table.pictures] == [half, datetime(2023, 7, 16, 13)]
        remarked(table.remarks, "45123", "2023-07-16 12:00:00")
    apart = read(tmp_path, "path,label,task,date,time\n1.jpg,fox,A,45123,0.5\n")
    assert apart.pictures[0].time == half
    zoned = read(tmp_path, "path,label,task,timestamp\n1.jpg,fox,A,1689508800\n")
    assert zoned.pictures[0].time == half.replace(tzinfo=UTC)
