"""YAML that people or strangers write, as plain values: bounded in size and depth, and each key once."""

from collections.abc import Hashable
from typing import Any

import yaml

from bench.core.errors import UserError
from bench.core.words import check_printable, plain_text

MOST_DEPTH = 50
MOST_VALUES = 100_000  # after aliases are followed: ten of them nested ten times make 10^10


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
            node = loader.get_single_node()
            if node is None:
                return None
            _count(node, {}, [])
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise UserError(f"is not YAML: {' '.join(str(error).split())}") from None


class _Loader(yaml.SafeLoader):
    """Refuses what yaml.SafeLoader lets through or fails at with errors of Python's own."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            here = _place(self.peek_event())  # type: ignore[no-untyped-call]
            raise UserError(f"is nested more than {MOST_DEPTH} deep, {here}")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            if isinstance(error, UserError):
                raise
            shown = plain_text(str(node.value)) if isinstance(node, yaml.ScalarNode) else "a value"
            kind = node.tag.rpartition(":")[2]
            raise UserError(f"holds {shown}, which is no {kind}, {_place(node)}") from None
        if isinstance(value, str):
            try:
                check_printable(value)
            except UserError as error:
                raise UserError(f"{error}, {_place(node)}") from None
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for written, _ in node.value:
            if written.tag != "tag:yaml.org,2002:merge":
                key = self.construct_object(written, deep=True)
                if isinstance(key, Hashable) and key in seen:
                    shown = plain_text(repr(key))
                    raise UserError(f"gives the key {shown} twice, {_place(written)}")
                seen |= {key} if isinstance(key, Hashable) else set()
        return super().construct_mapping(node, deep)


# a date is a text: nothing that people configure is one
_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _place(node: Any) -> str:
    return f"line {node.start_mark.line + 1}, column {node.start_mark.column + 1}"


def _count(node: yaml.Node, known: dict[int, int], above: list[int]) -> int:
    """The values that a node stands for, with aliases followed; their depth is bounded already.

    Raises UserError for too many, and for a node that holds itself.
    """
    if id(node) in known:
        return known[id(node)]
    if id(node) in above:
        raise UserError(f"has a value that holds itself, {_place(node)}")
    parts: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        parts = node.value
    total = 1 + sum(_count(part, known, [*above, id(node)]) for part in parts)
    if total > MOST_VALUES:
        raise UserError(f"stands for more than {MOST_VALUES:,} values, {_place(node)}")
    known[id(node)] = total
    return total
