"""Several places of one source, and names that are excluded from it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.errors import ConfigError, StorageError
from bulkembed.source.objects import NoDocuments
from bulkembed.source.places import listing_of
from bulkembed.storage.local_paths import absolute_place
from bulkembed.storage.name_rules import NameRules
from bulkembed.storage.store import Store
from tests.support.listing import ROW, deny, fill, left_out, paths

AGAIN = "below several places of the source, read once"


def test_the_order_of_places_makes_no_difference(place: tuple[Store, str]) -> None:
    store, root = place
    fill(root, "a/1.jsonl", "a/x/2.jsonl", "b/1.jsonl", "c/3.jsonl", "c/3.pdf", store=store)
    places = [f"{root}/a", f"{root}/b/*.jsonl", f"{root}/c"]
    listings = [listing_of(store, order) for order in itertools.permutations(places)]
    assert all(listing == listings[0] for listing in listings)
    assert paths(listings[0]) == ["1.jsonl", "1.jsonl", "3.jsonl", "x/2.jsonl"]
    assert len({item.id for item in listings[0].objects}) == 4
    assert left_out(listings[0]) == {f"with the suffix .pdf, below {root}/c": (1, ("3.pdf",))}


def test_an_object_keeps_its_id_when_a_place_is_added_or_moves(place: tuple[Store, str]) -> None:
    store, root = place
    fill(root, "a/1.jsonl", "a/2.jsonl", "b/2.jsonl", store=store, data=ROW)
    for name, rows in (("a/1.jsonl", 1), ("b/3.jsonl", 3)):
        fill(root, name, store=store, data=ROW * rows)
    alone = {item.uri: item.id for item in listing_of(store, [f"{root}/a"]).objects}
    both = {item.uri: item.id for item in listing_of(store, [f"{root}/a", f"{root}/b"]).objects}
    assert both[f"{root}/a/1.jsonl"] == alone[f"{root}/a/1.jsonl"]
    assert len(set(both.values())) == len(both) == 4


@pytest.mark.parametrize("order", [1, -1])
def test_an_object_below_several_places_is_read_once(place: tuple[Store, str], order: int) -> None:
    store, root = place
    fill(root, "a/1.jsonl", "a/x/2.jsonl", "a/x/3.jsonl", store=store)
    places = [f"{root}/a", f"{root}/a/x", f"{root}/a/x/3.jsonl", f"{root}/a/", f"{root}/*/1.jsonl"]
    found = listing_of(store, places[::order])
    assert paths(found) == ["1.jsonl", "x/2.jsonl", "x/3.jsonl"]
    assert left_out(found)[AGAIN][0] == 7
    alone = listing_of(store, [f"{root}/a"])
    assert [item.id for item in found.objects] == [item.id for item in alone.objects]


@pytest.mark.parametrize(
    ("first", "second"), [("s3://{}", "s3a://{}"), ("s3://{}", "s3a://{}/x"), ("S3://{}", "s3n://{}/x/"), ("s3://{}//", "s3://{}")]
)
def test_two_spellings_of_a_place_give_its_objects_once(bucket: tuple[Store, str], first: str, second: str) -> None:
    store, root = bucket
    fill(root, "x/a.jsonl", "x/b.jsonl", store=store)
    places = [absolute_place(spelling.format(root.removeprefix("s3://"))) for spelling in (first, second)]
    found = listing_of(store, places)
    assert sorted(path[-7:] for path in paths(found)) == ["a.jsonl", "b.jsonl"]
    assert left_out(found)[AGAIN][0] == 2
    assert {item.id for item in found.objects} <= {item.id for one in places for item in listing_of(store, [one]).objects}


def test_a_link_into_another_place_gives_its_file_once(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.jsonl", "b/2.jsonl")
    (tmp_path / "a" / "more").symlink_to("../b")
    (tmp_path / "c").symlink_to("a")
    found = listing_of(Store(), [f"{tmp_path}/{name}" for name in "abc"])
    assert len(found.objects) == 2
    assert left_out(found)[AGAIN][0] == 3


def test_a_place_without_documents_is_an_error_beside_one_that_has_some(place: tuple[Store, str]) -> None:
    store, root = place
    fill(root, "a/1.jsonl", "b/1.pdf", store=store)
    for other in ("b", "nothing"):
        with pytest.raises(NoDocuments, match=rf"source {root}/{other}: "):
            listing_of(store, [f"{root}/a", f"{root}/{other}"])
    with pytest.raises(NoDocuments, match=r"left out 1 excluded by \*\.jsonl: 1\.jsonl"):
        listing_of(store, [f"{root}/a"], ["*.jsonl"])


NAMES = ["a.jsonl", "b [1].jsonl", "tmp/a.jsonl", "x/a.jsonl", "x/tmp/c.jsonl", "x/y/a.jsonl", "x/y/d.jsonl"]
# Which names a pattern leaves out, and how many it is said to leave out: a folder counts as one.
EXCLUDED = {
    "a.jsonl": ({"a.jsonl", "tmp/a.jsonl", "x/a.jsonl", "x/y/a.jsonl"}, 4),
    "/a.jsonl": ({"a.jsonl"}, 1),
    "./x/y/": ({"x/y/a.jsonl", "x/y/d.jsonl"}, 1),
    "tmp": ({"tmp/a.jsonl", "x/tmp/c.jsonl"}, 2),
    "tmp/": ({"tmp/a.jsonl", "x/tmp/c.jsonl"}, 2),
    "x/*": ({"x/a.jsonl", "x/tmp/c.jsonl", "x/y/a.jsonl", "x/y/d.jsonl"}, 3),
    "x/**/a.jsonl": ({"x/a.jsonl", "x/y/a.jsonl"}, 2),
    "b [1].jsonl": ({"b [1].jsonl"}, 1),
    "[ab]*": ({"a.jsonl", "b [1].jsonl", "tmp/a.jsonl", "x/a.jsonl", "x/y/a.jsonl"}, 5),
    "nothing": (set[str](), 0),
    "jsonl": (set[str](), 0),
}


def test_excluded_names_are_left_out_and_counted(place: tuple[Store, str]) -> None:
    store, root = place
    fill(root, *NAMES, store=store)
    for pattern, (gone, shown) in EXCLUDED.items():
        found = listing_of(store, [root], [pattern])
        assert set(paths(found)) == set(NAMES) - gone
        assert left_out(found)[f"excluded by {pattern}"][0] == shown
        if "://" not in root:
            assert listing_of(store, [f"{root}/**"], [pattern]) == replace(found, links=[])


def test_a_pattern_that_excludes_nothing_is_named_beside_one_that_it_begins(tmp_path: Path) -> None:
    fill(tmp_path, "a.jsonl", "tmp2/b.jsonl")
    found = listing_of(Store(), [str(tmp_path)], ["tmp", "tmp2"])
    assert left_out(found) == {"excluded by tmp2": (1, ("tmp2/",)), "excluded by tmp": (0, ())}


def test_a_folder_that_cannot_be_listed_can_be_excluded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a.jsonl", "lost+found/b.jsonl")
    (tmp_path / "gone.jsonl").symlink_to("nowhere")
    deny(monkeypatch, "lost+found")
    with pytest.raises(StorageError, match=r"lost\+found: cannot be listed"):
        listing_of(Store(), [str(tmp_path)])
    found = listing_of(Store(), [str(tmp_path)], ["/lost+found", "gone.*"])
    assert (paths(found), found.failures) == (["a.jsonl"], [])


def test_an_excluded_name_of_a_file_leaves_its_other_name(tmp_path: Path) -> None:
    fill(tmp_path, "a.jsonl")
    (tmp_path / "b.jsonl").symlink_to("a.jsonl")
    assert paths(listing_of(Store(), [str(tmp_path)], ["a.jsonl"])) == ["b.jsonl"]


def test_a_pattern_that_is_none_is_told(tmp_path: Path) -> None:
    fill(tmp_path, "a.jsonl")
    with pytest.raises(ConfigError, match=r"^exclude: 'a\*\*b"):
        listing_of(Store(), [str(tmp_path)], ["a**b"])


@given(
    st.lists(st.sampled_from(["a", "b", "_c", "tmp", "x.jsonl"]), min_size=1, max_size=5), st.sampled_from(["tmp", "a/b", "a/*/tmp", "x.*"])
)
def test_a_flat_listing_leaves_out_what_a_walk_leaves_out(parts: list[str], pattern: str) -> None:
    rules = NameRules((".", "_"), [pattern], "/r")
    path, walked = "/r", None
    for number, part in enumerate(parts):
        path = f"{path}/{part}"
        if reason := rules.reason(path):
            walked = (path + "/" * (number + 1 < len(parts)), reason)
            break
    assert NameRules((".", "_"), [pattern], "/r").left_out_part(f"/r/{'/'.join(parts)}", "/r") == walked
