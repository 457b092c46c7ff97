"""Pickles that do harm: each does so when it is read plainly, and nothing at all when it is read by Headwater."""

import codecs
import collections
import copy
import copyreg
import ctypes
import functools
import hashlib
import importlib
import io
import itertools
import logging
import marshal
import operator
import os
import pathlib
import pickle
import pty
import runpy
import shutil
import sqlite3
import struct
import subprocess
import timeit
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.testing
import pytest
from river import compose, drift, linear_model, optim, stream, utils

from learning import pickles, snapshots
from learning.learn import Learner
from learning.watch import Watch
from tests.doubles import Ping, TinyStream, monitor, tiny_pipeline

Attack = Callable[[str], Any]


class Mine(Ping, frozen=True, kw_only=True):
    """An event, so that this is a pipeline's own module."""


class Owned:
    """A class of the pipeline's own module."""


class Leaves(Owned):
    """One whose constructor had better not be called by a pickle."""

    def __init__(self, path: str) -> None:
        leave(path)


def leave(path: Any, *_: Any) -> Any:
    """A function of the pipeline's own module that had better not be called by a pickle."""
    Path(path[0] if isinstance(path, list) else path).touch()
    return path


class Call:
    """Pickles as a call; what is called, and with what, may be made by calls too."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function = function
        self.args = args

    def __reduce__(self) -> Any:
        return self.function, self.args

    def __call__(self) -> None:
        """A pickler asks whether what is called can be."""


def after(*things: Any) -> Any:
    """A pickle may do one thing and then another."""
    return list(things)


def touch(path: str) -> str:
    return f"touch '{path}'"


def code(path: str) -> str:
    return f"__import__('pathlib').Path({path!r}).touch()"


def attribute(owner: Any, *names: str) -> Any:
    for name in names:
        owner = Call(getattr, owner, name)
    return owner


def as_array(path: str) -> bytes:
    """A file of numpy that holds a pickle."""
    file = io.BytesIO()
    np.save(file, np.array([Call(os.system, touch(path))], dtype=object), allow_pickle=True)
    return file.getvalue()


CACHE: Any = stream.Cache  # its constructor carries no types
GLOBALS = attribute(drift.ADWIN, "__init__", "__globals__")
BUILTINS = Call(operator.getitem, GLOBALS, "__builtins__")

# Each makes a file where it is told.
CALLS: dict[str, Attack] = {
    "os.system": lambda p: Call(os.system, touch(p)),
    "os.mkdir": lambda p: Call(os.mkdir, p),
    "os.open": lambda p: Call(os.open, p, os.O_CREAT),
    "os.popen": lambda p: Call(attribute(Call(os.popen, touch(p)), "read")),
    "os.spawn": lambda p: Call(os.spawnlp, os.P_WAIT, "touch", "touch", p),
    "subprocess.call": lambda p: Call(subprocess.call, ["touch", p]),
    "subprocess.check_output": lambda p: Call(subprocess.check_output, ["touch", p]),
    "subprocess.run": lambda p: Call(subprocess.run, ["touch", p]),
    "subprocess.getoutput": lambda p: Call(subprocess.getoutput, touch(p)),
    "pty.spawn": lambda p: Call(pty.spawn, ["touch", p]),
    "eval": lambda p: Call(eval, code(p)),
    "exec": lambda p: Call(exec, code(p)),
    "compile": lambda p: Call(exec, Call(compile, code(p), "", "exec")),
    "open": lambda p: attribute(Call(open, p, "w"), "closed"),
    "io.FileIO": lambda p: Call(attribute(Call(io.FileIO, p, "w"), "close")),
    "codecs.open": lambda p: Call(attribute(Call(codecs.open, p, "w"), "close")),
    "Path.touch": lambda p: Call(pathlib.Path.touch, pathlib.Path(p)),
    "Path.write_text": lambda p: Call(pathlib.Path.write_text, pathlib.Path(p), ""),
    "shutil.copyfile": lambda p: Call(shutil.copyfile, __file__, p),
    "sqlite3": lambda p: Call(attribute(Call(sqlite3.connect, p), "close")),
    "logging.FileHandler": lambda p: Call(attribute(Call(logging.FileHandler, p), "close")),
    "timeit": lambda p: Call(timeit.timeit, code(p), "", timeit.default_timer, 1),
    "runpy": lambda p: Call(runpy._run_code, code(p), {}),  # type: ignore[attr-defined]
    "ctypes": lambda p: Call(attribute(Call(ctypes.CDLL, None), "system"), touch(p).encode()),
    "__import__": lambda p: Call(attribute(Call(__import__, "os"), "system"), touch(p)),
    "import_module": lambda p: Call(attribute(Call(importlib.import_module, "os"), "system"), touch(p)),
    "marshal": lambda p: Call(
        Call(attribute(leave, "__class__"), Call(marshal.loads, marshal.dumps(compile(code(p), "", "exec"))), {})
    ),
    "a pickle in a pickle": lambda p: Call(pickle.loads, pickle.dumps(Call(os.system, touch(p)))),
    "partial": lambda p: Call(functools.partial(os.system, touch(p))),
    "partial of eval": lambda p: Call(functools.partial(eval), code(p)),
    "reduce": lambda p: Call(functools.reduce, leave, [p, 0]),
    "methodcaller": lambda p: Call(operator.methodcaller("system", touch(p)), Call(__import__, "os")),
    "attrgetter": lambda p: Call(Call(operator.attrgetter("system"), Call(__import__, "os")), touch(p)),
    "itemgetter": lambda p: Call(Call(operator.itemgetter("eval"), BUILTINS), code(p)),
    "operator.call": lambda p: Call(operator.call, os.system, touch(p)),
    "map": lambda p: Call(list, Call(map, os.system, [touch(p)])),
    "filter": lambda p: Call(tuple, Call(filter, leave, [p])),
    "starmap": lambda p: Call(collections.deque, Call(itertools.starmap, os.system, [(touch(p),)])),
    "globals of a class of River": lambda p: Call(Call(operator.getitem, BUILTINS, "eval"), code(p)),
    "globals by their own method": lambda p: Call(Call(attribute(BUILTINS, "get"), "exec"), code(p)),
    "the module behind a builtin": lambda p: Call(attribute(len, "__self__", "exec"), code(p)),
    "subclasses of object": lambda p: after(
        Call(attribute(object, "__subclasses__")), Call(attribute(Call(__import__, "os"), "mkdir"), p)
    ),
    "numpy.save": lambda p: Call(np.save, pathlib.Path(p + ".npy"), 1),
    "numpy.savetxt": lambda p: Call(np.savetxt, p, [1]),
    "numpy.memmap": lambda p: Call(np.memmap, p, "u1", "w+", 0, (1,)),
    "numpy.load": lambda p: Call(np.load, Call(io.BytesIO, as_array(p)), None, True),
    "numpy.testing": lambda p: Call(numpy.testing.runstring, code(p), {}),
    "numpy.fromfunction": lambda p: Call(np.apply_along_axis, functools.partial(leave, p), 0, [0]),
    "numpy.frompyfunc": lambda p: Call(Call(np.frompyfunc, leave, 1, 1), p),
    "numpy.vectorize": lambda p: Call(attribute(Call(np.vectorize, leave), "__call__"), p),
    "function of the own module": lambda p: Call(leave, p),
    "constructor of the own module": lambda p: Call(Leaves, p),
    "partial of the own module": lambda p: Call(functools.partial(leave, p)),
    "iterator": lambda p: Call(next, Call(iter, functools.partial(leave, p), 0)),
    "default factory": lambda p: Call(
        attribute(Call(collections.defaultdict, functools.partial(leave, p)), "__missing__"), 0
    ),
    "deepcopy": lambda p: Call(copy.deepcopy, Call(Copied, p)),
    "FuncTransformer": lambda p: Call(attribute(compose.FuncTransformer(leave), "transform_one"), p),
    "FuncTransformer of os.system": lambda p: Call(
        attribute(Call(compose.FuncTransformer, os.system), "transform_one"), touch(p)
    ),
    "Rolling": lambda p: Call(functools.partial(utils.Rolling, Leaves, window_size=1, path=p)),
    "stream.Cache": lambda p: Call(list, Call(CACHE(str(Path(p).parent)), [1], Path(p).name)),
}


class Copied(Owned):
    """One that says itself how it is copied."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __deepcopy__(self, memo: object) -> Any:
        return leave(self.path)

    def __reduce__(self) -> Any:
        return Copied, (self.path,)


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def name(module: str, attribute: str) -> bytes:
    return text(module) + text(attribute) + b"\x93"


def program(*steps: bytes) -> bytes:
    return b"\x80\x05" + b"".join(steps) + b"."


OWNED = name(__name__, "Owned") + b")\x81"
LEAVE = name(__name__, "leave")


def hooked(hook: str) -> bytes:
    """An instance of the pipeline's own class, with a function as an attribute that unpickling looks up."""
    return OWNED + b"}" + text(hook) + LEAVE + b"sb"


PROGRAMS: dict[str, Callable[[str], bytes]] = {
    "protocol 0": lambda p: b"cos\nsystem\n(S" + repr(touch(p)).encode() + b"\ntR.",
    "INST": lambda p: b"(S" + repr(touch(p)).encode() + b"\nios\nsystem\n.",
    "OBJ": lambda p: program(b"(" + name(__name__, "Leaves") + text(p) + b"o"),
    "NEWOBJ_EX": lambda p: program(name("io", "FileIO") + b")}\x92" + b"0" + name("os", "mkdir") + text(p) + b"\x85R"),
    "dots through a module of River": lambda p: program(
        name("river.drift.kswin", "random._os.system") + text(touch(p)) + b"\x85R"
    ),
    "dots through numpy": lambda p: program(
        name("numpy.testing._private.utils", "os.system") + text(touch(p)) + b"\x85R"
    ),
    "dots through a class": lambda p: program(
        name("river.drift.adwin", "ADWIN.__init__.__globals__.__class__") + b")R0" + name("os", "mkdir") + text(p)
        + b"\x85R"
    ),
    "registry code": lambda p: program(b"\x82\xf0" + text(touch(p)) + b"\x85R"),
    "registry code of two bytes": lambda p: program(b"\x83\xf0\x00" + text(touch(p)) + b"\x85R"),
    "registry code of four bytes": lambda p: program(b"\x84\xf0\x00\x00\x00" + text(touch(p)) + b"\x85R"),
    "__setstate__ of an instance": lambda p: program(hooked("__setstate__") + text(p) + b"b"),
    "append of an instance": lambda p: program(hooked("append") + text(p) + b"a"),
    "extend of an instance": lambda p: program(hooked("extend") + b"(" + text(p) + b"e"),
    "add of an instance": lambda p: program(hooked("add") + b"(" + text(p) + b"\x90"),
    "a name in the memo": lambda p: program(
        text("os") + b"\x94" + text("system") + b"\x94" + b"0h\x00h\x01\x93" + text(touch(p)) + b"\x85R"
    ),
    "harm after the value": lambda p: program(b"]\x94" + name("os", "system") + text(touch(p)) + b"\x85R0"),
}  # fmt: skip


def pickled(make: Attack, protocol: int) -> Callable[[str], bytes]:
    return lambda path: pickle.dumps(make(path), protocol)


ATTACKS: dict[str, Callable[[str], bytes]] = {
    f"{key}, protocol {protocol}": pickled(make, protocol) for key, make in CALLS.items() for protocol in (4, 5)
} | PROGRAMS


def owner() -> Any:
    return tiny_pipeline(events=TinyStream(Mine, "mine"), drift=[monitor("loss", drift.ADWIN)])


def by_models(data: bytes) -> None:
    pickles.loads(data, allow=pickles.models([__name__]))


def by_watch(data: bytes) -> None:
    Watch.load(owner(), data)


def by_snapshot(data: bytes) -> None:
    """Unsigned, and with a manifest that is right in everything."""
    pipeline = owner()
    manifest, _ = snapshots.dump(Learner(pipeline), pipeline, created_ms=0)
    payload = zlib.compress(data)
    told = msgspec.structs.replace(
        snapshots.read_manifest(manifest), bytes=len(data), sha256=hashlib.sha256(payload).hexdigest(), n_chunks=1
    )
    try:
        snapshots.load(msgspec.json.encode(told), [payload], pipeline)
    except snapshots.SnapshotError as exc:
        raise pickle.UnpicklingError(exc.kind) from exc


READERS = {"models": by_models, "watch": by_watch, "snapshot": by_snapshot}


@pytest.fixture
def registry() -> Iterator[None]:
    copyreg.add_extension("os", "system", 0xF0)
    copyreg.add_extension("posix", "system", 0xF1)
    yield
    copyreg.remove_extension("os", "system", 0xF0)
    copyreg.remove_extension("posix", "system", 0xF1)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_attack_harms_a_plain_reader(attack: str, tmp_path: Path, registry: None) -> None:
    data = ATTACKS[attack](str(tmp_path / "mark"))
    with suppress(Exception):  # harm done, many go on to nonsense
        pickle.loads(data)
    assert list(tmp_path.iterdir()) != []


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_attack_is_refused_and_nothing_happens(attack: str, reader: str, tmp_path: Path, registry: None) -> None:
    data = ATTACKS[attack](str(tmp_path / "mark"))
    assert b"mark" in data
    with pytest.raises(pickle.UnpicklingError):
        READERS[reader](data)
    assert list(tmp_path.iterdir()) == []


def built(target: bytes, attributes: dict[str, bytes], *, slots: bool) -> bytes:
    items = b"}" + b"".join(text(key) + value + b"s" for key, value in attributes.items())
    return program(target, (b"N" + items + b"\x86" if slots else items) + b"b")


# Where each sets an attribute that stays behind, for all models of the process.
POISONS: dict[str, tuple[Any, str, bytes]] = {
    "a method of a class": (
        drift.ADWIN,
        "update",
        built(name("river.drift.adwin", "ADWIN"), {"update": name("collections", "OrderedDict")}, slots=True),
    ),
    "a base of an estimator": (
        linear_model.LogisticRegression,
        "predict_proba_one",
        built(name("river.linear_model.log_reg", "LogisticRegression"), {"predict_proba_one": LEAVE}, slots=True),
    ),
    "a class of the own module": (Owned, "poison", built(name(__name__, "Owned"), {"poison": LEAVE}, slots=True)),
    "a function of the own module": (leave, "poison", built(LEAVE, {"poison": b"N"}, slots=False)),
    "the code of a function": (
        leave,
        "__defaults__",
        built(LEAVE, {"__defaults__": text("x") + b"\x85"}, slots=True),
    ),
    "a function of River": (
        utils.math.minkowski_distance,
        "poison",
        built(name("river.utils.math", "minkowski_distance"), {"poison": b"N"}, slots=False),
    ),
    "a function of the reader": (
        pickles._unpacked,
        "__defaults__",
        built(name("learning.pickles", "_unpacked"), {"__defaults__": text("x") + b"\x85"}, slots=True),
    ),
}  # fmt: skip
NOTHING = object()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("poison", POISONS)
def test_attribute_of_what_is_no_instance_is_not_set(poison: str, reader: str) -> None:
    target, attribute, data = POISONS[poison]
    own = attribute in vars(target)
    before = getattr(target, attribute, NOTHING)
    with pytest.raises(pickle.UnpicklingError):
        READERS[reader](data)
    assert getattr(target, attribute, NOTHING) is before
    pickle.loads(data)  # a plain reader does it
    try:
        assert getattr(target, attribute, NOTHING) is not before
    finally:
        if own or attribute.startswith("__"):
            setattr(target, attribute, before)
        else:
            delattr(target, attribute)


def tuples(depth: int) -> bytes:
    """A tuple that holds the one before twice, and so on: 2 ** depth values in a few bytes."""
    return b")" + b"2\x86" * depth


def as_dtype(code_: str, *state: Any) -> bytes:
    """A dtype with a state of one's own; numpy believes what it says about sizes and pointers."""

    class Made:
        def __reduce__(self) -> Any:
            return np.dtype, (code_, False, True), state

    return pickle.dumps(Made(), 5)


def as_random_state(position: int) -> bytes:
    """A generator that is somewhere outside its own state; numpy would read there."""
    state = np.random.RandomState(1).get_state(legacy=False)
    state["state"]["pos"] = position

    class Made:
        def __reduce__(self) -> Any:
            call, arguments, _ = np.random.RandomState(1).__reduce__()
            return call, arguments, state

    return pickle.dumps(Made(), 5)


# None of these is tried on a plain reader: some end the process, some take all memory, some take for ever.
BOMBS: dict[str, bytes] = {
    "bytearray that is declared only": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.",
    "bytes that are declared only": b"\x80\x05\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
    "text that is declared only": b"\x80\x05\x8d" + struct.pack("<Q", 1 << 40) + b"x.",
    "frame that is declared only": b"\x80\x05\x95" + struct.pack("<Q", 1 << 40) + b"x.",
    "place in the memo": b"\x80\x05Nr\xff\xff\xff\x7f0Nr\xff\xff\xff\xff",
    "bytearray of a size": pickle.dumps(Call(bytearray, 1 << 40), 5),
    "bytes of a size": pickle.dumps(Call(bytes, 1 << 40), 5),
    "list of a range": pickle.dumps(Call(list, range(1 << 40)), 5),
    "set of a range": pickle.dumps(Call(set, range(1 << 40)), 5),
    "deque of a range": pickle.dumps(Call(collections.deque, range(1 << 40)), 5),
    "counter of a range": pickle.dumps(Call(collections.Counter, range(1 << 40)), 5),
    "text times a number": pickle.dumps(Call(operator.mul, "x", 1 << 40), 5),
    "array of a shape": pickle.dumps(Call(np.zeros, (1 << 40,)), 5),
    "ndarray of a shape": pickle.dumps(Call(np.ndarray, (1 << 40,)), 5),
    "key that takes for ever to hash": program(b"}" + tuples(60) + b"Ns"),
    "member that takes for ever to hash": program(b"\x8f(" + tuples(60) + b"\x90"),
    "frozen member that takes for ever to hash": program(b"(" + tuples(60) + b"\x91"),
    "old dictionary that takes for ever to hash": program(b"(" + tuples(60) + b"Nd"),
    "Rust constructor": program(
        name("river._river_rust.stats", "RsRollingQuantile") + b"G?\xe0\0\0\0\0\0\0\x8a\x06" + b"\0" * 5 + b"\1\x86\x81"
    ),
    "Rust state": program(
        name("river._river_rust.drift", "AdaptiveWindowing")
        + b"(G?`bM\xd2\xf1\xa9\xfcK K\x05K\x05K\nt\x81C\x40" + b"\xff" * 64 + b"b"
    ),
    "dtype with pointers": as_dtype("f8", 3, "<", None, None, None, -1, -1, 63),
    "dtype with a size": as_dtype("U1", 3, "<", None, None, None, 1 << 30, 4, 8),
    "dtype with fields": as_dtype("V8", 3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 27),
    "dtype of objects": pickle.dumps(Call(np.dtype, "O", False, True), 5),
    "dtype of a structure": pickle.dumps(Call(np.dtype, [("a", "O")]), 5),
    "random state before its beginning": as_random_state(-5),
    "random state after its end": as_random_state(1 << 30),
    "random state of the wrong length": pickle.dumps(Call(pickles._unpacked, 3, b"1234", None), 5),
    "random state of no bytes": pickle.dumps(Call(pickles._unpacked, 3, None, None), 5),
    "no global": program(b"NN\x93"),
    "stack that is empty": b"\x80\x05R.",
    "nothing to build": b"\x80\x05b.",
    "attributes without names": program(OWNED + b"}K\x01Nsb"),
    "attributes from no dict": program(OWNED + b"K\x01b"),
    "slot that is none": program(OWNED + b"N}" + text("__class__") + name(__name__, "Leaves") + b"s\x86b"),
    "call of no arguments": program(name("collections", "deque") + b"NR"),
    "instance of a plain class": program(name("builtins", "int") + b")\x81"),
    "persistent id": program(text("x") + b"Q"),
    "buffer from elsewhere": program(b"\x97"),
    "unknown protocol": b"\x80\x09N.",
    "unknown step": b"\x80\x05\xff.",
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.timeout(20)
def test_bomb_is_refused(bomb: str, reader: str) -> None:
    with pytest.raises(pickle.UnpicklingError):
        READERS[reader](BOMBS[bomb])


@pytest.mark.parametrize("opening", [b"]", b"}N"])
def test_depth_alone_does_no_harm(opening: bytes) -> None:
    closing = b"a" if opening == b"]" else b"s"
    by_models(program(opening * 100_000 + b"N" + closing * 100_000))


@pytest.mark.parametrize(
    ("module", "attribute"),
    [
        ("river.datasets.base", "FileDataset"),
        ("river.datasets.phishing", "Phishing"),
        ("river.datasets.synth.agrawal", "Agrawal"),
        ("river.bandit.datasets.news", "NewsArticles"),
        ("river.bandit.datasets", "NewsArticles"),
        ("river.drift.datasets", "AirlinePassengers"),
        ("river.stream.cache", "Cache"),
        ("river.stream", "iter_csv"),
        ("river.checks", "utils"),
        ("river.evaluate", "progressive_val_score"),
        ("river.evaluate.progressive_validation", "progressive_val_score"),
        ("river.compat.sklearn_to_river", "SKL2RiverRegressor"),
        ("river.misc.skyline", "Skyline"),
        ("river.base.base", "inspect"),
        ("river.base.base", "copy"),
        ("river.utils.pretty", "print_table"),
        ("river.utils.inspect", "extract_relevant"),
        ("river.optim.losses", "Log.__init__"),
        ("river.linear_model", "LinearRegression.learn_one"),
        ("river.nothing", "Nothing"),
        ("river.tree", "nothing"),
        ("riverside", "Fish"),
        ("numpy", "load"),
        ("numpy", "fromfile"),
        ("numpy", "frombuffer"),
        ("numpy.f2py", "compile"),
        ("numpy._core.multiarray", "fromfile"),
        ("numpy.lib.npyio", "load"),
        ("numpy.random._pickle", "BitGenerators"),
        ("numpy.ctypeslib", "load_library"),
        ("copyreg", "_reconstructor"),
        ("copyreg", "__newobj__"),
        ("copyreg", "add_extension"),
        ("copy", "copy"),
        ("functools", "reduce"),
        ("operator", "attrgetter"),
        ("operator", "methodcaller"),
        ("builtins", "type"),
        ("builtins", "vars"),
        ("builtins", "map"),
        ("builtins", "property"),
        ("learning.pickles", "loads"),
        ("learning.pickles", "_Reader"),
        ("learning.learn", "Learner"),
        (__name__, "leave.__globals__"),
        (__name__, "os"),
        (__name__, "Path"),
        (__name__, "by_watch.__code__"),
        ("tests.doubles", "FixedModel"),
        ("__main__", "x"),
    ],
)
def test_name_is_not_resolved(module: str, attribute: str) -> None:
    with pytest.raises(pickles.RefusedError):
        by_models(program(name(module, attribute)))


def test_function_of_the_own_module_is_a_value_only() -> None:
    assert pickles.loads(program(LEAVE), allow=pickles.models([__name__])) is leave
    with pytest.raises(pickles.RefusedError, match="names"):
        pickles.loads(program(LEAVE), allow=pickles.models())


def test_modules_of_river_are_nobodys_own() -> None:
    assert pickles.models(["river.stream.cache", "mine"]).modules == {"mine"}


def test_parameters_of_an_estimator_cannot_bring_anything_in() -> None:
    """Its constructor is not called at all, so it cannot be made to call what it is given."""
    data = pickle.dumps(Call(optim.SGD, Call(leave, "x")), 4)
    with pytest.raises(pickles.RefusedError):
        by_models(data)
