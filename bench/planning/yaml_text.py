"""YAML that people or strangers write, as plain values: bounded in size and depth, and each key once."""

from collections.abc import Iterator
from itertools import chain
from typing import Any, NoReturn

import yaml

from bench.core.errors import UserError
from bench.core.words import check_printable, plain_text

MOST_DEPTH = 50
MOST_VALUES = 20_000  # after aliases are followed: ten of them nested ten times make 10^10
MOST_DIGITS = 100  # of a number
_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_PLAIN = ("null", "bool", "int", "float", "str", "seq", "map")
_AS_TEXT = ("timestamp", "value")  # a date and "=" are texts: nothing that people configure is one


def parse_yaml(text: str) -> Any:
    """The value that a YAML text stands for: mappings, lists, texts, numbers, booleans and None.

    Dates stay texts. A text may hold no control characters.

    Raises:
        UserError: the text is not YAML, gives a key twice, is nested too deep, stands for too many values, or
            holds a number that is none. The message continues a sentence that begins with where it stands.
    """
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise UserError(f"is not YAML: {plain_text(' '.join(str(error).split()), 300)}") from None


class _Loader(yaml.SafeLoader):
    """Refuses what yaml.SafeLoader lets through or fails at with errors of Python's own.

    It looks at each value as it comes, so that a large text is left at once, and at keys before mappings are
    merged: what a mapping takes over by `<<` it may give anew.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._read = 0
        self._sizes: dict[yaml.Node, tuple[int, int]] = {}  # values and levels of each node that has ended

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # untyped in PyYAML's stubs
        self._depth += 1
        self._read += 1
        self._check_size(self._read, self._depth, event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is None:
            return None
        if isinstance(event, yaml.AliasEvent):
            if node not in self._sizes:
                _refuse("has a value that holds itself", event)
        else:
            parts = [self._sizes[part] for part in _parts(node)]
            self._sizes[node] = 1 + sum(n for n, _ in parts), 1 + max((deep for _, deep in parts), default=0)
            self._check_keys(node)
        self._check_size(*self._sizes[node], event)
        return node

    def _check_size(self, values: int, depth: int, place: Any) -> None:
        if depth > MOST_DEPTH:
            _refuse(f"is nested more than {MOST_DEPTH} deep", place)
        if values > MOST_VALUES:
            _refuse(f"stands for more than {MOST_VALUES:,} values", place)

    def _check_keys(self, node: yaml.Node) -> None:
        seen = set()
        for written, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(written, yaml.ScalarNode):
                merge = written.tag == _MERGE
                key = written.value if merge else self.construct_object(written)
                if (merge, key) in seen:
                    _refuse(f"gives the key {plain_text(repr(key))} twice", written)
                seen.add((merge, key))

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Replace `<<` by what it stands for: a key's own value wins, then that of the first mapping merged.

        PyYAML takes keys for the same by the identity of their texts.
        """
        given = [pair for pair in node.value if pair[0].tag != _MERGE]
        for written, value in node.value:
            for base in _bases(value) if written.tag == _MERGE else ():
                self.flatten_mapping(base)
                known = {(key.tag, key.value) for key, _ in given if isinstance(key, yaml.ScalarNode)}
                given += [pair for pair in base.value if (pair[0].tag, pair[0].value) not in known]
        node.value = given

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        kind = node.tag.removeprefix(_TAG)
        if kind in ("int", "float") and isinstance(node, yaml.ScalarNode) and len(node.value) > MOST_DIGITS:
            _refuse(f"holds {plain_text(node.value)}, which is no {kind} of {MOST_DIGITS} digits", node)
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError) as error:
            if isinstance(error, UserError):
                raise
            _refuse(f"holds {plain_text(str(node.value))}, which is no {kind}", node)
        if isinstance(value, str):
            try:
                check_printable(value)
            except UserError as error:
                _refuse(str(error), node)
        return value


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag.removeprefix(_TAG) not in _AS_TEXT]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.yaml_constructors = {  # None: of any other tag, which is refused
    tag: construct
    for tag, construct in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.removeprefix(_TAG) in _PLAIN
}


def _refuse(problem: str, place: Any) -> NoReturn:
    mark = place.start_mark
    raise UserError(f"{problem}, line {mark.line + 1}, column {mark.column + 1}")


def _bases(value: yaml.Node) -> list[yaml.MappingNode]:
    """The mappings that `<<` names."""
    bases: list[Any] = value.value if isinstance(value, yaml.SequenceNode) else [value]
    if other := next((base for base in bases if not isinstance(base, yaml.MappingNode)), None):
        _refuse("merges what is no mapping", other)
    return bases


def _parts(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return chain.from_iterable(node.value)
    return iter(node.value if isinstance(node, yaml.SequenceNode) else ())
