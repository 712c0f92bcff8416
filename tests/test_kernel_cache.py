"""No process ever runs another kernel than it asked for, however many compile at once."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace

import numba
import numpy as np
import pytest
from numba import config, njit, types

from ssm_edu import kernel_cache
from ssm_edu.kernel_cache import compiled, described, digest_of_files

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

KERNELS = """
from numba import types
from numba.extending import intrinsic

def adder(k):
    def add(x):
        return x + k
    return add

def with_intrinsic(k):
    @intrinsic
    def plus(typingctx, x):
        return x(x), lambda context, builder, signature, arguments: builder.add(
            arguments[0], context.get_constant(types.int64, k)
        )
    def add(x):
        return plus(x)
    return add
"""

# Two processes read the index, take the next number and write: index 0, index 1, data 1, data 0. A third then loads 1.
RACE = """
import sys
from multiprocessing import get_context
from kernels import adder
from numba import njit, types
from numba.core.caching import IndexDataCacheFile
from ssm_edu.kernel_cache import compiled

def build(k):
    signature = (types.int64,)
    plain = sys.argv[1] == "numba"
    return njit(signature, cache=True)(adder(k)) if plain else compiled(njit, adder(k), signature)

def process(k, both_read, turn, done):
    def in_turn(save, order):
        def saves(self, *arguments):
            if save.__name__ == "_save_index":
                both_read.wait(60)
            with turn:
                assert turn.wait_for(lambda: done.value == order, 60)
                save(self, *arguments)
                done.value += 1
                turn.notify_all()
        return saves
    IndexDataCacheFile._save_index = in_turn(IndexDataCacheFile._save_index, k)
    IndexDataCacheFile._save_data = in_turn(IndexDataCacheFile._save_data, 3 - k)
    build(k)

fork = get_context("fork")
shared = fork.Barrier(2), fork.Condition(), fork.Value("i", 0)
writers = [fork.Process(target=process, args=(k, *shared)) for k in (0, 1)]
for writer in writers:
    writer.start()
for writer in writers:
    writer.join()
    assert writer.exitcode == 0
loaded = build(1)
assert sum(loaded.stats.cache_hits.values()) == 1
print(loaded(0))
"""

# A process dies between index and data; then eight at once compile 4 closures of 2 signatures, each in its own order.
STRESS = """
import os, random
from multiprocessing import get_context
from kernels import adder, with_intrinsic
from numba import njit, types
from numba.core.caching import IndexDataCacheFile
from ssm_edu.kernel_cache import compiled

WANTED = [(k, t) for k in range(4) for t in (types.int64, types.float64)]

def build(k, t):
    return compiled(njit, adder(k), (t,))

def dies():
    IndexDataCacheFile._save_data = lambda *_: os._exit(9)
    build(*WANTED[0])

def process(seed, together):
    order = random.Random(seed).sample(WANTED, len(WANTED))
    together.wait(60)
    for k, t in order:
        assert build(k, t)(1) == 1 + k

fork = get_context("fork")
first = fork.Process(target=dies)
first.start(); first.join()
assert first.exitcode == 9
together = fork.Barrier(8)
writers = [fork.Process(target=process, args=(seed, together)) for seed in range(8)]
for writer in writers:
    writer.start()
for writer in writers:
    writer.join()
    assert writer.exitcode == 0
for k, t in WANTED:
    kernel = build(k, t)
    assert kernel(1) == 1 + k
    assert sum(kernel.stats.cache_hits.values()) == 1, (k, t)
"""

# Four processes ask for one kernel at once, and say when they compile; what they compile takes a while.
ONCE = """
import sys, time
from multiprocessing import get_context
from kernels import adder
from numba import njit, types
from numba.core.caching import IndexDataCacheFile
from ssm_edu import kernel_cache
from ssm_edu.kernel_cache import compiled

if sys.argv[1] == "without":
    kernel_cache.fcntl = None
save = IndexDataCacheFile.save

def process(together, count):
    def saves(self, *arguments):
        with count.get_lock():
            count.value += 1
        time.sleep(0.5)
        save(self, *arguments)
    IndexDataCacheFile.save = saves
    together.wait(60)
    assert compiled(njit, adder(1), (types.int64,))(1) == 2

fork = get_context("fork")
together, count = fork.Barrier(4), fork.Value("i", 0)
askers = [fork.Process(target=process, args=(together, count)) for _ in range(4)]
for asker in askers:
    asker.start()
for asker in askers:
    asker.join()
    assert asker.exitcode == 0
print(count.value)
"""

# The parent forks while a thread of it compiles; the child compiles something else.
FORK = """
import os, signal, sys, threading
from types import SimpleNamespace
from kernels import adder
from numba import njit, types
from ssm_edu import kernel_cache
from ssm_edu.kernel_cache import compiled

if sys.argv[1] == "without":
    kernel_cache._compiling = threading.RLock()
begun, slow = threading.Event(), threading.Event()

def jit():
    def decorate(function):
        def compile(signature):
            begun.set()
            slow.wait(0.3)
        nothing = lambda: None
        return SimpleNamespace(
            _cache=SimpleNamespace(cache_path="nowhere"),
            enable_caching=nothing, compile=compile, disable_compile=nothing,
        )
    return decorate

thread = threading.Thread(target=compiled, args=(jit, adder(0), (types.int64,)))
thread.start()
begun.wait()
child = os.fork()
if child == 0:
    signal.alarm(10 if sys.argv[1] == "with" else 1)
    os._exit(int(compiled(njit, adder(1), (types.int64,))(1) != 2))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
thread.join()
"""


def run(code, folder, *arguments, **environment):
    (folder / "kernels.py").write_text(KERNELS)
    found = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, *arguments],
        env=os.environ
        | {"NUMBA_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
        | environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


@forks
def test_numbas_own_cache_runs_the_wrong_kernel(tmp_path):
    """Why :mod:`ssm_edu.kernel_cache` is there: 0 + 1 is 0. Should this fail, Numba can do without."""
    assert run(RACE, tmp_path, "numba") == "0"


@forks
def test_the_same_race_does_no_harm_here(tmp_path):
    assert run(RACE, tmp_path, "compiled") == "1"


@forks
def test_eight_processes_at_once_and_one_that_died(tmp_path):
    run(STRESS, tmp_path)
    files = [path.suffix for path in (tmp_path / "cache").glob("*/*")]
    assert sorted(files) == [".lock"] + [".nbc"] * 8 + [".nbi"] * 8  # each kernel once, and nothing left behind


@forks
def test_one_of_the_processes_that_ask_compiles(tmp_path):
    assert run(ONCE, tmp_path, "with") == "1"
    assert int(run(ONCE, tmp_path / "cache", "without")) > 1


@forks
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_nobody_waits_for_ever(cache, monkeypatch):
    """For a process that is stopped while it compiles, say."""
    monkeypatch.setattr(kernel_cache, "PATIENCE", 1.5)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with kernel_cache._alone(cache, "kernel"):
            os.write(write, b".")
            time.sleep(60)
        os._exit(0)
    try:
        os.read(read, 1)
        begun = time.monotonic()
        with kernel_cache._alone(cache, "another kernel"):
            pass
        waited = time.monotonic() - begun
        with kernel_cache._alone(cache, "kernel"):
            pass
        assert waited < 1.5 <= time.monotonic() - begun
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read)
        os.close(write)


@forks
def test_a_fork_waits_for_the_thread_that_compiles(tmp_path):
    assert run(FORK, tmp_path, "with") == "0"
    assert run(FORK, tmp_path, "without") == "-14"  # the child waits until the alarm


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache on disk, and a process that has compiled nothing."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(kernel_cache, "_kernels", {})
    return tmp_path


def adder(k):
    def add(x):
        return x + k

    return add


def build(k=1, **options):
    """The kernel, and whether it came from disk, in a process that has not asked for it before."""
    kernel_cache._kernels.clear()
    kernel = compiled(njit, adder(k), (types.int64,), **options)
    return kernel, sum(kernel.stats.cache_hits.values()) == 1


def test_compiled_once_and_loaded_thereafter(cache):
    assert [build()[1], build()[1]] == [False, True]
    assert compiled(njit, adder(1), (types.int64,)) is compiled(njit, adder(1), (types.int64,))


def test_each_kernel_has_files_of_its_own(cache, monkeypatch):
    ways = {}
    for k in (0, 1, 1.0, True, np.int64(1), np.float32(1)):
        ways[f"closure {k!r}"] = compiled(njit, adder(k), (types.int64,))
    ways["another signature"] = compiled(njit, adder(1), (types.float64,))
    ways["options"] = compiled(njit, adder(1), (types.int64,), fastmath={"contract"})
    ways["another processor"] = compiled(njit, adder(1), (types.int64,), "x86-64-v4")
    monkeypatch.setattr(np, "__version__", "3.0")
    ways["another NumPy"] = compiled(njit, adder(1), (types.int64,))
    monkeypatch.setattr(numba, "__version__", "1.0")
    ways["another Numba"] = compiled(njit, adder(1), (types.int64,))
    assert len({id(kernel) for kernel in ways.values()}) == len(ways)
    assert len({path.name for path in cache.glob("*/*.nbi")}) == len(ways)


def test_sources_are_told_apart(tmp_path):
    first, second = tmp_path / "a.py", tmp_path / "b.py"
    first.write_text("x = 1")
    second.write_text("x = 2")
    files = [(first, second), (second, first), (first,), (second,)]
    assert len({digest_of_files(*map(str, paths)) for paths in files}) == len(files)


def test_threads_compile_once(cache):
    begun = []

    def jit():
        def compile_(signature):
            begun.append(signature)
            time.sleep(0.1)

        def nothing():
            return None

        return lambda function: SimpleNamespace(
            _cache=SimpleNamespace(cache_path="nowhere"),
            enable_caching=nothing,
            compile=compile_,
            disable_compile=nothing,
        )

    with ThreadPoolExecutor(8) as pool:
        kernels = list(pool.map(lambda _: compiled(jit, adder(1), "int64"), range(8)))
    assert len({id(kernel) for kernel in kernels}) == len(begun) == 1


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("left", [0, 20])
def test_files_cut_short(cache, suffix, left):
    build()
    (path,) = cache.glob(f"*/*.{suffix}")
    path.write_bytes(path.read_bytes()[:left])
    kernel, loaded = build()
    assert (kernel(1), loaded) == (2, False)


def test_no_folder_to_write_to(cache, monkeypatch):
    """Numba looks in turn for a folder that it can write to, and raises where it finds none."""
    no_folder = cache / "file"
    no_folder.write_text("")
    monkeypatch.setattr(config, "CACHE_DIR", str(no_folder))
    locators = numba.core.caching.CacheImpl._locator_classes
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", locators[:1])  # NUMBA_CACHE_DIR's
    with pytest.raises(RuntimeError, match="no locator"):
        njit(types.int64(types.int64), cache=True)(adder(1))
    assert build()[0](1) == 2


def test_a_disk_that_is_full(cache, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(numba.core.caching.IndexDataCacheFile, "_save_data", full)
    assert build()[0](1) == 2


def test_an_error_in_the_kernel_is_raised(cache):
    with pytest.raises(numba.core.errors.TypingError):
        build("a")
    assert not kernel_cache._kernels


def test_descriptions_last(tmp_path):
    """Numba's own key holds a random number where the closure holds an intrinsic."""
    code = (
        "from hashlib import sha256; from kernels import with_intrinsic; from ssm_edu.kernel_cache import described; "
        "print(*(sha256(repr(described((with_intrinsic(k), {'a', 'b', 'c'}))).encode()).hexdigest() for k in (1, 2)))"
    )
    first, again = (run(code, tmp_path, PYTHONHASHSEED=seed).split() for seed in "12")
    assert first == again
    assert first[0] != first[1]


@dataclass
class Pair:
    a: object
    b: object


def test_descriptions_tell_values_apart():
    arrays = np.zeros(2000), np.eye(1, 2000, 1000)[0], np.zeros((2, 1000)), np.zeros(2000, int)
    values = [
        None, 0, 0.0, -0.0, False, 0j, "0", b"0", np.float32(0), np.float64(0), np.dtype("f4"), types.float32, float,
        np, *arrays, (0,), [0], ((0,),), {0}, {0: 0}, {0: 1}, Pair(0, 1), Pair(1, 0),
        adder(0), adder(1), lambda: 0, lambda: 1, njit(adder(2)), njit(adder(3)),
    ]  # fmt: skip
    assert len({repr(described(value)) for value in values}) == len(values)
    assert described(njit(adder(1))) == described(adder(1))


@pytest.mark.parametrize("value", [object(), (1, object()), {"x": object()}, adder(object())])
def test_what_has_no_lasting_description(value):
    with pytest.raises(TypeError, match=r"depends on a object, <object .*no description that lasts"):
        described(value)
