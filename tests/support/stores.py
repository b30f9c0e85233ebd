"""Stores whose process dies."""

from __future__ import annotations

from bulkembed.storage.store import Store


class Killed(BaseException):
    pass


class Dying(Store):
    """A store whose process is killed after so many deletions. Requests for the time do not count."""

    def __init__(self, max_deletes: int) -> None:
        super().__init__()
        self.left = max_deletes

    def delete(self, uri: str) -> None:
        if "/_meta/clock/" not in uri:
            if self.left <= 0:
                raise Killed
            self.left -= 1
        super().delete(uri)


class DyingAnywhere(Store):
    """A store whose process is killed before a write or a deletion, after so many of them."""

    def __init__(self, max_changes: int) -> None:
        super().__init__()
        self.left = max_changes

    def count(self) -> None:
        if self.left <= 0:
            raise Killed
        self.left -= 1

    def put(self, uri: str, data: bytes) -> None:
        self.count()
        super().put(uri, data)

    def create(self, uri: str, data: bytes) -> bool:
        self.count()
        return super().create(uri, data)

    def delete(self, uri: str) -> None:
        self.count()
        super().delete(uri)
