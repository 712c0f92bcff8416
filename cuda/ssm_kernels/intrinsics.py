"""What Python cannot say to the GPU: 16-byte loads and stores, narrow floats, and the fast 2ˣ, log₂x and 1/x.

Each has a plain twin, which the simulator runs. A global array comes as a bare pointer to its elements (in the
simulator a flat array), and :func:`access` gives the functions that read and write one:

| function | meaning |
|---|---|
| `load(p, i)` | element i, float16 and bfloat16 widened to float32 |
| `store(p, i, x)` | element i = x, rounded to nearest |
| `load_wide(p, i)` | elements i to i + width − 1 as a tuple: one 16-byte load; p + i is 16-byte aligned |
| `store_wide(p, i, xs)` | the same way back |

`short_access(dtype, count)` gives such a load and store of fewer elements, 4 to 16 bytes that are aligned as a whole;
`packed_access(dtype)` a load of four that stay as they lie in memory (:class:`Packed`).

Shared arrays have `shared_load(dtype)` and `shared_store(dtype)`, 16 bytes too, and `copy_async(dtype)`: 16 bytes
from global to shared memory past the registers, of which the first `valid` elements are read and the others become
zero. What was asked for since the last `commit_async` is a group. `wait_async` waits for all, `wait_async_but_last`
for all but the last group; other threads see the copies after a barrier too. In the twin there is NaN until then.
`staging(dtype)` is such a copy past the first-level cache too, and a load of four elements that widens them.

From Hopper on an early launch (:class:`ssm_kernels._target.Launchable`) begins when every block of the one before has
called `next_may_begin`, or ended. It writes nothing, and reads nothing that the scan's other launches have written,
before `wait_for_launches`: then these are done, and what they have written is seen.

`meeting(threads)` is a barrier of a block's so many threads to which warps may come from different places of the code;
`syncthreads` is one place, and all must come to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, no_type_check
from weakref import WeakKeyDictionary

import numpy as np

from ssm_kernels._target import SIMULATED, intrinsic, types
from ssm_kernels.unseen import UNSEEN

# bfloat16 travels as its bits: NumPy has no such type
POINTEES = {
    "float16": types.uint16,
    "bfloat16": types.uint16,
    "float32": types.float32,
    "float64": types.float64,
    "complex64": types.complex64,
    "complex128": types.complex128,
}
ITEMSIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "complex64": 8, "complex128": 16}
ZERO: dict[str, Any] = {"float16": np.float32(0), "bfloat16": np.float32(0)}
ZERO |= {dtype: np.dtype(dtype).type(0) for dtype in ("float32", "float64", "complex64", "complex128")}


@dataclass(frozen=True)
class Access:
    """How a kernel reads and writes a global array of one dtype; `width` elements make 16 bytes."""

    dtype: str
    width: int
    zero: Any
    load: Callable[..., Any]
    store: Callable[..., Any]
    load_wide: Callable[..., Any]
    store_wide: Callable[..., Any]


@dataclass(frozen=True)
class Packed:
    """Four elements as they lie in memory: what is read ahead is `opened` when it is used, not when it arrives.

    `load` gives 4 / `numbers` words, and `opened` the so many numbers of one.
    """

    numbers: int
    word_t: Any
    zero: Any
    load: Callable[..., Any]
    opened: Callable[..., Any]


class Gathering(NamedTuple):
    """A barrier in 8 bytes of shared memory, at `at`, whose threads go on between arriving and waiting for the others.

    `open(shared, at)`: by one thread, before a barrier of all. `arrive(shared, at)`: what a thread has done, and
    copied, is done. `wait(shared, at, parity)`: all have arrived; parity 0 first, then 1, and so on in turns. In the
    simulator it is a barrier where one arrives, or where one waits (`GATHER_EARLY`): what is missing is seen under one
    of the two.
    """

    open: Callable[..., Any]
    arrive: Callable[..., Any]
    wait: Callable[..., Any]


def pointer(dtype: str) -> Any:
    """The Numba type of a pointer to such elements, for a kernel's signature."""
    return types.CPointer(POINTEES[dtype])


GATHER_EARLY = False  # in the simulator

if SIMULATED:

    @no_type_check
    def exp2(x: Any) -> Any:
        return np.exp2(x)

    @no_type_check
    def log2(x: Any) -> Any:
        return np.log2(x)

    @no_type_check
    def reciprocal(x: Any) -> Any:
        return x.dtype.type(1) / x

    @no_type_check
    def worked_out(x: Any) -> Any:
        return x

    def this_thread() -> Any:
        from ssm_kernels._target import cuda

        return cuda.threadIdx.x

    @no_type_check
    def _widened(bits: Any, dtype: str) -> Any:
        if dtype == "bfloat16":
            return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)
        return np.uint16(bits).view(np.float16).astype(np.float32)

    @no_type_check
    def _narrowed(x: Any, dtype: str) -> Any:
        x = np.float32(x)
        if dtype == "float16":
            return x.astype(np.float16).view(np.uint16)
        if np.isnan(x):
            return np.uint16(0x7FFF)
        bits = int(x.view(np.uint32))
        return np.uint16((bits + 0x7FFF + (bits >> 16 & 1)) >> 16)  # to nearest, ties to even

    @no_type_check
    @cache
    def access(dtype: str) -> Access:
        width = 16 // ITEMSIZE[dtype]
        narrow = ITEMSIZE[dtype] == 2

        def load(p: Any, i: Any) -> Any:
            return _widened(p[i], dtype) if narrow else p[i]

        def store(p: Any, i: Any, x: Any) -> None:
            p[i] = _narrowed(x, dtype) if narrow else x

        def load_wide(p: Any, i: Any) -> Any:
            _check_aligned(i, width)
            return tuple(load(p, i + k) for k in range(width))

        def store_wide(p: Any, i: Any, xs: Any) -> None:
            _check_aligned(i, width)
            for k in range(width):
                store(p, i + k, xs[k])

        return Access(dtype, width, ZERO[dtype], load, store, load_wide, store_wide)

    def _check_aligned(i: Any, width: int) -> None:
        if i % width:
            raise ValueError(f"an access to {width} elements at element {i}, which is no multiple of {width}")

    @no_type_check
    @cache
    def short_access(dtype: str, count: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
        io = access(dtype)

        def load(p: Any, i: Any) -> Any:
            _check_aligned(i, count)
            return tuple(io.load(p, i + k) for k in range(count))

        def store(p: Any, i: Any, xs: Any) -> None:
            _check_aligned(i, count)
            for k in range(count):
                io.store(p, i + k, xs[k])

        return load, store

    @no_type_check
    @cache
    def packed_access(dtype: str) -> Packed:
        io = access(dtype)
        if ITEMSIZE[dtype] == 4:
            return Packed(1, types.float32, ZERO[dtype], short_access(dtype, 4)[0], lambda word: (word,))

        def load(p: Any, i: Any) -> Any:
            _check_aligned(i, 4)
            return tuple(np.uint32(p[i + k]) | np.uint32(p[i + k + 1]) << np.uint32(16) for k in (0, 2))

        def opened(word: Any) -> Any:
            return _widened(np.uint16(word & 0xFFFF), dtype), _widened(np.uint16(word >> 16), dtype)

        assert io.width == 8
        return Packed(2, types.uint32, np.uint32(0), load, opened)

    @no_type_check
    @cache
    def shared_load(dtype: str) -> Callable[..., Any]:
        return access(dtype).load_wide

    @no_type_check
    @cache
    def shared_store(dtype: str) -> Callable[..., Any]:
        return access(dtype).store_wide

    @no_type_check
    @cache
    def short_shared(count: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
        return short_access("float32", count)

    @no_type_check
    @cache
    def copy_async(dtype: str, first_level: bool = True) -> Callable[..., Any]:
        width = 16 // ITEMSIZE[dtype]

        def copy(array: Any, i: Any, p: Any, j: Any, valid: Any) -> None:
            _check_aligned(i, width)
            if valid > 0:
                _check_aligned(j, width)
            for k in range(width):
                _send(array, i + k, p[j + k] if k < valid else array.dtype.type(0))

        return copy

    @no_type_check
    @cache
    def staging(dtype: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
        io = access(dtype)

        def copy(array: Any, i: Any, p: Any, j: Any) -> None:
            _check_aligned(i, io.width)
            _check_aligned(j, io.width)
            for k in range(io.width):
                _send(array, i + k, p[j + k])

        def load(array: Any, i: Any) -> Any:
            _check_aligned(i, 4)
            return tuple(io.load(array, i + k) for k in range(4))

        return copy, load

    # of each thread the groups of what is on its way, the last one not yet closed: array, index and element
    _on_way: WeakKeyDictionary[Any, list[list[tuple[Any, Any, Any]]]] = WeakKeyDictionary()

    def _groups() -> list[list[tuple[Any, Any, Any]]]:
        from greenlet import getcurrent  # the simulator's threads are greenlets

        return _on_way.setdefault(getcurrent(), [[]])

    def _send(array: Any, i: Any, x: Any) -> None:
        array[i] = 0x7FFF if array.dtype.kind == "u" else array.dtype.type(np.nan)  # of both 16-bit floats, NaN
        _groups()[-1].append((array, i, x))

    def _arrive(but: int) -> None:
        groups = _groups()
        while len(groups) > but:
            for array, i, x in groups.pop(0):
                array[i] = x
        if not groups:
            groups.append([])

    def commit_async() -> None:
        _groups().append([])

    def wait_async() -> None:
        _arrive(0)

    def wait_async_but_last() -> None:
        _arrive(2)  # and what no group has closed

    def wait_for_launches() -> None:
        UNSEEN.wait()

    def next_may_begin() -> None:
        pass

    @no_type_check
    @cache
    def meeting(threads: int) -> Callable[..., Any]:
        from ssm_kernels._target import cuda

        def meet() -> None:
            cuda.syncthreads()

        return meet

    @no_type_check
    @cache
    def gathering(threads: int, copies: bool) -> Gathering:
        from ssm_kernels._target import cuda

        def open_(shared: Any, at: Any) -> None:
            pass

        def arrive(shared: Any, at: Any) -> None:
            if copies:
                _arrive(0)
            if GATHER_EARLY:
                cuda.syncthreads()

        def wait(shared: Any, at: Any, parity: Any) -> None:
            if not GATHER_EARLY:
                cuda.syncthreads()

        return Gathering(open_, arrive, wait)

else:
    from llvmlite import ir

    F32, I16, I32 = ir.FloatType(), ir.IntType(16), ir.IntType(32)

    def _approximate(name: str) -> Any:
        """One MUFU instruction, about 2 ulp; subnormal arguments and results count as zero."""

        @intrinsic
        def function(typingctx: Any, x: Any) -> Any:
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                assembly = ir.InlineAsm(ir.FunctionType(F32, [F32]), f"{name}.approx.ftz.f32 $0, $1;", "=f,f")
                return builder.call(assembly, args)

            return types.float32(types.float32), codegen

        return function

    @intrinsic
    def worked_out(typingctx: Any, x: Any) -> Any:
        move, constraints = {
            types.float32: ("mov.f32", "=f,f"),
            types.int32: ("mov.b32", "=r,r"),
            types.int64: ("mov.b64", "=l,l"),
        }[x]

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = ir.FunctionType(args[0].type, [args[0].type])
            return builder.call(ir.InlineAsm(kind, f"{move} $0, $1;", constraints, side_effect=True), args)

        return x(x), codegen

    @intrinsic
    def this_thread(typingctx: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = ir.FunctionType(I32, [])
            return builder.call(ir.InlineAsm(kind, "mov.u32 $0, %tid.x;", "=r", side_effect=True), [])

        return types.int32(), codegen

    exp2, log2, reciprocal = _approximate("ex2"), _approximate("lg2"), _approximate("rcp")

    def _widen(builder: Any, bits: Any, dtype: str) -> Any:
        if dtype == "float16":
            return builder.fpext(builder.bitcast(bits, ir.HalfType()), F32)
        return builder.bitcast(builder.shl(builder.zext(bits, I32), ir.Constant(I32, 16)), F32)

    def _narrow(builder: Any, value: Any, dtype: str) -> Any:
        mnemonic = "cvt.rn.f16.f32" if dtype == "float16" else "cvt.rn.bf16.f32"
        assembly = ir.InlineAsm(ir.FunctionType(I16, [F32]), f"{mnemonic} $0, $1;", "=h,f")
        return builder.call(assembly, [value])

    def _word(dtype: str) -> tuple[Any, int]:
        """The LLVM type of what a 16-byte access is made of, and how many of them an element takes."""
        if ITEMSIZE[dtype] == 2:
            return I32, 1  # NVVM splits a load of eight i16 in two
        real = F32 if dtype in ("float32", "complex64") else ir.DoubleType()
        return real, 2 if dtype.startswith("complex") else 1

    def _vector(builder: Any, p: Any, i: Any, dtype: str, space: int, size: int = 16) -> Any:
        word, words = _word(dtype)
        vector = ir.VectorType(word, size // max(ITEMSIZE[dtype], 4) * words)
        at = builder.bitcast(builder.gep(p, [i]), vector.as_pointer(getattr(p.type, "addrspace", 0)))
        return builder.addrspacecast(at, ir.PointerType(vector, space))

    def _load_vector(context: Any, builder: Any, p: Any, i: Any, dtype: str, space: int, size: int = 16) -> list[Any]:
        vector = builder.load(_vector(builder, p, i, dtype, space, size))
        vector.align = size
        _, words = _word(dtype)
        parts = [builder.extract_element(vector, ir.Constant(I32, k)) for k in range(vector.type.count)]
        if ITEMSIZE[dtype] == 2:
            halves = [builder.trunc(half, I16) for w in parts for half in (w, builder.lshr(w, ir.Constant(I32, 16)))]
            return [_widen(builder, half, dtype) for half in halves]
        if words == 1:
            return parts
        numbers = []
        for re, im in zip(parts[::2], parts[1::2], strict=True):
            number = context.make_complex(builder, POINTEES[dtype])
            number.real, number.imag = re, im
            numbers.append(number._getvalue())
        return numbers

    def _store_vector(
        context: Any, builder: Any, p: Any, i: Any, values: list[Any], dtype: str, space: int, size: int = 16
    ) -> None:
        at = _vector(builder, p, i, dtype, space, size)
        _, words = _word(dtype)
        if words == 2:
            numbers = [context.make_complex(builder, POINTEES[dtype], value=value) for value in values]
            values = [part for number in numbers for part in (number.real, number.imag)]
        elif ITEMSIZE[dtype] == 2:
            halves = [builder.zext(_narrow(builder, value, dtype), I32) for value in values]
            high = [builder.shl(half, ir.Constant(I32, 16)) for half in halves[1::2]]
            values = [builder.or_(low, up) for low, up in zip(halves[::2], high, strict=True)]
        vector = ir.Constant(at.type.pointee, ir.Undefined)
        for k, value in enumerate(values):
            vector = builder.insert_element(vector, value, ir.Constant(I32, k))
        builder.store(vector, at, align=size)

    GLOBAL, SHARED = 1, 3

    @cache
    def access(dtype: str) -> Access:
        width, element = 16 // ITEMSIZE[dtype], POINTEES[dtype]
        wide = types.float32 if ITEMSIZE[dtype] == 2 else element
        row = types.UniTuple(wide, width)

        def at(builder: Any, p: Any, i: Any) -> Any:
            return builder.addrspacecast(builder.gep(p, [i]), ir.PointerType(p.type.pointee, GLOBAL))

        @intrinsic
        def load(typingctx: Any, p: Any, i: Any) -> Any:
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                value = builder.load(at(builder, *args))
                value.align = ITEMSIZE[dtype] if not dtype.startswith("complex") else ITEMSIZE[dtype] // 2
                if ITEMSIZE[dtype] == 2:
                    return _widen(builder, value, dtype)
                return value

            return wide(p, types.int64), codegen

        @intrinsic
        def store(typingctx: Any, p: Any, i: Any, x: Any) -> Any:
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                value = _narrow(builder, args[2], dtype) if ITEMSIZE[dtype] == 2 else args[2]
                builder.store(value, at(builder, args[0], args[1]))
                return context.get_dummy_value()

            return types.void(p, types.int64, wide), codegen

        @intrinsic
        def load_wide(typingctx: Any, p: Any, i: Any) -> Any:
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                return context.make_tuple(builder, row, _load_vector(context, builder, args[0], args[1], dtype, GLOBAL))

            return row(p, types.int64), codegen

        @intrinsic
        def store_wide(typingctx: Any, p: Any, i: Any, xs: Any) -> Any:
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                values = [builder.extract_value(args[2], k) for k in range(width)]
                _store_vector(context, builder, args[0], args[1], values, dtype, GLOBAL)
                return context.get_dummy_value()

            return types.void(p, types.int64, row), codegen

        return Access(dtype, width, ZERO[dtype], load, store, load_wide, store_wide)

    @cache
    def short_access(dtype: str, count: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
        row = types.UniTuple(types.float32 if ITEMSIZE[dtype] == 2 else POINTEES[dtype], count)
        size = count * ITEMSIZE[dtype]

        @intrinsic
        def load(typingctx: Any, p: Any, i: Any) -> Any:
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                values = _load_vector(context, builder, args[0], args[1], dtype, GLOBAL, size)
                return context.make_tuple(builder, row, values)

            return row(p, types.int64), codegen

        @intrinsic
        def store(typingctx: Any, p: Any, i: Any, xs: Any) -> Any:
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                values = [builder.extract_value(args[2], k) for k in range(count)]
                _store_vector(context, builder, args[0], args[1], values, dtype, GLOBAL, size)
                return context.get_dummy_value()

            return types.void(p, types.int64, row), codegen

        return load, store

    @cache
    def packed_access(dtype: str) -> Packed:
        narrow = ITEMSIZE[dtype] == 2
        word_t = types.uint32 if narrow else types.float32
        numbers, row = 2 if narrow else 1, types.UniTuple(word_t, 2 if narrow else 4)

        @intrinsic
        def load(typingctx: Any, p: Any, i: Any) -> Any:
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                p, i = args
                vector = builder.load(_vector(builder, p, i, dtype, GLOBAL, 4 * row.count))
                vector.align = 4 * row.count
                words = [builder.extract_element(vector, ir.Constant(I32, k)) for k in range(row.count)]
                return context.make_tuple(builder, row, words)

            return row(p, types.int64), codegen

        @intrinsic
        def opened(typingctx: Any, word: Any) -> Any:
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                (value,) = args
                if not narrow:
                    return context.make_tuple(builder, signature.return_type, [value])
                halves = builder.trunc(value, I16), builder.trunc(builder.lshr(value, ir.Constant(I32, 16)), I16)
                numbers = [_widen(builder, half, dtype) for half in halves]
                return context.make_tuple(builder, signature.return_type, numbers)

            return types.UniTuple(types.float32, numbers)(word_t), codegen

        return Packed(numbers, word_t, np.uint32(0) if narrow else ZERO[dtype], load, opened)

    @cache
    def shared_load(dtype: str) -> Callable[..., Any]:
        wide = types.float32 if ITEMSIZE[dtype] == 2 else POINTEES[dtype]
        row = types.UniTuple(wide, 16 // ITEMSIZE[dtype])

        @intrinsic
        def load(typingctx: Any, array: Any, i: Any) -> Any:
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                data = context.make_array(signature.args[0])(context, builder, args[0]).data
                return context.make_tuple(builder, row, _load_vector(context, builder, data, args[1], dtype, SHARED))

            return row(array, types.int64), codegen

        return load

    @cache
    def shared_store(dtype: str) -> Callable[..., Any]:
        width = 16 // ITEMSIZE[dtype]
        row = types.UniTuple(POINTEES[dtype], width)

        @intrinsic
        def store(typingctx: Any, array: Any, i: Any, xs: Any) -> Any:
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                data = context.make_array(signature.args[0])(context, builder, args[0]).data
                values = [builder.extract_value(args[2], k) for k in range(width)]
                _store_vector(context, builder, data, args[1], values, dtype, SHARED)
                return context.get_dummy_value()

            return types.void(array, types.int64, row), codegen

        return store

    @cache
    def short_shared(count: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
        row, size = types.UniTuple(types.float32, count), 4 * count

        @intrinsic
        def load(typingctx: Any, array: Any, i: Any) -> Any:
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                data = context.make_array(signature.args[0])(context, builder, args[0]).data
                values = _load_vector(context, builder, data, args[1], "float32", SHARED, size)
                return context.make_tuple(builder, row, values)

            return row(array, types.int64), codegen

        @intrinsic
        def store(typingctx: Any, array: Any, i: Any, xs: Any) -> Any:
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                data = context.make_array(signature.args[0])(context, builder, args[0]).data
                values = [builder.extract_value(args[2], k) for k in range(count)]
                _store_vector(context, builder, data, args[1], values, "float32", SHARED, size)
                return context.get_dummy_value()

            return types.void(array, types.int64, row), codegen

        return load, store

    @cache
    def copy_async(dtype: str, first_level: bool = True) -> Callable[..., Any]:
        itemsize = ITEMSIZE[dtype]

        @intrinsic
        def copy(typingctx: Any, array: Any, i: Any, p: Any, j: Any, valid: Any) -> Any:
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                array_, i_, p_, j_, valid_ = args
                data = context.make_array(signature.args[0])(context, builder, array_).data
                target = builder.ptrtoint(_vector(builder, data, i_, dtype, SHARED), I32)
                source = builder.ptrtoint(_vector(builder, p_, j_, dtype, GLOBAL), ir.IntType(64))
                size = builder.mul(builder.trunc(valid_, I32), ir.Constant(I32, itemsize))
                kind = ir.FunctionType(ir.VoidType(), [I32, ir.IntType(64), I32])
                # .ca: the blocks of a multiprocessor read the same maps, the second one from its first-level cache
                way = "ca.shared.global" if first_level else "cg.shared.global.L2::128B"
                text = f"cp.async.{way} [$0], [$1], 16, $2;"
                builder.call(ir.InlineAsm(kind, text, "r,l,r,~{memory}", side_effect=True), [target, source, size])
                return context.get_dummy_value()

            return types.void(array, types.int64, p, types.int64, types.int64), codegen

        return copy

    @cache
    def staging(dtype: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
        size = 4 * ITEMSIZE[dtype]
        row = types.UniTuple(types.float32, 4)

        # past the first-level cache: lines kept there for what is on its way leave none for anything else
        @intrinsic
        def copy(typingctx: Any, array: Any, i: Any, p: Any, j: Any) -> Any:
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                array_, i_, p_, j_ = args
                data = context.make_array(signature.args[0])(context, builder, array_).data
                target = builder.ptrtoint(_vector(builder, data, i_, dtype, SHARED, 16), I32)
                source = builder.ptrtoint(_vector(builder, p_, j_, dtype, GLOBAL, 16), ir.IntType(64))
                kind = ir.FunctionType(ir.VoidType(), [I32, ir.IntType(64)])
                text = "cp.async.cg.shared.global.L2::128B [$0], [$1], 16;"
                builder.call(ir.InlineAsm(kind, text, "r,l,~{memory}", side_effect=True), [target, source])
                return context.get_dummy_value()

            return types.void(array, types.int64, p, types.int64), codegen

        @intrinsic
        def load(typingctx: Any, array: Any, i: Any) -> Any:
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                data = context.make_array(signature.args[0])(context, builder, args[0]).data
                values = _load_vector(context, builder, data, args[1], dtype, SHARED, size)
                return context.make_tuple(builder, row, values)

            return row(array, types.int64), codegen

        return copy, load

    def _statement(text: str, attrs: tuple[str, ...] = ()) -> Any:
        @intrinsic
        def statement(typingctx: Any) -> Any:
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                kind = ir.FunctionType(ir.VoidType(), [])
                builder.call(ir.InlineAsm(kind, text, "~{memory}", side_effect=True), [], attrs=attrs)
                return context.get_dummy_value()

            return types.void(), codegen

        return statement

    commit_async = _statement("cp.async.commit_group;")
    wait_async = _statement("cp.async.wait_all;")
    wait_async_but_last = _statement("cp.async.wait_group 1;")
    wait_for_launches = _statement("griddepcontrol.wait;")
    next_may_begin = _statement("griddepcontrol.launch_dependents;")

    def _at_barrier(text: str, constraints: str = "r") -> Any:
        """A statement about the 8 bytes at an index of shared memory, and what it is told besides."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            data = context.make_array(signature.args[0])(context, builder, args[0]).data
            address = builder.ptrtoint(
                builder.addrspacecast(builder.gep(data, [args[1]]), ir.PointerType(data.type.pointee, SHARED)), I32
            )
            values = [address, *(builder.trunc(x, I32) if x.type.width > 32 else x for x in args[2:])]
            kind = ir.FunctionType(ir.VoidType(), [I32] * len(values))
            builder.call(ir.InlineAsm(kind, text, f"{constraints},~{{memory}}", side_effect=True), values)
            return context.get_dummy_value()

        if constraints == "r":

            @intrinsic
            def statement(typingctx: Any, array: Any, i: Any) -> Any:
                return types.void(array, types.int64), codegen
        else:

            @intrinsic
            def statement(typingctx: Any, array: Any, i: Any, x: Any) -> Any:
                return types.void(array, types.int64, types.int32), codegen

        return statement

    @cache
    def gathering(threads: int, copies: bool) -> Gathering:
        # with copies each thread comes twice: itself, and what it has copied
        copied = "cp.async.mbarrier.arrive.noinc.shared.b64 [$0]; " if copies else ""
        return Gathering(
            _at_barrier(f"mbarrier.init.shared.b64 [$0], {(1 + copies) * threads};"),
            _at_barrier(f"{{ .reg .b64 s; {copied}mbarrier.arrive.shared.b64 s, [$0]; }}"),
            _at_barrier(
                "{ .reg .pred p; AGAIN: mbarrier.try_wait.parity.shared.b64 p, [$0], $1; @!p bra AGAIN; }", "r,r"
            ),
        )

    @cache
    def meeting(threads: int) -> Callable[..., Any]:
        return _statement(f"barrier.sync 1, {threads};", ("convergent",))
