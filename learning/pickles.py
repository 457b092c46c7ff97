r"""Reads pickles that hold nothing but what a policy admits, and calls nothing but what rebuilds such values.

A pickle is a program: it may name any function and have it called, set attributes of classes, ask for any amount of
memory. `loads` runs that program on a reader of its own, with three rules:

- a name is resolved only where the policy admits it, and from admitted modules only what they define themselves, under
  exactly that name: an `os` that one of them imports is not theirs;
- nothing is called but a short list of helpers with checked arguments, and of admitted classes `__new__`,
  `__setstate__`, and the constructor of those that are pickled through it. A function may be a value; it is never run;
- attributes are set on instances of admitted classes only, never on a class, a function or a module.

What is read can do what its classes do when they are used, and no more. That is why modules of River that read files,
and functions other than a few that its models hold, are not admitted.
"""

import collections
import copyreg
import datetime
import functools
import importlib
import io
import pickle
import random
import statistics
import struct
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NoReturn

import msgspec
import numpy as np
from river import proba

_PLAIN = frozenset(
    {
        ("builtins", name)
        for name in (
            "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object", "range",
            "set", "slice", "str", "tuple",
        )
    } | {
        ("collections", "deque"),
        ("collections", "OrderedDict"),
        ("collections", "defaultdict"),
        ("collections", "Counter"),
        ("random", "Random"),
        ("numpy", "dtype"),
        ("numpy._core.multiarray", "scalar"),
    }
)  # fmt: skip

_OF_MODELS = _PLAIN | {
    ("builtins", "iter"),
    ("copy", "deepcopy"),
    ("functools", "partial"),
    ("statistics", "NormalDist"),
    ("numpy", "ndarray"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.random._mt19937", "MT19937"),
    ("numpy.random._pcg64", "PCG64"),
    ("numpy.random._pickle", "__bit_generator_ctor"),
    ("numpy.random._pickle", "__generator_ctor"),
    ("numpy.random._pickle", "__randomstate_ctor"),
    ("numpy.random.bit_generator", "SeedSequence"),
    ("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence"),
    ("datetime", "date"),
    ("datetime", "datetime"),
    ("datetime", "timedelta"),
    ("datetime", "timezone"),
}

# Functions of River that its models hold as values. Each computes with its arguments and does nothing else.
_FUNCTIONS = frozenset(
    {
        ("river._river_rust.vectordict", "euclidean_distance_dict"),
        ("river._river_rust.vectordict", "euclidean_distance_tuple"),
        ("river.feature_extraction.vectorize", "strip_accents_unicode"),
        ("river.feature_extraction.vectorize", "tokenize_using_regex_pattern"),
        ("river.forest.online_extra_trees", "ExtraTrees._detection_mode_all"),
        ("river.metrics.mutual_info", "_average_arithmetic"),
        ("river.naive_bayes.gaussian", "GaussianNB._make_gaussian"),
        ("river.tree.splitter.ebst_splitter", "EBSTNode._update_estimator_univariate"),
        ("river.tree.splitter.nominal_splitter_reg", "NominalSplitterReg._update_estimator_univariate"),
        ("river.utils.math", "minkowski_distance"),
    }
)

# Not here: datasets, stream and compat, which read files and wrap other libraries' objects; checks, evaluate and misc,
# which hold no models.
_ROOMS_OF_MODELS = tuple(
    "river." + name
    for name in (
        "_river_rust", "active", "anomaly", "bandit", "base", "cluster", "compose", "conf", "covariance", "drift",
        "dummy", "ensemble", "facto", "feature_extraction", "feature_selection", "forest", "imblearn", "linear_model",
        "metrics", "model_selection", "multiclass", "multioutput", "naive_bayes", "neighbors", "optim",
        "preprocessing", "proba", "reco", "rules", "sketch", "stats", "time_series", "tree", "utils",
    )
)  # fmt: skip
_SHUT = ("river.bandit.datasets", "river.bandit.envs", "river.drift.datasets")  # rooms within those that read files


class Policy(msgspec.Struct, frozen=True):
    """What a pickle may name.

    Attributes:
        expected: what it may hold, for people.
        names: single names, each known to be harmless in the form that this reader calls it in.
        rooms: packages whose own classes are admitted.
        functions: functions of those packages that may be held as values.
        modules: modules of the user whose own classes and functions are admitted. Functions are held, never called
            here; a model calls those that it holds, as `compose.FuncTransformer` does.
    """

    expected: str
    names: frozenset[tuple[str, str]]
    rooms: tuple[str, ...]
    functions: frozenset[tuple[str, str]] = frozenset()
    modules: frozenset[str] = frozenset()

    def owns(self, module: object) -> bool:
        """Whether the classes of this module are admitted."""
        return isinstance(module, str) and (module in self.modules or self.has_room(module))

    def has_room(self, module: str) -> bool:
        """Whether the module is one of the admitted packages or inside one."""
        return _inside(module, self.rooms) and not _inside(module, _SHUT)


def _inside(module: str, rooms: Iterable[str]) -> bool:
    return any(module == room or module.startswith(room + ".") for room in rooms)


WATCH = Policy(
    "River's drift, stats or metrics only", _PLAIN, ("river.drift", "river.stats", "river.metrics", "river._river_rust")
)


def models(modules: Iterable[str] = ()) -> Policy:
    """The policy for models: River's estimators, what they are made of, and the classes of these modules."""
    own = frozenset(name for name in modules if not _inside(name, ("river",)))
    return Policy("River's models and the pipeline's own module only", _OF_MODELS, _ROOMS_OF_MODELS, _FUNCTIONS, own)


class RefusedError(pickle.UnpicklingError):
    """The pickle asks for something that no pickle of what is expected asks for."""


def dumps(value: object) -> bytes:
    """A pickle for `loads`, much smaller than a plain one: see `_packed` and `_unsampled`."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, 5)
    pickler.dispatch_table = {**copyreg.dispatch_table, random.Random: _packed, proba.Gaussian: _unsampled}
    pickler.dump(value)
    return buffer.getvalue()


def loads(data: bytes, *, allow: Policy = WATCH) -> Any:
    r"""The object. Raises `pickle.UnpicklingError` for what is no pickle, `RefusedError` for what it may not hold.

    >>> loads(pickle.dumps({"a": [1, 2.0]}))
    {'a': [1, 2.0]}
    >>> loads(b"cos\nsystem\n(S'echo'\ntR.")
    Traceback (most recent call last):
    learning.pickles.RefusedError: got a pickle that names os.system, expected River's drift, stats or metrics only
    """
    try:
        return _Reader(io.BytesIO(data), allow).load()
    except (pickle.UnpicklingError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as exc:  # a panic of River's Rust half is no Exception
        message = f"got {len(data)} bytes that are no readable pickle: {exc}"
        raise pickle.UnpicklingError(message) from exc


_LARGEST_NUMBER = 10_000_000  # Rust makes room for as many as it is told, or ends the process
_LARGEST_KEY = 1_000
# What the picklers of protocols 2 to 5 write, and the names of protocol 0; no registry codes, persistent ids,
# out-of-band buffers, nor the ways of protocol 1 to call a class.
_REFUSED = {
    name: getattr(pickle, name)[0]
    for name in (
        "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER", "INST", "OBJ", "NEWOBJ_EX",
        "DICT",
    )
}  # fmt: skip


class _Reader(pickle._Unpickler):  # written in Python, so each step can be checked
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    readline: Callable[[], bytes]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: io.BytesIO, policy: Policy) -> None:
        super().__init__(file)
        self._size = file.getbuffer().nbytes
        self._policy = policy
        self._kinds: dict[type, bool] = {}
        self._found: dict[tuple[str, str], Any] = {}
        self._calls: dict[Any, Callable[..., Any]] = {**_CALLS, _method: self._method}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._found:
            self._found[module, name] = self._resolved(module, name)
        return self._found[module, name]

    def _resolved(self, module: str, name: str) -> Any:
        if (module, name) in _STANDINS and self._policy.names >= _STANDINS[module, name][0]:
            return _STANDINS[module, name][1]
        if (module, name) in self._policy.names:
            return getattr(importlib.import_module(module), name)
        if self._policy.has_room(module):
            found = _attribute(_imported(module), name)
            if found is not None and ((module, name) in self._policy.functions or self._is_class(found)):
                return found
        elif module in self._policy.modules:  # imported already, as the pipeline is
            found = _attribute(sys.modules.get(module), name)
            if self._is_class(found) or _is_function(found, module, name):
                return found
        return self._refuse(f"names {module}.{name}")

    def _is_class(self, found: object) -> bool:
        return isinstance(found, type) and self._policy.owns(found.__module__)

    def _refuse(self, what: str) -> NoReturn:
        message = f"got a pickle that {what[:300]}, expected {self._policy.expected}"
        raise RefusedError(message)

    def _step_refused(self) -> None:
        self._refuse("takes a step that no pickle of a model has")

    def _made(self, kind: Any) -> bool:
        """Whether it is a class whose instances a pickle may make. Asked for every object of a model, so kept."""
        if not isinstance(kind, type):
            return False
        known = self._kinds.get(kind)
        if known is None:
            known = self._kinds[kind] = self._policy.owns(kind.__module__) or kind in _PLAIN_NEW
        return known

    def _new(self) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        if not self._made(kind) or type(arguments) is not tuple:
            self._refuse(f"makes a {_shown(kind)}")
        in_rust = arguments and kind.__module__.startswith("river._river_rust")
        if in_rust and any(type(value) is int and abs(value) > _LARGEST_NUMBER for value in arguments):
            self._refuse(f"makes a {_shown(kind)} of {arguments}")
        self.append(kind.__new__(kind, *arguments))

    dispatch[pickle.NEWOBJ[0]] = _new

    def _reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(arguments) is not tuple:
            self._refuse("calls something without arguments")
        if isinstance(function, type | types.FunctionType) and function in self._calls:
            self.append(self._calls[function](*arguments))
        elif self._made(function) and function.__reduce__ is not object.__reduce__ and function not in _PLAIN_NEW:
            self.append(function(*arguments))  # a class that says itself that it is pickled through its constructor
        else:
            self._refuse(f"calls {_shown(function)}")

    dispatch[pickle.REDUCE[0]] = _reduce

    def _build(self) -> None:
        state = self.stack.pop()
        owner = self.stack[-1]
        kind = type(owner)
        check = _STATES.get(kind) or next((c for base, c in _BASES.items() if isinstance(owner, base)), None)
        if check is not None:
            if not check(owner, state):
                self._refuse(f"gives a {kind.__name__} a state that it cannot have")
            kind.__setstate__(owner, state)
        elif not self._made(kind):
            self._refuse(f"sets attributes of {_shown(owner)}")
        elif (restore := getattr(kind, "__setstate__", None)) is not None:  # the class's, whatever the instance has
            restore(owner, state)
        else:
            self._set(owner, *(state if isinstance(state, tuple) and len(state) == 2 else (state, None)))

    dispatch[pickle.BUILD[0]] = _build

    def _set(self, owner: Any, attributes: Any, slots: Any) -> None:
        if not isinstance(attributes, dict | None) or not isinstance(slots, dict | None):
            self._refuse(f"sets attributes of a {type(owner).__name__} from no dict")
        if attributes:
            if not all(type(name) is str for name in attributes):
                self._refuse(f"sets attributes of a {type(owner).__name__} that have no names")
            # Names are shared with those in the code, which makes them quick to find.
            owner.__dict__.update({sys.intern(name): value for name, value in attributes.items()})
        for name, value in (slots or {}).items():
            if not isinstance(getattr(type(owner), name, None), types.MemberDescriptorType):
                self._refuse(f"sets {name!r} of a {type(owner).__name__}, which has no such slot")
            setattr(owner, name, value)

    def _append_one(self) -> None:
        value = self.stack.pop()
        self._extend([value])

    dispatch[pickle.APPEND[0]] = _append_one

    def _append_many(self) -> None:
        self._extend(self.pop_mark())

    dispatch[pickle.APPENDS[0]] = _append_many

    def _extend(self, values: list[Any]) -> None:
        owner = self.stack[-1]
        if isinstance(owner, list):
            list.extend(owner, values)
        elif isinstance(owner, collections.deque):
            collections.deque.extend(owner, values)
        else:
            self._refuse(f"appends to {_shown(owner)}")

    def _set_one(self) -> None:
        value = self.stack.pop()
        self._put([self.stack.pop(), value])

    dispatch[pickle.SETITEM[0]] = _set_one

    def _set_many(self) -> None:
        self._put(self.pop_mark())

    dispatch[pickle.SETITEMS[0]] = _set_many

    def _put(self, items: list[Any]) -> None:
        owner = self.stack[-1]
        if not isinstance(owner, dict):
            self._refuse(f"sets items of {_shown(owner)}")
        put = collections.OrderedDict.__setitem__ if isinstance(owner, collections.OrderedDict) else dict.__setitem__
        for i in range(0, len(items), 2):
            self._check_key(items[i])
            put(owner, items[i], items[i + 1])

    def _add_many(self) -> None:
        values = self.pop_mark()
        if not isinstance(self.stack[-1], set):
            self._refuse(f"adds to {_shown(self.stack[-1])}")
        for value in values:
            self._check_key(value)
        set.update(self.stack[-1], values)

    dispatch[pickle.ADDITEMS[0]] = _add_many

    def _frozen_set(self) -> None:
        values = self.pop_mark()
        for value in values:
            self._check_key(value)
        self.append(frozenset(values))

    dispatch[pickle.FROZENSET[0]] = _frozen_set

    def _check_key(self, key: Any) -> None:
        """Refuse keys of tuples within tuples: a hundred bytes of them can take forever to hash."""
        nested, size = [key] if type(key) is tuple else [], 0
        while nested:
            values = nested.pop()
            size += len(values)
            nested.extend(value for value in values if type(value) is tuple)
            if size > _LARGEST_KEY:
                self._refuse("has keys nested without end")

    def _byte_array(self) -> None:
        size = int.from_bytes(self.read(8), "little")
        if size > self._size:
            self._refuse(f"asks for {size} bytes and has {self._size}")
        self.append(bytearray(self.read(size)))

    dispatch[pickle.BYTEARRAY8[0]] = _byte_array

    def _global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            self._refuse("names something by no text")
        self.append(self.find_class(module, name))

    dispatch[pickle.STACK_GLOBAL[0]] = _global

    def _global_of_old(self) -> None:
        module, name = (self.readline()[:-1].decode() for _ in range(2))
        self.append(self.find_class(module, name))

    dispatch[pickle.GLOBAL[0]] = _global_of_old
    dispatch.update(dict.fromkeys(_REFUSED.values(), _step_refused))

    def _method(self, owner: object, name: str) -> Any:
        """`getattr` for methods of objects this reader may make, and of nothing else."""
        kind = type(owner)
        known = isinstance(owner, random.Random) or self._policy.owns(kind.__module__)
        plain = getattr(kind, name, None) if known and type(name) is str and not name.startswith("__") else None
        if isinstance(owner, type) or not isinstance(plain, types.FunctionType | types.MethodDescriptorType):
            self._refuse(f"takes {name!r} of a {kind.__name__}")
        found = plain.__get__(owner, kind)
        if getattr(found, "__self__", None) is not owner:
            self._refuse(f"takes {name!r} of a {kind.__name__}")
        return found


def _imported(module: str) -> types.ModuleType | None:
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def _attribute(module: Any, name: str) -> Any:
    """What a module has under a name; after a dot, only what a class itself defines."""
    first, *rest = name.split(".")
    found = vars(module).get(first) if isinstance(module, types.ModuleType) else None
    for part in rest:
        found = vars(found).get(part) if isinstance(found, type) else None
    return found.__func__ if isinstance(found, staticmethod) else found


def _is_function(found: object, module: str, name: str) -> bool:
    return isinstance(found, types.FunctionType) and (found.__module__, found.__qualname__) == (module, name)


def _shown(value: object) -> str:
    named = isinstance(value, type | types.FunctionType | types.BuiltinFunctionType)
    return f"{value.__module__}.{value.__qualname__}" if named else f"a {type(value).__name__}"  # type: ignore[attr-defined]


def _unsampled(gaussian: Any) -> tuple[Any, ...]:
    """Without the generator that a Gaussian without seed has for `sample`, which may give any numbers.

    A forest has one such distribution for each class and feature of each leaf, and their generators, which are never
    used, are nineteen parts in twenty of its size. They get one for all of them.
    """
    call, arguments, state, *_ = gaussian.__reduce_ex__(5)
    return call, arguments, {**state, "_rng": _UNSEEDED} if state.get("seed") is None else state


class _Unseeded:
    def __reduce__(self) -> Any:
        return _unseeded, ()


_UNSEEDED = _Unseeded()


def _unseeded() -> random.Random:
    return random.Random()


def _packed(chance: random.Random) -> tuple[Any, ...]:
    """A generator's state as bytes: half the size, and one step to read instead of 625."""
    version, words, gauss = chance.getstate()
    return _unpacked, (version, struct.pack(f"<{len(words)}I", *words), gauss)


def _unpacked(version: int, words: bytes, gauss: float | None) -> random.Random:
    chance = random.Random.__new__(random.Random)
    chance.setstate((version, struct.unpack(f"<{len(words) // 4}I", words), gauss))
    return chance


def _method(owner: object, name: str) -> NoReturn:
    """Stands for `getattr` in a pickle; the reader calls its own. Kept as a value, it is of no use."""
    message = "not to be called outside of a pickle"
    raise RefusedError(message)


def _bytearray(data: bytes, *_: str) -> bytearray:
    return bytearray(data if isinstance(data, bytes) else _bad("a bytearray", data))


def _number(*values: float) -> complex:
    return complex(*values) if all(type(value) is float for value in values) else _bad("a complex", values)


def _range(*values: int) -> range:
    return range(*values) if all(type(value) is int for value in values) else _bad("a range", values)


def _iter(values: list[Any] | tuple[Any, ...]) -> Any:
    return iter(values) if type(values) in (list, tuple) else _bad("an iterator", values)


def _deque(values: Any = (), maxlen: int | None = None) -> Any:
    return collections.deque(maxlen=maxlen) if values == () else _bad("a deque", values)


def _counter(counts: dict[Any, Any] | None = None) -> Any:
    return collections.Counter(counts) if isinstance(counts, dict | None) else _bad("a Counter", counts)


def _default(factory: Any = None) -> Any:
    return collections.defaultdict(factory)


def _ordered() -> Any:
    return collections.OrderedDict()


def _chance() -> random.Random:
    return random.Random.__new__(random.Random)


def _partial(function: Any) -> Any:
    return functools.partial(function)


def _bad(kind: str, value: object) -> NoReturn:
    message = f"got a pickle that makes {kind} of a {type(value).__name__}, expected what pickling one writes"
    raise RefusedError(message)


_CODES = frozenset(
    ["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]
)  # no objects: numbers only


def _dtype(code: str, align: object = False, copy: object = True) -> np.dtype[Any]:
    text = type(code) is str and code[:1] in ("U", "S") and code[1:].isdecimal() and len(code) < 6
    return np.dtype(code, copy=True) if text or code in _CODES else _bad("a dtype", code)


def _array(data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], order: Any = "C", *_: object) -> Any:
    if not isinstance(data, bytes | bytearray) or not isinstance(dtype, np.dtype) or dtype.hasobject:
        _bad("an array", data)
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        _bad("an array", shape)
    return np.frombuffer(data, dtype).reshape(shape, order=order)


def _scalar(dtype: np.dtype[Any], data: bytes) -> Any:
    return _array(data, dtype, ())[()]


def _reconstruct(kind: Any, shape: Any, code: Any) -> Any:
    return np.ndarray((0,), "b") if kind is np.ndarray and shape == (0,) else _bad("an array", shape)


def _bits(kind: Any) -> Any:
    return kind(0) if kind in (np.random.MT19937, np.random.PCG64) else _bad("a bit generator", kind)


def _generator(bits: Any, *_: object) -> np.random.Generator:
    return np.random.Generator(bits)


def _random_state(bits: Any, *_: object) -> np.random.RandomState:
    return np.random.RandomState(bits)


def _seeds(kind: Any, checksum: int, state: None) -> Any:
    ours = kind is np.random.SeedSequence and state is None
    return np.random.SeedSequence(0) if ours else _bad("a seed sequence", kind)


# What stands in a pickle under these names is read as ours. Each with the names that must be admitted for it.
_STANDINS: dict[tuple[str, str], tuple[frozenset[tuple[str, str]], Any]] = {
    ("builtins", "getattr"): (frozenset(), _method),  # a bound method of what a model holds is pickled as a getattr
    (__name__, "_unpacked"): (frozenset(), _unpacked),
    (__name__, "_unseeded"): (frozenset(), _unseeded),
    **{
        pair: (frozenset({pair}), ours)
        for pair, ours in {
            ("builtins", "iter"): _iter,
            ("numpy._core.multiarray", "scalar"): _scalar,
            ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
            ("numpy._core.numeric", "_frombuffer"): _array,
            ("numpy.random._pickle", "__bit_generator_ctor"): _bits,
            ("numpy.random._pickle", "__generator_ctor"): _generator,
            ("numpy.random._pickle", "__randomstate_ctor"): _random_state,
            ("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence"): _seeds,
        }.items()
    },
}
_OURS = (
    _unpacked, _unseeded, _iter, _scalar, _reconstruct, _array, _bits, _generator, _random_state, _seeds,
)  # fmt: skip

# What may be called, and what is called for it.
_CALLS: dict[Any, Callable[..., Any]] = {
    **{function: function for function in _OURS},
    bytearray: _bytearray,
    complex: _number,
    range: _range,
    slice: slice,
    collections.deque: _deque,
    collections.Counter: _counter,
    collections.defaultdict: _default,
    collections.OrderedDict: _ordered,
    random.Random: _chance,
    functools.partial: _partial,
    np.dtype: _dtype,
    datetime.date: datetime.date,
    datetime.datetime: datetime.datetime,
    datetime.timedelta: datetime.timedelta,
    datetime.timezone: datetime.timezone,
}
_PLAIN_NEW = frozenset({object, statistics.NormalDist})


def _dtype_state(owner: Any, state: Any) -> bool:
    """Numbers and texts have a byte order and no more; sizes and flags of ours would let numpy read anywhere."""
    version_and_rest = state[:1] + state[2:] if type(state) is tuple and len(state) == 8 else ()
    size = (owner.itemsize, owner.alignment) if owner.kind in "US" else (-1, -1)
    return version_and_rest == (3, None, None, None, *size, 0 if owner.kind != "U" else 8) and state[1] in tuple("<>|=")


def _array_state(owner: Any, state: Any) -> bool:
    if type(state) is not tuple or len(state) != 5 or owner.shape != (0,):
        return False
    _, shape, dtype, _, data = state
    return type(data) is bytes and _array(data, dtype, shape).nbytes == len(data)


def _bits_state(owner: Any, state: Any) -> bool:
    return _has_position(state[0] if type(state) is tuple and len(state) == 2 else state)


def _has_position(state: Any) -> bool:
    """Whether a generator would stay inside its own state, which numpy does not check."""
    inner = state.get("state") if type(state) is dict else None
    if type(inner) is not dict:
        return False
    if "pos" not in inner:
        return set(inner) == {"state", "inc"}
    key = inner.get("key")
    fits = isinstance(key, np.ndarray) and key.dtype == np.uint32 and key.shape == (624,)
    return fits and type(inner["pos"]) is int and 0 <= inner["pos"] <= 624


def _seeds_state(owner: Any, state: Any) -> bool:
    """Everything in it follows from four numbers."""
    if type(state) is not tuple or len(state) != 5 or type(state[3]) is not int or not 4 <= state[3] <= 64:
        return False
    return isinstance(state[2], np.ndarray) and state[2].dtype == np.uint32 and state[2].shape == (state[3],)


# Which states may be set of what is no class of River's or the user's.
_STATES: dict[type, Callable[[Any, Any], bool]] = {
    functools.partial: lambda _, state: type(state) is tuple and len(state) == 4 and callable(state[0]),
    random.Random: lambda _, state: type(state) is tuple and len(state) == 3,
    type(iter([])): lambda _, state: type(state) is int,
    type(iter(())): lambda _, state: type(state) is int,
    np.ndarray: _array_state,
    np.random.RandomState: lambda _, state: _has_position(state),
    np.random.SeedSequence: _seeds_state,
}
_BASES: dict[type, Callable[[Any, Any], bool]] = {
    np.dtype: _dtype_state,
    np.random.BitGenerator: _bits_state,
}
