# ruff: noqa: E501 - one attack per line reads best
"""Attacks found later, in the form of `hostile`: native code, kernel objects, less known corners of torch,
numpy and the standard library, and results that are not what they seem."""

from __future__ import annotations

from hostile import RAW, Attack, B, C, F, L, M, N, R, S, T, _raw

NATIVE = (
    RAW
    + """
libc.mmap.restype = ctypes.c_void_p
page = libc.mmap(None, 4096, 7, 34, -1, 0)
def native(code):
    ctypes.memmove(page, bytes.fromhex(code), len(code) // 2)
    return ctypes.CFUNCTYPE(ctypes.c_long)(page)()
"""
)

NATIVE_CODE = [
    # mov eax, 20; int 0x80: the 32-bit table, in which the same numbers are other calls
    Attack("32-bit system call", NATIVE + "native('b814000000cd80c3')", F, (S,)),
    Attack("32-bit socket call", NATIVE + "native('b867010000bb02000000b90100000031d2cd80c3')", F, (S,)),
    Attack(
        "fork in machine code", NATIVE + "if native('b8390000000f05c3') == 0:\n    libc._exit(0)", F, (S,)
    ),
    _raw("x32 open", "call(0x40000002, b'@CANARY@', 0, 0)", (S, L)),
    _raw("x32 getpid", "call(0x40000027)", (S,)),
    _raw("clone sharing memory", "if call(56, 0x4111, 0, 0, 0, 0) == 0:\n    libc._exit(0)", (S,)),
    _raw("clone3", "if call(435, (ctypes.c_ulong * 11)(0, 0, 0, 0, 17), 88) == 0:\n    libc._exit(0)", (S,)),
    _raw("program in a memory file", "call(322, call(319, b'x', 0), b'', 0, 0, 0x1000)", (S, R)),
    _raw(
        "handler for the killing signal",
        "libc.signal(31, ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda n: None))\ncall(41, 2, 1, 0)",
        (S, R),
    ),
]

KERNEL = [
    _raw("descriptor of a process", "import os\ncall(434, os.getpid(), 0)", (S, R)),
    _raw("signal by descriptor", "call(424, 3, 9, 0, 0)", (S,)),
    _raw("page faults in user space", "call(323, 1)", (S, R)),
    _raw("secret memory", "call(447, 0)", (S, R)),
    _raw("ring of system calls", "call(426, 0, 1, 0, 0, 0, 0)", (S,)),
    _raw("watch files", "call(253)", (S, R)),
    _raw("kernel log", "assert call(103, 10, 0, 0) < 0", (S,)),
    _raw("page cache", "call(27, 0, 0, 0)", (S,)),
    _raw("timer", "call(38, 0, (ctypes.c_long * 4)(0, 1, 0, 1), 0)", (S,)),
    _raw("become dumpable", "call(157, 4, 1, 0, 0, 0)", (S,)),
    _raw("outlive the server", "call(157, 1, 0, 0, 0, 0)", (S,)),
    _raw("adopt orphans", "call(157, 36, 1, 0, 0, 0)", (S,)),
    _raw("be root again", "call(117, 0, 0, 0)\nopen('@CANARY@', 'w')", (S,)),
    _raw("a second filter", "call(317, 1, 0, 0)", (S,)),
    _raw("larger pipe", "call(72, 1, 1031, 1 << 20)", (S,)),
    _raw("signals from the pipe", "call(72, 1, 8, @PARENT@)", (S, N)),
    _raw("type on the terminal", "call(16, 0, 0x5412, b'x')", (S,)),
    _raw("another descriptor", "call(32, 1)", (S, R)),
    _raw("fast lane", "call(144, 0, 1, (ctypes.c_int * 1)(50))", (S,)),
    _raw("every signal to everybody", "call(62, -1, 9)", (S,)),
    _raw("signal to the group of the caller", "call(62, -@PARENT@, 9)", (S, L, N)),
    _raw("clock", "call(227, 0, (ctypes.c_long * 2)(0, 0))", (S,)),
    _raw("name of the machine", "call(170, b'x', 1)", (S,)),
    Attack(
        "shared memory without a file",
        RAW
        + "libc.mmap.restype = ctypes.c_void_p\nfor _ in range(80):\n    p = libc.mmap(None, 10**8, 3, 33, -1, 0)\n    if p in (None, 2**64 - 1):\n        raise MemoryError\n    ctypes.memset(p, 1, 10**8)",
        F,
        (R,),
    ),
    Attack("stop itself", "import os\nos.kill(os.getpid(), 19)\nwhile True: pass", F, endless=True),
]

CORNERS = [
    Attack("storage of a file", "torch.UntypedStorage.from_file('@CANARY@', True, 4).fill_(0)", F, (S, L, N, R)),
    Attack("memory as a file", "torch.from_file('/proc/self/mem', shared=True, size=1)", F, (S, L, N, R)),
    Attack("shared tensor", "torch.ones(4).share_memory_()", F, (S, L, N)),
    Attack("file store", "torch.distributed.FileStore('@FOLDER@/made', 1)", F),
    Attack("kernel profile", "with torch.autograd.profiler.profile() as p:\n    torch.ones(3) + 1\np.export_chrome_trace('@FOLDER@/made')", C, (S,)),
    Attack("compiler", "torch.compile(lambda x: x + 1)(torch.ones(3))", C),
    Attack("package", "from torch.package import PackageExporter\nPackageExporter('@FOLDER@/made')", C),
    Attack("data loader's processes", "list(torch.utils.data.DataLoader([1, 2, 3], num_workers=2))", F),
    Attack("log to a file", "torch.autograd.graph.logging.FileHandler('@FOLDER@/made')", F, (S, L, N, R)),
    Attack("builtins of enum of re of typing", "import typing\ntyping.stdlib_re.enum.bltns.open('@CANARY@')", F, (S, L, N, R)),
    Attack("text run by numpy", "import numpy as np\nnp.testing.runstring('open(\"@CANARY@\")', {})", C),
    Attack("frame of a coroutine", "async def f(): pass\nf().cr_frame.f_builtins['open']('@CANARY@')", F, (S, L, N, R)),
    Attack("reduce to builtins", "import functools\nfunctools.reduce(getattr, ['__builtins__'], torch)['open']('@CANARY@')", F, (S, L, N, R)),
    Attack("finalizer that fails", "import sys\nsys.unraisablehook = lambda *_: open('@FOLDER@/made', 'w')\nclass D:\n    def __del__(self): raise ValueError\nD()\nraise KeyError", F),
    Attack("fault handler that goes on", RAW + "libc.signal(11, ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda n: None))\nctypes.string_at(1)", F, endless=True),
    Attack("tracebacks without end", "import faulthandler\nwhile True: faulthandler.dump_traceback()", C),
    Attack("answer in the server's name", "import gc\nfor o in gc.get_objects():\n    if type(o).__name__ == 'Control':\n        o.send({'exit': 0})\nraise KeyError", C),
]  # fmt: skip

DISGUISED = [
    Attack("lying shape", "class X(torch.Tensor):\n    shape = property(lambda s: (8, 6))\n    def is_floating_point(s): return True\nreturn {n: torch.ones(1).as_subclass(X) for n in seed}", B),
    Attack("quantised", "return {n: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.quint8) for n, t in seed.items()}", B),
    Attack("nested", "return {n: torch.nested.nested_tensor([t, t]) for n, t in seed.items()}", C),
    Attack("no dimension", "return {n: torch.tensor(1.0) for n in seed}", B),
    Attack("four bits", "return {n: torch.zeros(8, 6, dtype=torch.uint8).view(torch.float4_e2m1fn_x2) for n in seed}", C),
    Attack("beyond its memory", "return {n: torch.as_strided(t, (8, 6), (10**6, 1)) for n, t in seed.items()}", C),
    Attack("conjugate", "return {n: torch.complex(t.float(), t.float()).conj() for n, t in seed.items()}", B),
    Attack("no dict", "import collections\nreturn collections.UserDict(seed)", B),
    Attack("a dict that leaves", "class D(dict):\n    def __contains__(self, k): raise SystemExit(0)\nreturn D(seed)", C),
    Attack("leaves well", "raise SystemExit(0)", C),
    Attack("interrupt", "raise BaseExceptionGroup('x', [KeyboardInterrupt()])", C),
    Attack("text that turns around", "raise ValueError('\\u202e\\u2066abc\\u200b')", C),
    Attack("result too large for memory", "return {n: t.double().repeat(10**4, 10**4) for n, t in seed.items()}", M),
    Attack("result that never ends", "class D(dict):\n    def __iter__(self):\n        while True: yield 'x'\nreturn D(seed)", T),
]  # fmt: skip

FUNCTION = "def maker():\n    use = int\n    def f(): return use('@CANARY@')\n    return f\nf = maker()\n"

CLOSURES = [
    Attack("globals of the function itself", "merge_models.__globals__['__builtins__'].open('@CANARY@')", F, (S, L, N, R)),
    Attack("globals of a lambda", "(lambda: 0).__globals__['__builtins__'].__import__('os').listdir('@FOLDER@')", F, (S, L, N, R)),
    Attack("builtins of a function", "(lambda: 0).__builtins__['open']('@CANARY@')", F, (S, L, N, R)),
    Attack("cell put to open", FUNCTION + "f.__closure__[0].cell_contents = f.__builtins__['open']\nf()", F, (S, L, N, R)),
    Attack("cell of a library", "import functools\ncells = functools.singledispatch(len).__closure__\ninner = [c.cell_contents for c in cells if hasattr(c.cell_contents, '__globals__')]\ninner[0].__globals__['__builtins__']['open']('@CANARY@')", F, (S, L, N, R)),
    Attack("function wrapped by a decorator", "g = torch.no_grad()(lambda: 0)\ncells = [c.cell_contents for c in g.__closure__]\n[c for c in cells if hasattr(c, '__globals__')][0].__globals__['__builtins__']['open']('@CANARY@')", F, (S, L, N, R)),
    Attack("names of a code object", "def f(): return int('@CANARY@')\nf.__code__ = f.__code__.replace(co_names=('open',))\nf()", F, (S, L, N, R)),
    Attack("own code in a library's globals", "def f(): return os.listdir('@FOLDER@')\ntype(f)(f.__code__, torch.hub.load.__globals__)()", F, (S, L, N, R)),
    Attack("function with a made cell", FUNCTION + "import builtins\ncell = type(f.__closure__[0])(builtins.open)\ntype(f)(f.__code__, {}, 'g', None, (cell,))()", F, (S, L, N, R)),
    Attack("defaults of a function", "def f(use=int): return use('@CANARY@')\nf.__defaults__ = (f.__builtins__['open'],)\nf()", F, (S, L, N, R)),
    Attack("cells of the hook", "import gc\nfor o in gc.get_objects():\n    if getattr(o, '__name__', '') == 'hook' and getattr(o, '__closure__', None):\n        for c in o.__closure__:\n            c.cell_contents = ('@CANARY@',) if type(c.cell_contents) is tuple else print\nopen('@CANARY@')", F, (S, L, N, R)),
    Attack("frame behind a generator's closure", "def g():\n    yield g\nnext(g()).__globals__['torch'].__dict__['os'].listdir('@FOLDER@')", F, (S, L, N, R)),
    Attack("code of a function of torch", "torch.nn.functional.relu.__code__ = (lambda *a, **k: 1 / 0).__code__\ntorch.nn.functional.relu(torch.ones(1))", C),
]  # fmt: skip

BY_CLASS = {
    "native": NATIVE_CODE,
    "kernel": KERNEL,
    "corners": CORNERS,
    "disguised": DISGUISED,
    "closures": CLOSURES,
}
