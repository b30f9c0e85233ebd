"""Objects of the output that are changed by a bit, cut, or deleted; and what became of each."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from bulkembed.storage.store import Store
from scripts.chaos_rounds.scene import Damage, Scene

MIN_NAME = 11  # characters of a name that says enough: those of current.txt
PASSING = ("_meta/clock/", "_meta/exchange/")  # objects that live for seconds


def of(kind: str) -> Callable[[Scene], str | None]:
    """Damages one object of the output. Returns None where there is none."""

    def damage(scene: Scene) -> str | None:
        uri = some_object(scene.store, scene.where.output, scene.chance)
        if uri is None:
            return None
        try:
            before = scene.store.read(uri)
        except FileNotFoundError:
            return None
        how, after = changed(before, scene.chance)
        if after is None:
            scene.store.delete(uri)
        else:
            scene.store.put(uri, after)
        scene.damages.append(Damage(kind, uri, before, after))
        return f"{how}: {uri}"

    return damage


def some_object(store: Store, output: str, chance: random.Random) -> str | None:
    """A random object of a random folder, so that folders with few objects are hit as often as those with many."""
    folders: dict[str, list[str]] = {}
    for item in store.listed(output):
        if not item.relative_path.startswith(PASSING):
            folders.setdefault("/".join(item.relative_path.split("/")[:2]) if "/" in item.relative_path else "", []).append(item.uri)
    return chance.choice(folders[chance.choice(sorted(folders))]) if folders else None


def changed(data: bytes, chance: random.Random) -> tuple[str, bytes | None]:
    """How it was damaged, and what is left of it."""
    how = chance.choice(["flipped", "cut", "deleted"]) if data else "deleted"
    if how == "deleted":
        return how, None
    place = chance.randrange(len(data))
    if how == "cut":
        return f"cut at {place} of {len(data)}", data[:place]
    bit = 1 << chance.randrange(8)
    return f"bit {bit} flipped at {place} of {len(data)}", data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]


def stands(store: Store, damage: Damage) -> bool:
    """Whether the object is as it was left: nobody has written it again, or removed it."""
    try:
        return store.read(damage.uri) == damage.after
    except FileNotFoundError:
        return damage.after is None


def named_in(text: str, damages: Iterable[Damage]) -> list[Damage]:
    """The damages whose object a text names: by its place, or by a folder of its own."""
    return [each for each in damages if any(part in text for part in each.uri.split("/")[-2:] if len(part) >= MIN_NAME)]


def mend(store: Store, damages: Iterable[Damage]) -> None:
    """Puts the objects back, as from a backup."""
    for damage in damages:
        store.put(damage.uri, damage.before)
