"""Each known dump in the shape that its source documents, and tables of one's own."""

from __future__ import annotations

import datetime
import gzip
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recbole.data import create_dataset, data_preparation

from recbole_posattn import Config
from recbole_posattn.atomic_files.convert.convert import convert
from recbole_posattn.atomic_files.convert.formats import FORMATS, guess_format
from recbole_posattn.atomic_files.convert.shapes import ReadOptions
from recbole_posattn.errors import DataError, SettingError

DAY = 86_400
# user, item, rating, midnight of a day in seconds; no user's lines stand together, and 9's are not in the order of time
EVENTS = [("9", "50", 4.5, 12_000 * DAY), ("7", "51", 3.0, 11_000 * DAY), ("9", "51", 5.0, 11_500 * DAY)]
IN_ORDER = [EVENTS[2], EVENTS[0], EVENTS[1]]


def day(time: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(time, datetime.UTC)


def lines(form: Callable[..., str], header: str = "") -> bytes:
    return (header + "".join(form(*event) + "\n" for event in EVENTS)).encode()


def table(**columns: pa.Array) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def movielens_csv() -> bytes:
    return lines(lambda u, i, r, t: f"{u},{i},{r},{t}", "userId,movieId,rating,timestamp\n")


def amazon_review(user: str, item: str, rating: float, time: int) -> str:
    return json.dumps(
        {"reviewerID": user, "asin": item, "helpful": [0, 0], "reviewText": 'a "quoted" word', "overall": rating}
        | {"unixReviewTime": time, "reviewTime": "01 1, 2003"}
    )


def steam_review(user: str, item: str, rating: float, time: int) -> str:
    username, date = f"u'username': u'{user}'", f"u'date': u'{day(time):%Y-%m-%d}'"
    return f"{{{username}, u'hours': {rating}, u'product_id': u'{item}', u'text': u'it\\'s \\xe9', {date}, u'page': 1}}"


users, items, ratings, times = map(list, zip(*EVENTS))

# The file of a dump and what is in it.
SAMPLES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "ml-100k": ("u.data", lambda: lines(lambda u, i, r, t: f"{u}\t{i}\t{r:g}\t{t}")),
    "ml-1m": ("ratings.dat", lambda: lines(lambda u, i, r, t: f"{u}::{i}::{r:g}::{t}")),
    "ml-10m": ("ratings.dat", lambda: lines(lambda u, i, r, t: f"{u}::{i}::{r:g}::{t}")),
    "ml-20m": ("ratings.csv", movielens_csv),
    "ml-25m": ("ratings.csv", movielens_csv),
    "ml-32m": ("ratings.csv", movielens_csv),
    "amazon-2014": ("reviews_Beauty_5.json.gz", lambda: gzip.compress(lines(amazon_review))),
    "amazon-2014-ratings": ("ratings_Beauty.csv", lambda: lines(lambda u, i, r, t: f"{u},{i},{r},{t}")),
    "amazon-2018": ("All_Beauty.json.gz", lambda: gzip.compress(lines(amazon_review))),
    "amazon-2018-ratings": ("All_Beauty.csv", lambda: lines(lambda u, i, r, t: f"{i},{u},{r},{t}")),
    "amazon-2023": (
        "All_Beauty.jsonl.gz",
        lambda: gzip.compress(
            lines(
                lambda u, i, r, t: json.dumps(
                    {"rating": r, "title": "é", "images": [], "asin": "X", "parent_asin": i, "user_id": u}
                    | {"timestamp": 1000 * t + 923, "helpful_vote": 0, "verified_purchase": True}
                )
            )
        ),
    ),
    "amazon-2023-ratings": (
        "All_Beauty.csv.gz",
        lambda: gzip.compress(
            lines(lambda u, i, r, t: f"{u},{i},{r},{1000 * t + 923}", "user_id,parent_asin,rating,timestamp\n")
        ),
    ),
    "yelp": (
        "yelp_academic_dataset_review.json",
        lambda: lines(
            lambda u, i, r, t: json.dumps(
                {"review_id": "x", "user_id": u, "business_id": i, "stars": r, "useful": 0, "text": "so\nso"}
                | {"date": f"{day(t):%Y-%m-%d %H:%M:%S}"}
            )
        ),
    ),
    "gowalla": (
        "loc-gowalla_totalCheckins.txt.gz",
        lambda: gzip.compress(
            lines(lambda u, i, r, t: f"{u}\t{day(t):%Y-%m-%dT%H:%M:%SZ}\t30.2359091167\t-97.7951395833\t{i}")
        ),
    ),
    "steam": ("steam_reviews.json.gz", lambda: gzip.compress(lines(steam_review))),
    "zvuk": (
        "zvuk-interactions.parquet",
        lambda: table(
            user_id=pa.array(map(int, users)),
            session_id=pa.array([1, 2, 3]),
            datetime=pa.array(map(day, times), pa.timestamp("us")),
            track_id=pa.array(map(int, items)),
            play_duration=pa.array([3.0, 4.0, 5.0]),
        ),
    ),
    "yambda": (
        "listens.parquet",
        lambda: table(
            uid=pa.array(map(int, users), pa.uint32()),
            timestamp=pa.array(times, pa.uint32()),
            item_id=pa.array(map(int, items), pa.uint32()),
            is_organic=pa.array([0, 1, 1], pa.uint8()),
        ),
    ),
}
UNRATED = {"gowalla", "steam", "zvuk", "yambda"}
IN_MILLISECONDS = {"amazon-2023", "amazon-2023-ratings"}
UNTOLD = {"amazon-2018", "amazon-2018-ratings", "amazon-2023", "amazon-2023-ratings"}  # named by their category alone


def rows(file: Path) -> list[tuple]:
    return list(pd.read_csv(file, sep="\t", dtype={0: str, 1: str}).itertuples(index=False, name=None))


def expected(name: str) -> list[tuple]:
    late = 0.923 if name in IN_MILLISECONDS else 0
    return [(u, i, *(() if name in UNRATED else (r,)), t + late) for u, i, r, t in IN_ORDER]


def sample(folder: Path, name: str) -> Path:
    file, content = SAMPLES[name]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_bytes(content())
    return folder / file


def test_every_format_has_a_sample() -> None:
    assert set(SAMPLES) == set(FORMATS)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_format_is_read_from_its_file_and_its_folder(empty_folder: Path, name: str) -> None:
    file = sample(empty_folder / "dump", name)
    (empty_folder / "dump" / "README").write_text("more")
    header = "user_id:token\titem_id:token\t" + ("" if name in UNRATED else "rating:float\t") + "timestamp:float"
    for number, source in enumerate((file, file.parent)):
        done = convert(source, f"mine{number}", ReadOptions(name))
        assert rows(done.file) == expected(name)
        assert done.file.read_text().split("\n")[0] == header
        assert (done.format, done.users, done.items, done.steps) == (name, 2, 2, [("read", 3)])
        assert done.source == str(file) and done.rejected == [] and done.rejected_file is None
    assert done.file == Path("dataset/mine1/mine1.inter")
    assert [path.name for path in done.file.parent.iterdir()] == ["mine1.inter"]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_format_is_guessed_where_the_name_tells_it(empty_folder: Path, name: str) -> None:
    file = sample(empty_folder / name, name)
    if name in UNTOLD:
        with pytest.raises(SettingError, match=f"could be .*{name}.*, judging by its name; give --format"):
            convert(file, "mine")
    else:
        assert guess_format(file) == guess_format(file.parent) == name
        assert rows(convert(file.parent, "mine").file) == expected(name)


@pytest.mark.parametrize(
    ("folder", "name"),
    [("ml-10M100K", "ml-10m"), ("ML-1M", "ml-1m"), ("ml-1m/ml-10M100K", "ml-10m"), ("ml-20M", "ml-20m")],
)
def test_a_folder_may_have_the_name_of_the_dump_with_more(empty_folder: Path, folder: str, name: str) -> None:
    file = sample(empty_folder / folder, name)
    assert guess_format(file) == guess_format(file.parent) == guess_format(empty_folder / f"{folder}.zip") == name


def test_formats_that_differ_in_their_items_alone_are_not_taken_for_each_other(empty_folder: Path) -> None:
    """The titles of ml-1m are latin-1, those of ml-10m utf-8, in files of the same names."""
    file = sample(empty_folder, "ml-1m")
    with pytest.raises(
        SettingError,
        match=r"ratings.dat could be ml-1m or ml-10m, judging by its name; give --format \(ml-1m, ml-10m\)",
    ):
        convert(file, "mine")
    assert guess_format(sample(empty_folder, "ml-32m")) == "ml-20m"  # which are read alike


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"item": "u"}, "--user and --item are both the column 'u'"),
        ({"rating": "t"}, "--time and --rating are both the column 't'"),
        ({"rating": "u"}, "--user and --rating are both the column 'u'"),
    ],
)
def test_a_column_has_one_role(empty_folder: Path, flags: dict, message: str) -> None:
    Path("a.csv").write_text("u,i,t\n1,2,3\n")
    with pytest.raises(SettingError, match=message):
        convert("a.csv", "mine", ReadOptions(user="u", item="i", time="t")._replace(**flags))
    with pytest.raises(SettingError, match="--item and --time are both the column 'track_id'"):
        convert(sample(empty_folder, "zvuk"), "mine", ReadOptions("zvuk", time="track_id"))
    assert not Path("dataset").exists()


def test_whole_numbers_have_no_point_and_milliseconds_stay(empty_folder: Path) -> None:
    assert convert(sample(empty_folder, "ml-20m"), "a").file.read_text().split("\n")[1] == "9\t51\t5\t993600000"
    file = convert(sample(empty_folder, "amazon-2023"), "b", ReadOptions("amazon-2023")).file
    assert file.read_text().split("\n")[2] == "9\t50\t4.5\t1036800000.923"


def test_names_that_tell_nothing_are_refused(empty_folder: Path) -> None:
    (empty_folder / "a.xyz").write_text("1,2,3")
    with pytest.raises(
        SettingError, match=r"a.xyz has no known format, judging by its name; .* --user, --item and --time"
    ):
        convert("a.xyz", "mine")
    with pytest.raises(SettingError, match=r"format 'ml-1' is unknown. Did you mean 'ml-1m'\? There are ml-100k, "):
        convert("a.xyz", "mine", ReadOptions("ml-1"))
    with pytest.raises(DataError, match=r"nowhere not found: give the path of the dump's file or folder"):
        convert("nowhere", "mine")
    with pytest.raises(
        SettingError, match=r"the name of a.xyz does not show its kind; give --kind \(delimited, jsonl, python"
    ):
        convert("a.xyz", "mine", ReadOptions(user="u", item="i", time="t"))
    with pytest.raises(SettingError, match=r"kind must be one of delimited, jsonl, python, parquet; got 'xml'"):
        convert("a.xyz", "mine", ReadOptions(user="u", item="i", time="t", kind="xml"))
    with pytest.raises(SettingError, match=r"the name of a.xyz does not show how its fields are separated"):
        convert("a.xyz", "mine", ReadOptions(user="u", item="i", time="t", kind="delimited"))
    with pytest.raises(SettingError, match=r"for a table of your own, name the columns of users and items"):
        convert("a.xyz", "mine", ReadOptions(user="u"))
    with pytest.raises(SettingError, match=r"name the column of times with --time, or set --time_format=order, which"):
        convert("a.xyz", "mine", ReadOptions(user="u", item="i", separator=","))


def test_a_folder_or_archive_has_one_file_that_fits(empty_folder: Path) -> None:
    sample(empty_folder / "dump", "yambda")
    (empty_folder / "dump" / "likes.parquet").write_bytes(SAMPLES["yambda"][1]())
    with pytest.raises(DataError, match=r"dump has several files that match: dump/likes.parquet, dump/listens"):
        convert("dump", "mine")
    with pytest.raises(DataError, match=r"dump has no file u.data; give the path of the file"):
        convert("dump", "mine", ReadOptions("ml-100k"))
    with pytest.raises(DataError, match=r"dump is a folder; give the path of the file"):
        convert("dump", "mine", ReadOptions(user="u", item="i", time="t"))


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="the system names no pipes")
def test_a_pipe_is_refused(empty_folder: Path) -> None:
    """Its first bytes are gone when it is opened again."""
    reading, writing = os.pipe()
    os.write(writing, b"u,i,t\n1,2,3\n")
    os.close(writing)
    pipe, own = f"/dev/fd/{reading}", ReadOptions(user="u", item="i", time="t", separator=",")
    Path("a.csv").write_text("u,i,t\n1,2,3\n")
    try:
        for source, options in ((pipe, own), (pipe, ReadOptions()), ("a.csv", own._replace(item_features=pipe))):
            with pytest.raises(DataError, match=rf"^{pipe} is a pipe; write it to a file first \(gzip is fine\)$"):
                convert(source, "mine", options)
        with pytest.raises(DataError, match=r"^/dev/null is neither a file nor a folder; write it to a file first"):
            convert("/dev/null", "mine", own)
    finally:
        os.close(reading)
    assert not Path("dataset").exists()


def test_a_zip_archive_is_read_as_it_is(empty_folder: Path) -> None:
    with zipfile.ZipFile("ml-1m.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ml-1m/README", "more")
        archive.writestr("ml-1m/ratings.dat", SAMPLES["ml-1m"][1]())
        archive.writestr("__MACOSX/ml-1m/._ratings.dat", b"\x00")
    done = convert("ml-1m.zip", "mine")
    assert rows(done.file) == expected("ml-1m") and done.source == "ml-1m.zip:ml-1m/ratings.dat"
    assert sorted(path.name for path in empty_folder.iterdir()) == ["dataset", "ml-1m.zip"]
    with zipfile.ZipFile("zvuk.zip", "w") as archive:
        archive.writestr("zvuk-interactions.parquet", SAMPLES["zvuk"][1]())
    with pytest.raises(DataError, match="a Parquet file cannot be read inside an archive; unpack it"):
        convert("zvuk.zip", "mine2")
    Path("ml-10m.zip").write_bytes(Path("ml-1m.zip").read_bytes()[:200])
    with pytest.raises(DataError, match=r"ml-10m.zip cannot be read: File is not a zip file"):
        convert("ml-10m.zip", "mine2")


def test_a_table_of_ones_own(empty_folder: Path) -> None:
    own = ReadOptions(user="who", item="what", time="when", rating="stars")
    Path("a.csv").write_text(
        'when,who,note,what,stars\n2020-01-02T03:04:05+01:00,"b, c",,x,1\n5.5,b,"say ""hi""",y,2\n'
    )
    expected = [("b, c", "x", 1, 1_577_930_645), ("b", "y", 2, 5.5)]
    assert rows(convert("a.csv", "a", own).file) == expected
    records = [
        {"who": "b, c", "what": "x", "when": "2020-01-02 02:04:05", "stars": 1},
        {"what": "y", "who": "b", "when": 5.5, "stars": "2", "more": {"who": [1]}},
    ]
    Path("b.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert rows(convert("b.jsonl", "b", own).file) == expected
    Path("c.txt").write_text("".join(f"{record}\n" for record in records))
    assert rows(convert("c.txt", "c", own._replace(kind="python")).file) == expected
    Path("d.dat").write_text("b, c|x|1|1577930645\nb|y|2|5.5\n")
    fields = ("who", "what", "stars", "when")
    assert rows(convert("d.dat", "d", own._replace(separator="|", fields=fields)).file) == expected
    assert rows(convert("d.dat", "e", own._replace(rating=None, separator="|", fields=fields)).file) == [
        (user, item, time) for user, item, _, time in expected
    ]


@pytest.mark.parametrize(
    ("time_format", "given", "seconds"),
    [
        ("s", "12.5", 12.5),
        ("ms", "1588687728923", 1588687728.923),
        ("us", "1588687728923456", 1588687728.923456),
        ("auto", " -3e2 ", -300),
        ("auto", "1969-12-31", -86_400),
        ("auto", "2010-10-19T23:55:27.25Z", 1287532527.25),
        ("%d.%m.%y %H:%M", "02.01.70 00:01", 86_460),
        ("%d/%m/%Y %z", "01/01/1970 +0100", -3600),
    ],
)
def test_times_are_read_as_they_are_written(empty_folder: Path, time_format: str, given: str, seconds: float) -> None:
    Path("a.tsv").write_text(f"u\ti\tt\n1\t2\t{given}\n")
    done = convert("a.tsv", "mine", ReadOptions(user="u", item="i", time="t", time_format=time_format))
    assert done.file.read_text().split("\n")[1] == f"1\t2\t{seconds}"
    assert (done.first, done.last) == (seconds, seconds)


@pytest.mark.parametrize("time_format", ["seconds", "%Q", "%", ""])
def test_an_unknown_time_format_is_refused(empty_folder: Path, time_format: str) -> None:
    Path("a.tsv").write_text("u\ti\tt\n1\t2\t3\n")
    with pytest.raises(SettingError, match=r"time_format must be s, ms, us, auto, order or a strptime pattern"):
        convert("a.tsv", "mine", ReadOptions(user="u", item="i", time="t", time_format=time_format))


def test_without_times_the_order_of_the_file_counts(empty_folder: Path) -> None:
    Path("a.csv").write_text("u,i\nb,x\na,x\nb,y\nb,x\na,y\n")
    done = convert("a.csv", "mine", ReadOptions(user="u", item="i", time_format="order"))
    assert rows(done.file) == [("b", "x", 1), ("b", "y", 2), ("b", "x", 3), ("a", "x", 1), ("a", "y", 2)]


def test_equal_times_keep_the_order_of_the_file(empty_folder: Path) -> None:
    Path("a.csv").write_text("u,i,t\n" + "".join(f"{k % 3},{k},{k // 50}\n" for k in range(300)))
    done = convert("a.csv", "mine", ReadOptions(user="u", item="i", time="t"))
    assert rows(done.file) == [(str(u), str(k), k // 50) for u in range(3) for k in range(u, 300, 3)]


@pytest.mark.parametrize(
    "kind", ["int32", "string", "large_string", "string_view", "binary", "binary_view", "dictionary"]
)
def test_parquet_has_many_types_for_the_same(empty_folder: Path, kind: str) -> None:
    types = {"int32": pa.int32(), "dictionary": pa.string(), "string_view": pa.string_view()}
    types |= {"binary_view": pa.binary_view()}
    tokens = pa.array([7, 8] if kind == "int32" else ["7", "8"], types.get(kind) or pa.type_for_alias(kind))
    days = pa.array([datetime.date(1970, 1, 2), datetime.date(1970, 1, 3)])
    tokens = tokens.dictionary_encode() if kind == "dictionary" else tokens
    pq.write_table(pa.table({"u": tokens, "i": tokens, "t": days, "r": pa.array([1, 2], pa.int8())}), "a.parquet")
    done = convert("a.parquet", "mine", ReadOptions(user="u", item="i", time="t", rating="r"))
    assert rows(done.file) == [("7", "7", 1, 86_400), ("8", "8", 2, 172_800)]


@pytest.mark.parametrize("kind", [pa.timestamp("ms"), pa.date32()], ids=str)
def test_times_that_do_not_fit_are_bad_rows(empty_folder: Path, kind: pa.DataType) -> None:
    """Arrow's conversion to microseconds would wrap around: 2^62 ms would be the year 1970."""
    width = pa.int32() if kind == pa.date32() else pa.int64()
    largest = 2**31 - 1 if kind == pa.date32() else 2**62
    day = 1 if kind == pa.date32() else 86_400_000
    times = pa.array([day, 2 * day, largest, -largest], width).view(kind)
    pq.write_table(pa.table({"u": ["7"] * 4, "i": ["7"] * 4, "t": times}), "a.parquet")
    done = convert("a.parquet", "mine", ReadOptions(user="u", item="i", time="t"), on_error="skip")
    assert rows(done.file) == [("7", "7", 86_400), ("7", "7", 172_800)]
    assert [reason.count for reason in done.rejected] == [2]


def test_sequential_parquet_has_a_user_a_row(empty_folder: Path) -> None:
    content = {
        "uid": pa.array([10, 20, 30, 40], pa.uint32()),
        "timestamp": pa.array([[5, 10], [5], [], None], pa.list_(pa.uint32())),
        "item_id": pa.array([[1, 2], [2, 3], [], [4]], pa.list_(pa.uint32())),
    }
    pq.write_table(pa.table(content), "listens.parquet")
    with pytest.raises(DataError, match=r"has 2 bad rows, row 2: lists are missing or have different lengths: '20'"):
        convert("listens.parquet", "mine")
    done = convert("listens.parquet", "mine", on_error="skip")
    assert rows(done.file) == [("10", "1", 5), ("10", "2", 10)]


def test_lists_of_parquet_may_hold_dictionaries(empty_folder: Path) -> None:
    """Arrow cannot join such lists of two row groups."""
    items = [[f"i{k % 7}", f"i{k % 3}"] for k in range(20)]
    kind = pa.list_(pa.dictionary(pa.int32(), pa.string()))
    content = {"u": list(range(20)), "i": pa.array(items).cast(kind), "t": [[2 * k, 2 * k + 1] for k in range(20)]}
    pq.write_table(pa.table(content), "a.parquet", row_group_size=3)
    done = convert("a.parquet", "mine", ReadOptions(user="u", item="i", time="t"))
    assert rows(done.file) == [(str(k), item, 2 * k + n) for k in range(20) for n, item in enumerate(items[k])]


def test_a_converted_data_set_is_one_for_recbole(empty_folder: Path) -> None:
    names = ["plain", '"quoted" first', 'mid"dle', "two words", "é", "[PAD]", "007", "1.0"]
    content = [f"{json.dumps(name, ensure_ascii=False)}|{t % 4}|{1.5e9 + t}" for name in names for t in range(6)]
    Path("a.csv").write_text("u|i|t\n" + "\n".join(content).replace('\\"', '""') + "\n", encoding="utf-8")
    convert("a.csv", "mine", ReadOptions(user="u", item="i", time="t", separator="|"))
    for lazy in (True, False):
        settings = {"normalize_field": ["timestamp"], "normalize_all": False, "lazy_prefixes": lazy}
        config = Config("SASRec", "mine", config_dict=settings, command_line=[])
        dataset = create_dataset(config)
        assert set(names) <= set(dataset.field2token_id["user_id"])
        train, valid, test = data_preparation(config, dataset)
        assert [len(part._dataset) for part in (train, valid, test)] == [3 * len(names), len(names), len(names)]
        assert dataset.id2token("item_id", test._dataset.inter_feat["item_id"].numpy()).tolist() == ["1"] * len(names)


@pytest.mark.parametrize(("folder", "name"), [("steam_user", "mine.zip"), ("gowalla", "dump.ZIP")])
def test_the_folder_of_an_archive_does_not_name_its_format(empty_folder: Path, folder: str, name: str) -> None:
    with pytest.raises(SettingError, match="has no known format, judging by its name; give --format"):
        guess_format(empty_folder / folder / name)
    assert guess_format(empty_folder / "ML-1M.ZIP") == "ml-1m"


def test_a_table_of_any_name_may_be_of_any_format(empty_folder: Path) -> None:
    Path("mine.csv").write_text("a,b\n")
    with pytest.raises(SettingError, match=r"mine.csv could be amazon-.* give --format \(ml-100k, .*zvuk, yambda\)"):
        guess_format(Path("mine.csv"))
