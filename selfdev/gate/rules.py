"""What the gate lets through, as plain lists. The kernel layers of the sandbox do not rely on them."""

from __future__ import annotations

import re

# Top-level packages a program may import; `torch` and `math` are at hand without an import.
MODULES = {
    *("torch", "numpy", "math", "cmath", "re", "copy", "collections", "itertools", "functools", "typing"),
    *("dataclasses", "abc", "enum", "random", "statistics", "heapq", "bisect", "numbers", "warnings"),
    *("__future__", "typing_extensions"),
}
SUBMODULES = {
    *("collections.abc", "numpy.linalg", "numpy.random", "numpy.fft", "numpy.typing"),
    *("torch.nn", "torch.nn.functional", "torch.nn.init", "torch.nn.utils", "torch.linalg", "torch.fft"),
    *("torch.special", "torch.func", "torch.autograd", "torch.distributions", "torch.optim", "torch.types"),
    *("torch.nn.parameter", "torch.nn.modules", "torch.amp", "torch.cuda", "torch.cuda.amp"),
}

# Attribute names that lead out of tensors: modules in modules, files, code loading, interpreter internals.
ATTRIBUTES = {
    *("os", "sys", "io", "subprocess", "socket", "ctypes", "importlib", "builtins", "inspect", "types", "gc"),
    *("shutil", "pathlib", "tempfile", "pickle", "threading", "multiprocessing", "signal", "platform"),
    *(
        "linecache",
        "traceback",
        "tokenize",
        "zipfile",
        "glob",
        "urllib",
        "atexit",
        "code",
        "codeop",
        "operator",
    ),
    *("hub", "ops", "classes", "package", "jit", "library", "distributed", "serialization"),
    *("cpp_extension", "onnx", "export", "profiler", "fx", "storage", "overrides", "model_zoo"),
    *("data_ptr", "untyped_storage", "set_", "share_memory_", "ctypeslib", "f2py", "DataSource"),
    *("load", "save", "savez", "savez_compressed", "savetxt", "loadtxt", "genfromtxt", "fromregex", "memmap"),
    *("open_memmap", "fromfile", "tofile", "from_file", "load_library", "load_inline", "dump", "dumps"),
    *("load_state_dict_from_url", "download_url_to_file", "from_buffer", "frombuffer", "dlopen"),
    *("gi_frame", "gi_code", "cr_frame", "cr_code", "ag_frame", "ag_code", "f_globals", "f_locals", "f_back"),
    *("f_builtins", "f_code", "tb_frame", "tb_next", "co_code", "func_globals", "mro", "with_traceback"),
    *("get_type_hints", "ForwardRef", "addaudithook", "meta_path", "exec_module", "system", "popen"),
    *("set_num_threads", "set_num_interop_threads", "_C", "_os", "_sys", "_ops", "_dynamo", "_inductor"),
    *("_jit_internal", "_utils_internal", "_lazy_modules", "_import_structure", "_warnings", "_functools"),
    # Modules that allowed modules carry, found by walking them: tests/test_gate_reach.py.
    *("bltns", "stdlib_re", "codecs", "contextvars", "copyreg", "logging", "json", "dill", "weakref", "uuid"),
    *("mp", "python_multiprocessing", "concurrent", "futures", "queue", "datapipes", "dataloader"),
    *("collect_env", "distributed_c10d", "profiler_util", "hashlib", "time", "datetime", "locale"),
    *("testing", "benchmark", "bottleneck", "exec", "open", "open_code", "xpu", "find_spec", "DataLoader"),
}

# Names that reach the interpreter instead of tensors.
NAMES = {
    *("open", "exec", "eval", "compile", "__import__", "globals", "locals", "vars", "input", "breakpoint"),
    *("setattr", "delattr", "help", "exit", "quit", "memoryview", "__builtins__", "__loader__", "__spec__"),
}
FORMATS = {"format", "format_map"}  # methods of strings that walk attributes
DUNDER_ATTRIBUTES = {"__init__", "__name__", "__version__", "__len__", "__post_init__"}
DUNDER_METHODS = {
    *(
        "__init__",
        "__call__",
        "__len__",
        "__iter__",
        "__next__",
        "__getitem__",
        "__setitem__",
        "__contains__",
    ),
    *("__repr__", "__str__", "__eq__", "__hash__", "__lt__", "__add__", "__sub__", "__mul__", "__enter__"),
    *("__exit__", "__post_init__", "__bool__", "__neg__", "__truediv__", "__matmul__"),
}
DUNDER_TEXT = re.compile(
    r"__(class|globals|subclasses|builtins|import|mro|base|bases|dict|code|closure|getattribute|reduce|"
    r"reduce_ex|loader|spec|self|func|wrapped|module)__"
)

# Builtins that may be called while the program is being defined (constants, defaults, decorators).
PURE_BUILTINS = {
    *("dict", "list", "tuple", "set", "frozenset", "float", "int", "str", "bool", "complex", "range", "len"),
    *("min", "max", "sum", "abs", "round", "sorted", "reversed", "enumerate", "zip", "slice", "object"),
    *("staticmethod", "classmethod", "property", "super", "isinstance", "pow", "divmod", "any", "all"),
}

# Decorators, by the last part of where they come from, that do not call what they are put on.
DECORATORS = {
    *(
        "staticmethod",
        "classmethod",
        "property",
        "cached_property",
        "abstractmethod",
        "dataclass",
        "overload",
    ),
    *("lru_cache", "cache", "total_ordering", "unique", "final", "runtime_checkable", "no_type_check"),
    *("no_grad", "inference_mode", "enable_grad", "set_grad_enabled", "autocast", "vmap", "grad"),
    *("custom_fwd", "custom_bwd", "once_differentiable"),
}
