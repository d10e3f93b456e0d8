"""An HTML page as a reader has it: its tables by caption, its charts, what it would fetch."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "img", "link", "input"}
FETCHING = {"src", "href", "srcset", "data", "action", "poster", "background"}


class Page(HTMLParser):
    """`tables`: rows of cells by caption, the head first. `charts`: by title, the elements of each with their
    attributes. `tags`: all that there are. `fetched`: attributes that name another file."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tables: dict[str, list[list[str]]] = {}
        self.charts: dict[str, list[tuple[str, dict[str, str]]]] = {}
        self.tags: set[str] = set()
        self.fetched: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self._rows: list[list[str]] = []
        self._caption = ""
        self._chart = ""
        self.feed(text)
        self.close()
        assert self._open == [], f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = {name: value or "" for name, value in attrs}
        self.fetched += [f"{name}={value}" for name, value in given.items() if name in FETCHING]
        assert not any(name.startswith("on") for name in given)
        if tag not in VOID:
            self._open.append(tag)
        match tag:
            case "table":
                self._rows, self._caption = [], ""
            case "tr":
                self._rows.append([])
            case "th" | "td":
                self._rows[-1].append("")
            case "svg":
                assert (given["role"], bool(given["aria-label"])) == ("img", True)
                self._chart = given["aria-label"]
                self.charts[self._chart] = []
        if self._chart:
            self.charts[self._chart].append((tag, given))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag == "table":
            self.tables[self._caption] = self._rows
        elif tag == "svg":
            self._chart = ""

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        if "caption" in self._open:
            self._caption += data
        elif self._open and self._open[-1] in ("th", "td"):
            self._rows[-1][-1] += data

    def table(self, caption: str) -> list[dict[str, str]]:
        """Its rows by the words of its head."""
        head, *rows = self.tables[caption]
        return [dict(zip(head, row, strict=True)) for row in rows]

    def drawn(self, title: str, tag: str, kind: str = "") -> list[dict[str, str]]:
        """Elements of a chart: of a tag, and of a class where one is given."""
        found = [attributes for name, attributes in self.charts[title] if name == tag]
        return [each for each in found if not kind or kind in each.get("class", "").split()]
