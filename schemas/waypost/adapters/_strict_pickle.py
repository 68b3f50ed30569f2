"""Read a pickle without running it: a small interpreter that only makes instances of classes it was given.

A pickle is a program. Python's own unpickler, even with a restricted ``find_class``, calls everything that it returns
with any arguments in the pickle, and lets it change classes. This one makes no calls, except to constructors that are
listed as harmless. It rejects everything that it does not support (persistent ids, extension codes, functions, older
protocols' helpers).
"""

import dataclasses
import enum
import functools
import pickletools
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

from waypost.adapters.allowed_types import DecodeError, not_allowed, rebuilding_failed, shown

# A pickle may share parts: 60 pairs, each of twice the previous pair, are 300 bytes and would take years to hash,
# compare or encode. So there is a limit to the values in an object, each counted as often as it occurs. For keys, which
# are hashed immediately, it is lower.
_MAX_WEIGHT: Final = 1_000_000
_WEIGHT_PER_BYTE: Final = 16
_MAX_HASHED: Final = 1_000
_BY_IDENTITY: Final = vars(object)["__hash__"]


class Role(enum.Enum):
    """The operations that a pickle may use on a class."""

    REFERENCE = "it may be a value itself, such as the type of a response"
    DATA = "instances are made without their constructor, and get their attributes"
    VALUE = "its constructor is harmless and may be called"
    APPLICATION = "the application allowed it, with all that pickle does with it"


class Known(NamedTuple):
    """A class that a pickle may name."""

    type: type
    role: Role


# None for a name that is not known.
Find = Callable[[str, str], Known | None]

_VALUES: Final = (
    *(date, datetime, time, timedelta, timezone, Decimal, complex, range, slice),
    *(deque, OrderedDict, defaultdict, Counter),
)
_REFERENCES: Final = (*(bool, bytearray, bytes, dict, float, frozenset, int, list, set, str, tuple, type),)
_PLAIN: Final[Mapping[tuple[str, str], Known]] = {
    (each.__module__, each.__name__): Known(each, role)
    for role, classes in (
        (Role.VALUE, _VALUES),
        (Role.DATA, (object, UUID)),
        (Role.REFERENCE, _REFERENCES),
    )
    for each in classes
}


class _Mark:
    """The start of a run of items on the stack."""


class _Attribute:
    """Stands for ``getattr``, which names members of enums."""


_MARK: Final = _Mark()
_ATTRIBUTE: Final = _Attribute()


def load(raw: bytes, find: Find) -> Any:
    """Return the object that a pickle describes.

    ``find`` returns the class for a module and a qualified name. Raise DecodeError if the pickle asks for another
    class, or for something that only a call could make.
    """
    machine = _Machine(find, max(_MAX_WEIGHT, _WEIGHT_PER_BYTE * len(raw)))
    try:
        for operation, argument, _ in pickletools.genops(raw):
            step = _STEPS.get(operation.name)
            if step is None:
                raise DecodeError(f"its pickle has the operation {operation.name}, which is never run")
            step(machine, argument)
        return machine.result()
    except DecodeError:
        raise
    except Exception as error:
        raise DecodeError(f"its pickle is damaged ({shown(f'{type(error).__name__}: {error}')})") from error


class _Machine:
    """The state of a pickle that is being read."""

    def __init__(self, find: Find, max_weight: int) -> None:
        self._find = find
        self._max_weight = max_weight
        # By identity: tuples of tuples, and how many values are in them.
        self._weighed: dict[int, tuple[Any, int]] = {}
        self._roles: dict[type, Role] = {}
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._shares = False
        # By identity: objects that this pickle made, which may get attributes.
        self._made: dict[int, Any] = {}

    def result(self) -> Any:
        (value,) = self._stack
        if isinstance(value, _Mark | _Attribute):
            raise ValueError("it has no value")
        if self._shares:
            self._check_weight(value)
        return value

    def _check_weight(self, root: Any) -> None:
        """Raise DecodeError if the object is too large with its shared parts counted each time."""
        weights: dict[int, int] = {}
        left: list[tuple[Any, list[Any] | None]] = [(root, None)]
        while left:
            value, parts = left.pop()
            if parts is not None:  # those of all parts are known, or 1 where the object contains itself
                weights[id(value)] = sum(weights.get(id(part), 1) for part in parts) + 1
                if weights[id(value)] > self._max_weight:
                    raise DecodeError("its pickle shares parts so that it would take too long to look at")
            elif id(value) not in weights and (parts := self._parts(value)):
                weights[id(value)] = 1
                left.append((value, parts))
                left.extend((part, None) for part in parts)

    def _parts(self, value: Any) -> list[Any]:
        parts: list[Any] = []
        if isinstance(value, dict):
            parts += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset | deque):
            parts += value
        if id(value) in self._made:
            parts += getattr(value, "__dict__", {}).values()
            slots = [name for cls in type(value).__mro__ for name in vars(cls).get("__slots__", ())]
            parts += [getattr(value, name, None) for name in slots if name != "__dict__"]
        return parts

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def since_mark(self) -> list[Any]:
        for at in range(len(self._stack) - 1, -1, -1):
            if self._stack[at] is _MARK:
                items = self._stack[at + 1 :]
                del self._stack[at:]
                return items
        raise ValueError("a mark is missing")

    def push_tuple(self, items: list[Any]) -> None:
        self.push(self._with_weight(tuple(items)))

    def _with_weight(self, value: tuple[Any, ...] | frozenset[Any]) -> Any:
        nested = [each for each in value if isinstance(each, tuple | frozenset)]
        if nested:
            weight = len(value) + sum(self._weighed.get(id(each), (each, len(each)))[1] for each in nested)
            if weight > self._max_weight:
                raise DecodeError("its pickle has a tuple that would take too long to look at")
            self._weighed[id(value)] = (value, weight)
        return value

    def pop(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise ValueError("a value is missing")
        items = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return items

    def memoize(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def recall(self, index: int) -> None:
        recalled = self._memo[index]
        if isinstance(recalled, list | dict | tuple | set | frozenset) or id(recalled) in self._made:
            self._shares = True
        self.push(recalled)

    # Names.

    def named(self, module: Any, name: Any) -> None:
        """Push the class of this name."""
        if not (isinstance(module, str) and isinstance(name, str)):
            raise ValueError("a name is not text")
        if (module, name) == ("builtins", "getattr"):
            self.push(_ATTRIBUTE)
            return
        known = self._find(module, name) or _PLAIN.get((module, name))
        if known is None:
            raise not_allowed((module, name))
        self._roles[known.type] = known.role
        self.push(known.type)

    # Objects.

    def new(self, cls: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        """Push an instance that is made without its constructor."""
        if self._role(cls) is Role.REFERENCE:
            raise DecodeError(f"its pickle makes '{_name(cls)}' from parts")
        if issubclass(cls, enum.Enum):
            self._check_hash(arguments)
        self._make(cls, lambda: cls.__new__(cls, *arguments, **named))

    def call(self, function: Any, arguments: tuple[Any, ...]) -> None:
        """Push what the constructor of a harmless class returns."""
        if function is _ATTRIBUTE:
            self.push(self._member(*arguments))
            return
        if function is type and arguments == (None,):
            self.push(types.NoneType)
            return
        role = self._role(function)
        if issubclass(function, enum.Enum):
            self._check_hash(arguments)
            if role is Role.DATA and len(arguments) == 1:
                self._make(function, lambda: function(*arguments))
                return
        if role not in (Role.VALUE, Role.APPLICATION):
            raise DecodeError(f"its pickle calls '{_name(function)}', which it may only name")
        if role is Role.VALUE and issubclass(function, dict):
            self._check_dict(function, *arguments)
        self._make(function, lambda: function(*arguments))

    def _check_dict(self, cls: type, contents: Any = None, *more: Any) -> None:
        # Python pickles a Counter with a dict, a defaultdict with its factory, and both without anything else.
        if more or not (contents is None or type(contents) is dict or isinstance(contents, type)):
            raise DecodeError(f"its pickle makes a '{_name(cls)}' as Python does not")

    def _make(self, cls: type, make: Callable[[], Any]) -> None:
        try:
            made = make()
        except Exception as error:
            raise rebuilding_failed(cls.__module__, cls.__qualname__, error) from error
        if not isinstance(made, enum.Enum):  # whose members belong to the whole process
            self._made[id(made)] = made
        self.push(made)

    def _role(self, cls: Any) -> Role:
        if not isinstance(cls, type) or cls not in self._roles:
            raise DecodeError("its pickle creates an object of something that is not a class")
        return self._roles[cls]

    def _member(self, cls: Any, name: Any) -> Any:
        self._role(cls)
        if not issubclass(cls, enum.Enum) or not isinstance(name, str):
            raise DecodeError(f"its pickle takes the attribute {shown(repr(name))} of '{_name(cls)}'")
        return cls.__members__[name]

    # Contents.

    def extend(self, items: list[Any]) -> None:
        """Add items to the list or deque on the stack."""
        target = self._stack[-1]
        if not isinstance(target, list | deque):
            raise ValueError("items are added to an object that is not a list")
        for item in items:
            target.append(item)

    def update(self, items: list[Any]) -> None:
        """Add keys and values to the dict on the stack."""
        target = self._stack[-1]
        if not isinstance(target, dict):
            raise ValueError("keys are added to an object that is not a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._check_hash(key)
            target[key] = value

    def add(self, items: list[Any]) -> None:
        """Add items to the set on the stack."""
        target = self._stack[-1]
        if not isinstance(target, set):
            raise ValueError("items are added to an object that is not a set")
        for item in items:
            self._check_hash(item)
            target.add(item)

    def freeze(self, items: list[Any]) -> None:
        """Push a frozenset."""
        for item in items:
            self._check_hash(item)
        self.push(self._with_weight(frozenset(items)))

    def _check_hash(self, key: Any) -> None:
        if type(key) is str:
            return
        left, looked = [key], 0
        while left:
            each = left.pop()
            looked += 1
            if looked > _MAX_HASHED:
                raise DecodeError("its pickle has a key that takes too long to hash")
            if isinstance(each, tuple | frozenset):
                left.extend(each)
            elif id(each) in self._made:
                role = self._roles.get(type(each))
                by_contents = type(each).__hash__ is not _BY_IDENTITY
                if role is Role.DATA and by_contents and type(each) is not UUID:
                    raise DecodeError(f"its pickle has a key of type '{_name(type(each))}'")
                if role is Role.APPLICATION:
                    left.extend(getattr(each, "__dict__", {}).values())

    def build(self, state: Any) -> None:
        """Give the object on the stack its attributes."""
        target = self._stack[-1]
        if id(target) not in self._made or isinstance(target, type):
            raise DecodeError("its pickle changes an object that it did not create")
        cls = type(target)
        restore = getattr(cls, "__setstate__", None)
        if restore is None or self._roles.get(cls) is not Role.APPLICATION:
            _check_state(cls, state)
        if cls is UUID and not all(isinstance(each, int) for each in state.values()):
            raise DecodeError("the state of its 'uuid:UUID' has more than numbers")
        try:
            if restore is not None:
                restore(target, state)
            else:
                _set_attributes(target, state)
        except DecodeError:
            raise
        except Exception as error:
            raise rebuilding_failed(cls.__module__, cls.__qualname__, error) from error


def _name(cls: Any) -> str:
    return shown(f"{cls.__module__}:{cls.__qualname__}") if isinstance(cls, type) else shown(repr(cls))


# Pydantic's parts of a model: its attributes, and what is known about them.
_PYDANTIC: Final = {"__dict__", "__pydantic_extra__", "__pydantic_fields_set__", "__pydantic_private__"}


def _check_state(cls: type, state: Any) -> None:
    """Raise DecodeError if ``state`` would change more of an instance than its data."""
    if isinstance(state, list) and dataclasses.is_dataclass(cls):
        return  # the values of a frozen dataclass with slots, in the order of its fields
    for each in state if isinstance(state, tuple) else (state,):
        if each is None:
            continue
        if not isinstance(each, dict):
            raise DecodeError(f"the state of its '{_name(cls)}' is not a dict")
        if each.keys() == _PYDANTIC and hasattr(cls, "__pydantic_validator__"):
            for attributes in ("__dict__", "__pydantic_extra__", "__pydantic_private__"):
                _check_state(cls, each[attributes])
            continue
        for key in each:
            if not isinstance(key, str) or key.startswith("__") or _is_code(cls, key):
                raise DecodeError(f"the state of its '{_name(cls)}' sets {shown(repr(key))}")


@functools.lru_cache(maxsize=10_000)
def _is_code(cls: type, name: str) -> bool:
    """Tell whether an attribute of this name would take the place of a method."""
    if name in getattr(cls, "__dataclass_fields__", ()):
        return False
    found = next((vars(each)[name] for each in cls.__mro__ if name in vars(each)), None)
    return isinstance(found, types.FunctionType | classmethod | staticmethod | property)


def _set_attributes(target: Any, state: Any) -> None:
    attributes, slots = state if isinstance(state, tuple) else (state, None)
    if attributes:
        target.__dict__.update(attributes)
    for name, value in (slots or {}).items():
        if not isinstance(getattr(type(target), name, None), types.MemberDescriptorType):
            raise DecodeError(f"the state of its '{_name(type(target))}' sets {shown(repr(name))}")
        object.__setattr__(target, name, value)


def _nothing(machine: _Machine, _: Any) -> None:
    """Leave all as it is."""


def _pop_tuple(count: int) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.push_tuple(machine.pop(count))


def _named_together(machine: _Machine, argument: str) -> None:
    module, _, name = argument.partition(" ")
    machine.named(module, name)


def _new(machine: _Machine, _: Any) -> None:
    cls, arguments = machine.pop(2)
    machine.new(cls, tuple(arguments), {})


def _new_named(machine: _Machine, _: Any) -> None:
    cls, arguments, named = machine.pop(3)
    machine.new(cls, tuple(arguments), dict(named))


def _call(machine: _Machine, _: Any) -> None:
    function, arguments = machine.pop(2)
    machine.call(function, tuple(arguments))


def _push_argument(machine: _Machine, argument: Any) -> None:
    machine.push(argument)


_Step = Callable[[_Machine, Any], None]
_STEPS: Final[Mapping[str, _Step]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), _nothing),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"), _push_argument),
    **dict.fromkeys(("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), _push_argument),
    **dict.fromkeys(("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"), _push_argument),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": lambda machine, _: machine.push(set()),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE1": _pop_tuple(1),
    "TUPLE2": _pop_tuple(2),
    "TUPLE3": _pop_tuple(3),
    "TUPLE": lambda machine, _: machine.push_tuple(machine.since_mark()),
    "MARK": lambda machine, _: machine.push(_MARK),
    "POP": lambda machine, _: _nothing(machine, machine.pop(1)),
    "POP_MARK": lambda machine, _: _nothing(machine, machine.since_mark()),
    "APPEND": lambda machine, _: machine.extend(machine.pop(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.update(machine.pop(2)),
    "SETITEMS": lambda machine, _: machine.update(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.add(machine.since_mark()),
    "FROZENSET": lambda machine, _: machine.freeze(machine.since_mark()),
    "MEMOIZE": lambda machine, _: machine.memoize(None),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda machine, index: machine.memoize(index)),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda machine, index: machine.recall(index)),
    "GLOBAL": _named_together,
    "STACK_GLOBAL": lambda machine, _: machine.named(*machine.pop(2)),
    "NEWOBJ": _new,
    "NEWOBJ_EX": _new_named,
    "REDUCE": _call,
    "BUILD": lambda machine, _: machine.build(*machine.pop(1)),
}
