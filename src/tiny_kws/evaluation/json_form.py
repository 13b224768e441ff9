"""The JSON form of results: a dataclass is an object whose keys are its fields, and comes back from it.

A field with the metadata INLINE holds a dataclass whose keys stand among those of the whole. A field whose default is
None is left out where it is None; a field without default is written as null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

Result = TypeVar("Result")
INLINE = {"inline": True}
"""Metadata of a field: its keys stand among those of the whole."""


def to_json(value: Any) -> Any:
    """What `json.dumps` takes, of dataclasses, mappings and sequences in one another."""
    if is_dataclass(value):
        found: dict[str, Any] = {}
        for one in fields(value):
            content = getattr(value, one.name)
            if content is None and (one.default is None or _is_inline(one)):
                continue
            found |= to_json(content) if _is_inline(one) else {one.name: to_json(content)}
        return found
    if isinstance(value, Mapping):
        return {key: to_json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(one) for one in value]
    return value


def from_json(kind: type[Result], values: Any) -> Result:
    """The dataclass `kind` of what `to_json` made of it; keys that it does not know are passed over.

    Raises ValueError, saying where, if something is missing or of another type.

    >>> from dataclasses import dataclass
    >>> Place = dataclass(type("Place", (), {"__annotations__": {"name": "str", "xy": "tuple[float, ...]"}}))
    >>> from_json(Place, {"name": "here", "xy": [1.5, 2], "colour": "red"})
    Place(name='here', xy=(1.5, 2))
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"found {_short(values)}, expected an object")  # noqa: TRY004  (one kind of bad content)
    hints = get_type_hints(kind)
    given = {}
    for one in fields(kind):  # type: ignore[arg-type]
        if _is_inline(one):
            given[one.name] = _inlined(hints[one.name], values)
        elif one.name in values:
            given[one.name] = _within(one.name, hints[one.name], values[one.name])
        elif one.default is MISSING and one.default_factory is MISSING:
            raise ValueError(f"found no {one.name}")
    return kind(**given)


def _is_inline(one: Field[Any]) -> bool:
    return "inline" in one.metadata


def _inlined(hint: Any, values: Mapping[str, Any]) -> Any:
    kind = _kind_of(hint)
    return None if NoneType in get_args(hint) and not _keys(kind) & set(values) else from_json(kind, values)


def _kind_of(hint: Any) -> Any:
    """The dataclass of a field that holds one, or None."""
    return next(part for part in (get_args(hint) or (hint,)) if part is not NoneType)


@cache
def _keys(kind: type) -> frozenset[str]:
    """All the keys that a dataclass may have."""
    found: set[str] = set()
    for one in fields(kind):
        found |= _keys(_kind_of(get_type_hints(kind)[one.name])) if _is_inline(one) else {one.name}
    return frozenset(found)


def _within(where: str, hint: Any, value: Any) -> Any:
    try:
        return _converted(hint, value)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _converted(hint: Any, value: Any) -> Any:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return None if value is None else _converted(_kind_of(hint), value)
    if isinstance(hint, type) and is_dataclass(hint):
        return from_json(hint, value)
    if origin is not None and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {key: _within(str(key), parts[1], one) for key, one in value.items()}
    if origin is not None and issubclass(origin, Sequence) and isinstance(value, (list, tuple)):
        kinds = [parts[0]] * len(value) if len(parts) == 1 or parts[-1] is ... else parts
        if len(kinds) != len(value):
            raise ValueError(f"found {len(value)} values, expected {len(kinds)}")
        return tuple(_converted(kind, one) for kind, one in zip(kinds, value, strict=True))
    if hint is Any or (origin is None and _is_plain(hint, value)):
        return value
    raise ValueError(f"found {_short(value)}, expected {getattr(hint, '__name__', hint)}")


def _is_plain(hint: type, value: Any) -> bool:
    """Whether a value is a text, a number or a truth value as wanted; a whole number is a float too, True none."""
    return isinstance(value, (int, float) if hint is float else hint) and (hint is bool or not isinstance(value, bool))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
