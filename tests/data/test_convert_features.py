"""What dumps say of their items and users, as files of features that models and ``recommend --titles`` read."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from recbole_posattn import Config, run
from recbole_posattn.atomic_files.check import ensure_atomic_files
from recbole_posattn.atomic_files.convert.convert import Conversion, convert
from recbole_posattn.atomic_files.convert.feature_formats import ITEMS, USERS
from recbole_posattn.atomic_files.convert.features import NONE
from recbole_posattn.atomic_files.convert.filters import Filters
from recbole_posattn.atomic_files.convert.formats import FORMATS
from recbole_posattn.atomic_files.convert.shapes import ReadOptions
from recbole_posattn.atomic_files.convert.sources import category_of
from recbole_posattn.cli import main as cli
from recbole_posattn.errors import DataError, SettingError
from recbole_posattn.serving.titles import read_titles
from tests.data.test_convert_formats import SAMPLES, sample

# As in the dumps: items 50 and 51, users 7 and 9, and one of each that no interaction names.
FLAGS = "|".join(["0", "1", "0", "0", "0", "1", *["0"] * 13])
NO_FLAGS = "|".join(["0"] * 19)
U_ITEM = (
    f"50|Pokémon, the (First) (1998)|01-Jan-1998||http://x|{FLAGS}\n"
    f"51|unknown||||{NO_FLAGS}\n99|None (1990)||||{FLAGS}\n"
)
MOVIES_DAT = "50::Pokémon, the (First) (1998)::Action|Comedy\n51::unknown::\n99::None (1990)::Action\n"
MOVIES_CSV = (
    'movieId,title,genres\n50,"Pokémon, the (First) (1998)",Action|Comedy\n51,unknown,(no genres listed)\n99,N,Action\n'
)
AMAZON_2014 = [
    {
        "asin": "50",
        "title": "Salt & Pepper &amp; more",
        "categories": [["Beauty", "Hair Care"], ["Beauty"]],
        "price": 4.5,
    },
    {"asin": "51", "brand": "ACME"},
    {"asin": "99", "title": "none"},
]
AMAZON_2018 = [
    {
        "asin": "50",
        "title": "Salt &amp; Pepper &amp; more",
        "category": ["Beauty", "Hair Care"],
        "price": "$4.5",
        "brand": "",
    },
    {
        "asin": "51",
        "title": "var aPageStart = (new Date()).getTime();",
        "category": [],
        "price": ".a-box {",
        "brand": "ACME",
    },
    {"asin": "50", "title": "the second record of an item"},
]
AMAZON_2023 = [
    {
        "parent_asin": "50",
        "title": "Salt & Pepper & more",
        "categories": ["Beauty", "Hair Care"],
        "price": 4.5,
        "store": None,
    },
    {"parent_asin": "51", "title": None, "categories": [], "price": "None", "store": "ACME"},
]
YELP = [
    {
        "business_id": "50",
        "name": 'Bar "Zum" Tab\t1',
        "categories": "Bars, Night Life",
        "city": "Ulm",
        "state": "BW",
        "stars": 3.5,
        "review_count": 7,
    },
    {
        "business_id": "51",
        "name": "Bank",
        "categories": None,
        "city": "",
        "state": "BW",
        "stars": 4.0,
        "review_count": 9,
    },
]
YELP_USERS = [
    {"user_id": user, "name": "not kept", "review_count": 3, "fans": 0, "average_stars": 4.5} for user in "79"
]
STEAM = (
    "{u'app_name': u'It\\'s \\xe9', u'genres': [u'Action', u'Early Access'], u'price': u'Free To Play', "
    "u'id': u'50', u'developer': u'A B'}\n{u'id': u'51', u'tags': [u'VR'], u'price': 4.99}\n"
)


def lines(records: list[dict], dump: Callable[[dict], str] = json.dumps) -> bytes:
    return "".join(dump(record) + "\n" for record in records).encode()


ITEM_FILES: dict[str, tuple[str, bytes]] = {
    "ml-100k": ("u.item", U_ITEM.encode("latin-1")),
    "ml-1m": ("movies.dat", MOVIES_DAT.encode("latin-1")),
    "ml-10m": ("movies.dat", MOVIES_DAT.encode()),
    **dict.fromkeys(("ml-20m", "ml-25m", "ml-32m"), ("movies.csv", MOVIES_CSV.encode())),
    "amazon-2014": ("meta_Beauty.json.gz", gzip.compress(lines(AMAZON_2014, repr))),
    "amazon-2014-ratings": ("meta_Beauty.json", lines(AMAZON_2014, repr)),
    **dict.fromkeys(
        ("amazon-2018", "amazon-2018-ratings"), ("meta_All_Beauty.json.gz", gzip.compress(lines(AMAZON_2018)))
    ),
    **dict.fromkeys(
        ("amazon-2023", "amazon-2023-ratings"), ("meta_All_Beauty.jsonl.gz", gzip.compress(lines(AMAZON_2023)))
    ),
    "yelp": ("yelp_academic_dataset_business.json", lines(YELP)),
    "steam": ("steam_games.json.gz", gzip.compress(STEAM.encode())),
}
USER_FILES = {
    "ml-100k": ("u.user", b"9|24|M|technician|85711\n7|53|F|other|T8H1N\n8|1|F|other|0\n"),
    "ml-1m": ("users.dat", b"9::M::24::7::85711\n7::F::53::0::T8H1N\n8::F::1::0::0\n"),
    "yelp": ("yelp_academic_dataset_user.json", lines(YELP_USERS)),
}
FILM = {"title": "Pokémon, the (First) (1998)", "release_year": "1998", "class": "Action Comedy"}
NO_FILM = {"title": "unknown", "release_year": "", "class": ""}
PRODUCT = {"title": "Salt & Pepper & more", "class": "Beauty Hair_Care", "brand": "", "price": "4.5"}
NO_PRODUCT = {"title": "", "class": "", "brand": "ACME", "price": ""}
EXPECTED: dict[str, tuple[dict, dict]] = {
    **dict.fromkeys((name for name in ITEMS if name.startswith("ml-")), (FILM, NO_FILM)),
    **dict.fromkeys((name for name in ITEMS if name.startswith("amazon-")), (PRODUCT, NO_PRODUCT)),
    "yelp": (
        {
            "title": 'Bar "Zum" Tab 1',
            "class": "Bars Night_Life",
            "city": "Ulm",
            "state": "BW",
            "item_stars": "3.5",
            "item_review_count": "7",
        },
        {"title": "Bank", "class": "", "city": "", "state": "BW", "item_stars": "4.0", "item_review_count": "9"},
    ),
    "steam": (
        {"title": "It's é", "class": "Action Early_Access", "developer": "A B", "release_date": "", "price": ""},
        {"title": "", "class": "VR", "developer": "", "release_date": "", "price": "4.99"},
    ),
}
PEOPLE = ({"age": "24", "gender": "M", "zip_code": "85711"}, {"age": "53", "gender": "F", "zip_code": "T8H1N"})


def dump(folder: Path, name: str) -> Path:
    """A dump with its files of features; returns the file of interactions."""
    file = sample(folder, name)
    for files in (ITEM_FILES, USER_FILES):
        if name in files:
            other, content = files[name]
            (folder / other).write_bytes(content)
    return file


def features(done: Conversion, suffix: str) -> dict[str, dict[str, str]]:
    """The rows of a file of features by item or user, as pandas reads it."""
    file = done.file.with_suffix(f".{suffix}")
    table = pd.read_csv(file, sep="\t", dtype=str, keep_default_na=False).rename(
        columns=lambda name: name.split(":")[0]
    )
    return {row.pop(f"{suffix}_id"): row for row in table.to_dict("records")}


def test_all_files_of_the_sources_have_a_sample() -> None:
    assert ITEMS.keys() == ITEM_FILES.keys() == EXPECTED.keys() and USERS.keys() == USER_FILES.keys()
    assert ITEMS.keys() <= FORMATS.keys() and USERS.keys() <= FORMATS.keys()


@pytest.mark.parametrize("name", ITEMS)
def test_items_and_users_are_described(empty_folder: Path, name: str) -> None:
    """From the file of interactions and from its folder; only what an interaction names is kept."""
    file = dump(empty_folder / "dump", name)
    for number, source in enumerate((file, file.parent)):
        done = convert(source, f"mine{number}", ReadOptions(name))
        found = features(done, "item")
        assert found == dict(zip(("50", "51"), EXPECTED[name]))
        described = {each.role: each for each in done.features}
        assert described["item"].columns == list(EXPECTED[name][0])
        assert (described["item"].described, described["item"].wanted) == (2, 2)
        assert described["item"].source == str(file.parent / ITEM_FILES[name][0])
        assert ("user" in described) == (name in USERS)
        if name in USERS and name != "yelp":
            people = features(done, "user")
            assert (
                all(people[user].items() >= person.items() for user, person in zip("97", PEOPLE)) and len(people) == 2
            )
        elif name in USERS:
            assert features(done, "user")["7"] == {"review_count": "3", "fans": "0", "average_stars": "4.5"}
    header = done.file.with_suffix(".item").read_text(encoding="utf-8").split("\n")[0]
    assert header.startswith("item_id:token\ttitle:token\t") and "class:token_seq" in header
    titles = read_titles(Config("Pop", done.file.stem, config_dict={"data_path": "dataset"}, command_line=[]))
    assert titles["50"] == EXPECTED[name][0]["title"]


@pytest.mark.parametrize(
    ("file", "category"),
    [
        ("reviews_Beauty_5.json.gz", "Beauty"),
        ("ratings_Video_Games.csv", "Video_Games"),
        ("All_Beauty.jsonl.gz", "All_Beauty"),
        ("CDs_and_Vinyl_5.json", "CDs_and_Vinyl"),
    ],
)
def test_categories_of_amazon_are_named_by_their_files(file: str, category: str) -> None:
    assert category_of(file) == category


def test_the_metadata_of_another_category_is_left_alone(empty_folder: Path) -> None:
    file = sample(empty_folder, "amazon-2018")
    for other in ("meta_Books.json.gz", "meta_All_Beauty_2.json.gz"):
        Path(other).write_bytes(ITEM_FILES["amazon-2018"][1])
    done = convert(file, "mine", ReadOptions("amazon-2018"))
    assert done.features == () and [path.name for path in done.file.parent.iterdir()] == ["mine.inter"]


def test_an_archive_describes_its_items_too(empty_folder: Path) -> None:
    with zipfile.ZipFile("ml-1m.zip", "w") as archive:
        archive.writestr("ml-1m/ratings.dat", SAMPLES["ml-1m"][1]())
        for name, content in (ITEM_FILES["ml-1m"], USER_FILES["ml-1m"]):
            archive.writestr(f"ml-1m/{name}", content)
        archive.writestr("other/movies.dat", b"50::another::x\n")
    done = convert("ml-1m.zip", "mine")
    assert features(done, "item") == {"50": FILM, "51": NO_FILM} and len(features(done, "user")) == 2
    assert done.features[0].source == "ml-1m.zip:ml-1m/movies.dat"


def test_only_items_that_filters_leave_are_described(empty_folder: Path) -> None:
    file = dump(empty_folder / "ml-1m", "ml-1m")
    done = convert(file, "mine", filters=Filters(min_item_interactions=2))
    assert features(done, "item").keys() == {"51"} and done.features[0].wanted == 1


def test_bad_lines_are_refused_or_listed(empty_folder: Path, capsys: pytest.CaptureFixture) -> None:
    file = dump(empty_folder / "ml-1m", "ml-1m")
    with open(file.with_name("movies.dat"), "ab") as movies:
        movies.write(b"60::too few\n")
    with pytest.raises(
        DataError, match=r"movies.dat has 1 bad line, line 4: the number of fields is 2, not 3: '60::too f"
    ):
        convert(file, "mine")
    assert not Path("dataset").exists()
    assert cli.main(["data", "convert", str(file), "--dataset=mine", "--on_error=skip"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert f"items: 2 of 2 described by {file.with_name('movies.dat')} (title, release_year, class)" in printed
    assert "skipped: 1 line where the number of fields is 2, not 3" in printed
    assert {"written: dataset/mine/mine.item", "written: dataset/mine/mine.user"} <= set(printed)
    assert Path("dataset/mine/mine.item.rejected.tsv").read_text().splitlines()[1].startswith("4\tthe number")
    assert convert(file, "none", ReadOptions(item_features=NONE, user_features=NONE)).features == ()


def test_files_of_features_are_replaced_only_if_asked_for(empty_folder: Path) -> None:
    file = dump(empty_folder / "ml-1m", "ml-1m")
    own = Path("dataset/mine/mine.item")
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    with pytest.raises(
        SettingError, match=r"mine.item exists; give another --dataset, --overwrite, or --item_features=none"
    ):
        convert(file, "mine")
    assert own.read_text() == "mine" and len(list(own.parent.iterdir())) == 1
    convert(file, "mine", ReadOptions(item_features=NONE))
    assert own.read_text() == "mine"
    convert(file, "mine", overwrite=True)
    assert own.read_text().startswith("item_id:token")


# -- a table of one's own --------------------------------------------------------------------------------------------

OWN = ReadOptions(user="who", item="what", time="when")


@pytest.fixture
def log() -> Path:
    rows = [f"u{number % 4},i{number % 5},{number}" for number in range(40)]
    Path("log.csv").write_text("\n".join(["who,what,when", *rows, ""]))
    return Path("log.csv")


def test_products_of_ones_own_get_types_by_their_values(log: Path) -> None:
    Path("products.csv").write_text(
        'title,what,price,zip,kind:token_seq\n"Salt, 1 kg",i0,1.5,01234,a b\nPepper,i1,,x,b\n'
        "Unused,i9,1,1,c\nTea,i2,2,1,\n"
    )
    done = convert(log, "mine", OWN._replace(item_features="products.csv"))
    text = done.file.with_suffix(".item").read_text().splitlines()
    assert text[0] == "item_id:token\ttitle:token\tprice:float\tzip:token\tkind:token_seq"
    assert text[1:] == ["i0\tSalt, 1 kg\t1.5\t01234\ta b", "i1\tPepper\t\tx\tb", "i2\tTea\t2\t1\t"]
    assert (done.features[0].described, done.features[0].wanted) == (3, 5)


@pytest.mark.parametrize("separator", [";", "|", "::"])
def test_encoding_and_separator_are_those_of_the_interactions(empty_folder: Path, separator: str) -> None:
    rows = [f"u{nth % 2};é{nth % 3};{nth}" for nth in range(9)]
    Path("log.csv").write_bytes("\n".join(["who;what;when", *rows, ""]).replace(";", separator).encode("cp1252"))
    products = "what;title;n\né0;Café, 1 €;5\né2;Thé;6\n".replace(";", separator)
    Path("products.csv").write_bytes(products.encode("cp1252"))
    reading = OWN._replace(separator=separator, encoding="cp1252", item_features="products.csv")
    done = convert("log.csv", "mine", reading)
    assert features(done, "item") == {"é0": {"title": "Café, 1 €", "n": "5"}, "é2": {"title": "Thé", "n": "6"}}
    Path("products.csv").write_bytes(products.replace(separator, ",").replace("Café, 1", "Café 1").encode())
    done = convert("log.csv", "plain", reading)  # UTF-8 and commas, as the suffix says
    assert features(done, "item") == {"é0": {"title": "Café 1 €", "n": "5"}, "é2": {"title": "Thé", "n": "6"}}
    Path("products.jsonl").write_bytes('{"what": "é0", "title": "Café"}\n'.encode("cp1252"))  # has no separator
    done = convert("log.csv", "json", reading._replace(item_features="products.jsonl"))
    assert features(done, "item") == {"é0": {"title": "Café"}}


def test_a_table_of_ones_own_beside_a_dump_has_its_column(empty_folder: Path) -> None:
    file = sample(empty_folder, "zvuk")
    Path("tracks.csv").write_text("track_id,title\n50,One\n51,Two\n60,Three\n")
    Path("people.tsv").write_text("user_id\tcity\n9\tUlm\n")
    done = convert(file, "mine", ReadOptions("zvuk", item_features="tracks.csv", user_features="people.tsv"))
    assert features(done, "item") == {"50": {"title": "One"}, "51": {"title": "Two"}}
    assert features(done, "user") == {"9": {"city": "Ulm"}}
    Path("others.csv").write_text("item_id,title\n50,One\n")
    with pytest.raises(DataError, match=r"others.csv has no column 'track_id'; it has 'item_id', 'title'\."):
        convert(file, "other", ReadOptions("zvuk", item_features="others.csv"))


@pytest.mark.parametrize(
    ("name", "key", "content"),
    [
        ("ml-1m", "item", "item,title,mood\n50,Own,dark\n"),
        ("ml-100k", "item", "item,title,mood\n50,Own,dark\n"),
        ("ml-20m", "movieId", "movieId,title,mood\n50,Own,dark\n"),
        ("amazon-2014", "asin", '{"asin": "50", "title": "Own", "mood": "dark"}\n'),
    ],
)
def test_a_table_of_ones_own_is_not_read_as_the_file_of_the_dump(
    empty_folder: Path, name: str, key: str, content: str
) -> None:
    file = dump(empty_folder / "dump", name)
    own = f"own.{'json' if content.startswith('{') else 'csv'}"
    Path(own).write_text(content)
    done = convert(file, "mine", ReadOptions(name, item_features=own))
    assert features(done, "item") == {"50": {"title": "Own", "mood": "dark"}}


@pytest.mark.parametrize(
    ("name", "other"),
    [("ml-1m", "copy.dat"), ("amazon-2018", "meta_Books.json.gz"), ("amazon-2014", "metadata.json.gz")],
)
def test_a_file_of_the_dump_may_be_named(empty_folder: Path, name: str, other: str) -> None:
    """Also that of another category, or under a name that is no table's."""
    file = sample(empty_folder / "dump", name)
    Path(other).write_bytes(ITEM_FILES[name][1])
    done = convert(file, "mine", ReadOptions(name, item_features=other))
    assert features(done, "item") == dict(zip(("50", "51"), EXPECTED[name]))


def test_products_as_json_may_have_lists(log: Path) -> None:
    records = [{"what": "i0", "title": "Salt", "tags": ["a b", "c"]}, {"what": "i1", "tags": None, "n": 3}]
    Path("products.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    done = convert(log, "mine", OWN._replace(item_features="products.jsonl"))
    text = done.file.with_suffix(".item").read_text().splitlines()
    assert text == ["item_id:token\ttitle:token\ttags:token_seq\tn:float", "i0\tSalt\ta_b c\t", "i1\t\t\t3"]


def test_lists_of_ones_own_keep_every_value(log: Path) -> None:
    """Vectors and sequences; whole numbers may be names."""
    records = [
        {
            "what": "i0",
            "emb:float_seq": [0.5, 0.5, 1],
            "untyped": [0, 0, 0.25],
            "ids": [7, 7],
            "words": ["a", "b", "a"],
        },
        {"what": "i1", "emb:float_seq": "1 1 2e-3", "untyped": None, "ids": [], "words": "a a"},
    ]
    Path("products.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    done = convert(log, "mine", OWN._replace(item_features="products.jsonl"))
    assert done.file.with_suffix(".item").read_text().splitlines() == [
        "item_id:token\temb:float_seq\tuntyped:float_seq\tids:token_seq\twords:token_seq",
        "i0\t0.5 0.5 1\t0 0 0.25\t7 7\ta b a",
        "i1\t1 1 2e-3\t\t\ta a",
    ]


def test_only_what_atomic_files_take_for_numbers_are_numbers(log: Path) -> None:
    seasons = ["2020_01", "٣", "1e39", "inf", "nan", "0x10", '"1,5"', '"101,202"', '"1,,2"']
    for nth, season in enumerate(seasons):
        Path("products.csv").write_text(f"what,season\ni0,{season}\ni1,5\n")
        done = convert(log, f"mine{nth}", OWN._replace(item_features="products.csv"))
        header, first, _ = done.file.with_suffix(".item").read_text().splitlines()
        assert header == "item_id:token\tseason:token" and first == "i0\t" + season.strip('"')


def test_names_in_both_files_are_compared_as_they_are_written(empty_folder: Path) -> None:
    names = ["A&amp;B", "x  y", " z"]
    rows = [f"u{nth % 2},{name},{nth}" for nth, name in enumerate(names * 2)]
    Path("log.csv").write_text("\n".join(["who,what,when", *rows, ""]))
    Path("products.csv").write_text("\n".join(["what,title", *(f"{name},T{n}" for n, name in enumerate(names)), ""]))
    done = convert("log.csv", "mine", OWN._replace(item_features="products.csv"))
    assert done.features[0].described == done.features[0].wanted == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("what,item_id,title\ni0,i1,One\n", "would be written as 'item_id', as would column 'what': rename it"),
        ("what,a:b,a_b\ni0,1,2\n", "would be written as 'a_b', as would another: rename it, or leave it out"),
        ("what,tags,tags\ni0,a,b\n", "has two columns 'tags': rename one, or leave it out"),
        ('what,price:float\ni0,"1,5"\n', "line 2: column 'price:float' must hold numbers; got '1,5'"),
        ("what,price:float\ni0,1.5\ni1,abc\n", "1 bad line, line 3: column 'price:float' must hold numbers; got 'abc'"),
        ("what,vector:float_seq\ni0,1 b\n", "line 2: column 'vector:float_seq' must hold numbers; got '1 b'"),
    ],
)
def test_columns_of_ones_own_that_cannot_be_written_are_one_line(
    log: Path, content: str, message: str, capsys: pytest.CaptureFixture
) -> None:
    Path("products.csv").write_text(content)
    flags = ["--dataset=mine", "--user=who", "--item=what", "--time=when", "--item_features=products.csv"]
    assert cli.main(["data", "convert", str(log), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not Path("dataset").exists()


def test_features_of_an_earlier_conversion_are_told(log: Path, capsys: pytest.CaptureFixture) -> None:
    Path("products.csv").write_text("what,title\ni0,Salt\n")
    flags = ["--dataset=mine", "--user=who", "--item=what", "--time=when", "--overwrite"]
    assert cli.main(["data", "convert", str(log), *flags, "--item_features=products.csv"]) == 0
    assert "left as it was" not in capsys.readouterr().out
    assert cli.main(["data", "convert", str(log), *flags]) == 0
    assert "left as it was: dataset/mine/mine.item; delete it if it describes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere.csv", None, "item_features: there is no file nowhere.csv"),
        ("products.xml", "<a/>", "item_features: the file must be one of .csv, .tsv and .jsonl, perhaps with .gz; got"),
        ("products.csv", "product,title\ni0,x\n", "products.csv has no column 'what'; it has 'product', 'title'."),
        ("products.jsonl", '{"wat": 1}\n', "products.jsonl has no column 'what'; it has 'wat'. Did you mean 'wat'?"),
        ("products.jsonl", "[1]\n", "products.jsonl has 1 bad line, line 1: the line is not an object: '[1]'"),
    ],
)
def test_products_that_cannot_be_read_are_one_line(
    log: Path, name: str, content: str | None, message: str, capsys: pytest.CaptureFixture
) -> None:
    if content is not None:
        Path(name).write_text(content)
    flags = ["--dataset=mine", "--user=who", "--item=what", "--time=when", f"--item_features={name}"]
    assert cli.main(["data", "convert", str(log), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not Path("dataset").exists()


# -- models with features --------------------------------------------------------------------------------------------


@pytest.fixture
def converted(empty_folder: Path) -> Callable[..., dict[str, Any]]:
    """Settings of a short run on a converted ml-1m of 20 users and 12 films, of which one is not described."""
    ratings = [
        f"{user}::{1 + (3 * user + step) % 12}::5::{100 * user + step}" for user in range(1, 21) for step in range(8)
    ]
    movies = [f"{item}::Film {item} (19{50 + item})::{'Action' if item % 2 else 'Drama|War'}" for item in range(1, 12)]
    folder = empty_folder / "ml-1m"
    folder.mkdir()
    (folder / "ratings.dat").write_text("\n".join(ratings) + "\n")
    (folder / "movies.dat").write_text("\n".join(movies) + "\n")
    convert(folder, "films")

    def settings(**changes: Any) -> dict[str, Any]:
        quick = {"epochs": 1, "MAX_ITEM_LIST_LENGTH": 5, "train_batch_size": 64, "show_progress": False, "topk": [3]}
        return {"data_path": "dataset", "valid_metric": "NDCG@3", **quick, **changes}

    return settings


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("SASRecF", {}),
        ("GRU4RecF", {"selected_features": ["class", "release_year"]}),
        ("FDSA", {}),
        ("S3Rec", {"train_stage": "pretrain", "pretrain_epochs": 1, "save_step": 1}),
    ],
    ids=str,
)
def test_models_with_features_run_on_converted_data(
    converted: Callable, model: str, changes: Mapping[str, Any]
) -> None:
    """Without a word on ``load_col``: the models read ``class``, or what they are told, from the file of items."""
    result = run(model, "films", config_dict=converted(**changes), saved=False)
    assert result["test_result"]["ndcg@3"] >= 0
    config = Config(model, "films", config_dict=converted(**changes), command_line=[])
    assert config["load_col"]["item"] == ["item_id", *(changes.get("selected_features") or ["class"])]


def test_features_that_the_file_lacks_are_named(converted: Callable) -> None:
    config = Config("SASRecF", "films", config_dict=converted(selected_features=["genre"]), command_line=[])
    with pytest.raises(
        SettingError, match=r"names the column 'genre', which is not loaded. .*title:token, release_year:"
    ):
        ensure_atomic_files(config)
    for changes in ({"load_col": {"inter": ["user_id", "item_id", "timestamp"]}}, {"load_col": {"inter": "*"}}):
        config = Config("SASRecF", "films", config_dict=converted(**changes), command_line=[])
        with pytest.raises(SettingError, match=r"no columns of items are loaded; there must be a file films.item"):
            ensure_atomic_files(config)


def test_other_models_do_not_read_the_file_of_items(converted: Callable) -> None:
    for model in ("SASRec", "PosKernelSASRec", "BPR"):
        assert "item" not in Config(model, "films", config_dict=converted(), command_line=[])["load_col"]
