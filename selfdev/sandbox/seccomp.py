"""The system-call filter of a program: an allow-list.

Three answers besides "allowed": calls a library may try in good faith get an error code, everything that
only an attack needs ends the process on the spot (the parent reads SIGSYS as FORBIDDEN), and whatever is
in neither list is refused with EPERM.
"""

from __future__ import annotations

import errno
import os
import struct
from functools import lru_cache

from selfdev.sandbox import kernel

_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000
_CLONE_THREAD = 0x00010000
_NUMBER, _ARCH = 0, 4  # offsets into struct seccomp_data

# name: (x86_64, aarch64); -1 where an architecture lacks the call.
_ALLOWED = {
    # memory: the working set of a tensor program (mprotect also serves oneDNN's generated kernels)
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "mprotect": (10, 226),
    "madvise": (28, 233),
    "brk": (12, 214),
    "futex": (202, 98),
    # the only descriptors there are: /dev/null as input, the output pipe
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "close": (3, 57),
    "lseek": (8, 62),
    "fstat": (5, 80),
    "poll": (7, -1),
    "ppoll": (271, 73),
    # time, randomness, own identity
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "time": (201, -1),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "getrandom": (318, 278),
    "getrusage": (98, 165),
    "times": (100, 153),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "sysinfo": (99, 179),
    "getcpu": (309, 168),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "getrlimit": (97, 163),
    # own signal handling and threads
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "set_robust_list": (273, 99),
    "set_tid_address": (218, 96),
    "rseq": (334, 293),
    "membarrier": (324, 283),
    "exit": (60, 93),
    "exit_group": (231, 94),
}

_NO_FILE = {  # asked for in good faith by imports and diagnostics: "permission denied"
    "open": (2, -1),
    "openat": (257, 56),
    "openat2": (437, 437),
    "creat": (85, -1),
    "stat": (4, -1),
    "lstat": (6, -1),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "access": (21, -1),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlink": (89, -1),
    "readlinkat": (267, 78),
    "getcwd": (79, 17),
    "getdents64": (217, 61),
    "statfs": (137, 43),
}

_DEADLY = {  # no library reaches for these while it computes
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
    "recvfrom": (45, 207),
    "recvmsg": (47, 212),
    "recvmmsg": (299, 243),
    "fork": (57, -1),
    "vfork": (58, -1),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "kcmp": (312, 272),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "io_setup": (206, 0),
    "io_submit": (209, 2),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "seccomp": (317, 277),
    "unshare": (272, 97),
    "setns": (308, 268),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "personality": (135, 92),
    "setuid": (105, 146),
    "setgid": (106, 144),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "capset": (126, 91),
    "unlink": (87, -1),
    "unlinkat": (263, 35),
    "rename": (82, -1),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "mkdir": (83, -1),
    "mkdirat": (258, 34),
    "rmdir": (84, -1),
    "link": (86, -1),
    "linkat": (265, 37),
    "symlink": (88, -1),
    "symlinkat": (266, 36),
    "mknod": (133, -1),
    "mknodat": (259, 33),
    "truncate": (76, 45),
    "chmod": (90, -1),
    "fchmodat": (268, 53),
    "chown": (92, -1),
    "fchownat": (260, 54),
    "utimensat": (280, 88),
}

_CHECKED = {  # decided by their arguments
    "clone": (56, 220),
    "clone3": (435, 435),
    "kill": (62, 129),
    "tgkill": (234, 131),
    "prlimit64": (302, 261),
    "fcntl": (72, 25),
    "ioctl": (16, 29),
    "prctl": (157, 167),
}

_ANY_PID = 0x7FFFFFF1  # stands for the child's process id in the filter that the server prepares

_DEVICE = {  # a GPU driver's own threads and queues; which files it may open is Landlock's to say
    "eventfd2": (290, 19),
    "pipe2": (293, 59),
    "mlock": (149, 228),
    "munlock": (150, 229),
    "sched_setscheduler": (144, 119),
    "sched_getscheduler": (145, 120),
    "sched_getparam": (143, 121),
    "sched_get_priority_max": (146, 125),
    "sched_get_priority_min": (147, 126),
    "get_mempolicy": (239, 236),
    "mincore": (27, 232),
    "msync": (26, 227),
    "pread64": (17, 67),
    "dup": (32, 23),
    "epoll_wait": (232, -1),
    "epoll_pwait": (281, 22),
}

_Instruction = tuple[int, int, int, int]


def _error(code: int) -> int:
    return _ERROR | code


def _argument(index: int, high: bool = False) -> int:
    """Offset of one half of a system call's argument (both architectures are little-endian)."""
    return 16 + 8 * index + (4 if high else 0)


def _one_of(index: int, values: tuple[int, ...], otherwise: int) -> list[_Instruction]:
    """Allow when the argument's low half is one of `values`."""
    body: list[_Instruction] = [(_LOAD, 0, 0, _argument(index))]
    for value in values:
        body += [(_JUMP_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    return [*body, (_RETURN, 0, 0, otherwise)]


def _clone(threads: bool) -> list[_Instruction]:
    """A thread may be allowed; a process never is."""
    thread = _ALLOW if threads else _error(errno.EAGAIN)
    return [
        (_LOAD, 0, 0, _argument(0)),
        (_JUMP_SET, 0, 1, _CLONE_THREAD),
        (_RETURN, 0, 0, thread),
        (_RETURN, 0, 0, _KILL),
    ]


def _read_own_limits(pid: int) -> list[_Instruction]:
    """prlimit64 may look at the caller's limits, not set them: the new value must be a null pointer."""
    refuse = _error(errno.EPERM)
    return [
        (_LOAD, 0, 0, _argument(2)),
        (_JUMP_EQUAL, 1, 0, 0),
        (_RETURN, 0, 0, refuse),
        (_LOAD, 0, 0, _argument(2, high=True)),
        (_JUMP_EQUAL, 1, 0, 0),
        (_RETURN, 0, 0, refuse),
        *_one_of(0, (0, pid), refuse),
    ]


def _checked(pid: int, threads: bool, device: bool) -> dict[str, list[_Instruction]]:
    get_fd, set_fd, get_flags = 1, 2, 3
    set_name, get_name, set_vma = 15, 16, 0x53564D41
    ioctl = _ALLOW if device else _error(errno.ENOTTY)
    return {
        "clone": _clone(threads),
        "clone3": [(_RETURN, 0, 0, _error(errno.ENOSYS))],  # glibc falls back to clone, whose flags we see
        "kill": _one_of(0, (pid,), _KILL),
        "tgkill": _one_of(0, (pid,), _KILL),
        "prlimit64": _read_own_limits(pid),
        "fcntl": _one_of(1, (get_fd, set_fd, get_flags), _error(errno.EPERM)),
        "ioctl": [(_RETURN, 0, 0, ioctl)],
        "prctl": _one_of(0, (set_name, get_name, set_vma), _error(errno.EPERM)),
    }


def build(machine: str, pid: int, *, threads: bool = False, device: bool = False) -> bytes:
    """The filter for process `pid` as packed BPF records.

    `threads` allows further threads, `device` what a GPU driver needs (open and ioctl; Landlock says where).
    """
    column = {"x86_64": 0, "aarch64": 1}[machine]
    code: list[_Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_JUMP_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_GREATER_EQUAL, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _KILL),
    ]
    files = _ALLOW if device else _error(errno.EACCES)
    extra = _DEVICE if device else {}
    for table, answer in ((_ALLOWED, _ALLOW), (extra, _ALLOW), (_NO_FILE, files), (_DEADLY, _KILL)):
        for numbers in table.values():
            if numbers[column] >= 0:
                code += [(_JUMP_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, answer)]
    for name, body in _checked(pid, threads, device).items():
        code += [(_JUMP_EQUAL, 0, len(body), _CHECKED[name][column]), *body]
    code.append((_RETURN, 0, 0, _error(errno.EPERM)))
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


@lru_cache(maxsize=4)
def template(*, threads: bool, device: bool) -> bytes:
    """The filter with a placeholder for the process id: built once by the server, before it forks."""
    return build(kernel.MACHINE, _ANY_PID, threads=threads, device=device)


def install(filter_template: bytes, every_thread: bool) -> None:
    """Put the filter on the calling process; it cannot be taken off."""
    program = filter_template.replace(struct.pack("I", _ANY_PID), struct.pack("I", os.getpid()))
    kernel.install_filter(program, every_thread)
