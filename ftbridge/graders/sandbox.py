"""The child process of a python grader: takes every way out from itself, then runs the grader's source.

    stdin    the length of the request, the request, a seal, then the end
    stdout   {"reward"} or {"error", "details"}, with the seal, once; the process then waits for the end of stdin, so that it
             can be looked at

The request is {"source", "sample", "item", "memory_bytes", "disk_bytes", "seconds", "caller"}. The seal is read only after the
grader has returned: what the grader itself writes where the answer is expected has none, and is not an answer.
    stderr   what the grader prints

    rlimits        memory (address space), file size, open files, CPU time, no core dumps
    capabilities   none, which matters for root
    Landlock       files: Python and its packages may be read, the working folder written, nothing else opened
                   (from its third version, Linux 6.2: before, a file of the user could be cut to nothing)
    seccomp        system calls: no sockets but a pair of its own, no processes, no signals, no tracing, no changed limits,
                   modes, times, priorities or affinities (Linux 3.5, x86-64 and ARM64)

What is counted rather than forbidden (bytes and files on disk, threads, seconds) is watched by the caller; see python.py.
Neither keeps the grader from learning that a file exists, and how large it is: stat needs no right.

All of it works without root and cannot be taken back. Run by path with `python -I`, standard library only. Sources:
landlock(7), seccomp(2), capabilities(7), the system call tables of Linux; the ARM64 table has not been run.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import struct
import sys
import sysconfig
import types
from pathlib import Path

HEAD_BYTES, SEAL_BYTES = 16, 32
"""Of the request's length, in decimal digits, and of the seal."""
UNREADABLE, UNPROTECTED = 3, 4
"""Exit codes: the request could not be read; a protection could not be set up, and nothing was run."""
OLDEST_LANDLOCK = 3
"""Of version 3 on (Linux 6.2), Landlock also keeps files from being cut to nothing."""

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_GET_SECCOMP, _PR_SET_SECCOMP, _PR_CAPBSET_DROP = 1, 4, 21, 22, 24
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_SET_PTRACER = 38, 47, 0x59616D61
_CAPABILITY_VERSION_3 = 0x20080522
_FILTER_MODE, _SIGKILL = 2, 9
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_READ = 1 << 2 | 1 << 3  # READ_FILE, READ_DIR
_FILE_RIGHTS = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15  # what a rule on a single file may name
_NEVER = (
    1 << 0 | 1 << 6 | 1 << 9 | 1 << 11
)  # EXECUTE, MAKE_CHAR, MAKE_SOCK, MAKE_BLOCK: not in the working folder either
_OPEN_FILES = 256

# Denied calls: name, number on x86-64 and on ARM64 (None where there is no such call).
_DENIED: dict[str, tuple[int | None, int | None]] = {
    # sockets, but for a pair that is connected to itself
    "socket": (41, 198), "connect": (42, 203), "accept": (43, 202), "sendmsg": (46, 211), "bind": (49, 200),
    "listen": (50, 201), "accept4": (288, 242), "recvmmsg": (299, 243), "sendmmsg": (307, 269),
    # processes, signals, tracing
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "kill": (62, 129),
    "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "process_madvise": (440, 440),
    "process_mrelease": (448, 448), "setpgid": (109, 154), "setsid": (112, 157), "personality": (135, 92),
    # priorities and affinity, of others too
    "setpriority": (141, 140), "sched_setparam": (142, 118), "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122), "sched_setattr": (314, 274), "ioprio_set": (251, 30), "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # modes, owners, times and attributes of files: Landlock has no right for them
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "chown": (92, None), "fchown": (93, 55),
    "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None), "futimesat": (261, None),
    "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14),
    "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    # watching other people's files
    "inotify_init": (253, None), "inotify_add_watch": (254, 27), "inotify_init1": (294, 26), "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263), "flock": (73, 32),
    # mounts and namespaces
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    # memory that limits do not count
    "shmget": (29, 194), "shmat": (30, 196), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "mlock": (149, 228), "mlockall": (151, 230),
    "mlock2": (325, 284), "io_setup": (206, 0), "vmsplice": (278, 75),
    # kernel features with ways around a filter
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "bpf": (321, 280),
    "userfaultfd": (323, 282), "perf_event_open": (298, 241), "seccomp": (317, 277), "modify_ldt": (154, None),
    "remap_file_pages": (216, 234), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    # keys, modules, the whole machine
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "reboot": (169, 142), "syslog": (103, 116), "sync": (162, 81), "syncfs": (306, 267), "acct": (163, 89),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "sethostname": (170, 161), "swapon": (167, 224),
    # limits
    "setrlimit": (160, 164), "prlimit64": (302, 261),
}  # fmt: skip
_MACHINES = ("x86_64", "aarch64")
_ARCHITECTURE = (0xC000003E, 0xC00000B7)  # AUDIT_ARCH
# Calls of which some uses are harmless: number on x86-64 and on ARM64.
_CLONE, _FCNTL, _IOCTL, _PRCTL, _SOCKETPAIR, _SENDTO = (56, 220), (72, 25), (16, 29), (157, 167), (53, 199), (44, 206)
_CLONE3, _OPENAT2, _NEWEST = 435, 437, 451  # the same everywhere; from 451 on, calls are younger than this list
_CLONE_THREAD = 0x00010000
_FCNTLS = (8, 10, 15, 1024, 1026, 1031)  # F_SETOWN, F_SETSIG, F_SETOWN_EX (signals); F_SETLEASE, F_NOTIFY; F_SETPIPE_SZ
_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451, 0x40049409)
"""The only ones that pass: TCGETS, TIOCGWINSZ (is it a terminal, how wide), FIONREAD, FIONBIO, FIONCLEX, FIOCLEX, FICLONE."""
_PRCTLS = (_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_PTRACER)
_EPERM, _ENOSYS = 1, 38


def missing() -> str | None:
    """What this system lacks to run python graders, or None when it has everything."""
    if sys.platform != "linux":
        return "Linux (python graders are isolated by Landlock and seccomp)"
    if platform.machine() not in _MACHINES or sys.maxsize < 2**32:
        return f"a filter of system calls for {platform.machine()}"
    if (version := _landlock_version()) < OLDEST_LANDLOCK:
        has = f"; this one has version {version}, which does not protect files from being cut" if version > 0 else ""
        return (
            f"Landlock of version {OLDEST_LANDLOCK} (Linux 6.2 or newer, with landlock among its security modules{has})"
        )
    # Fails with EINVAL on a kernel without seccomp.
    return None if _libc().prctl(_PR_GET_SECCOMP, 0, 0, 0, 0) >= 0 else "seccomp"


def isolate(folder: str, *, memory_bytes: int, disk_bytes: int, seconds: float, caller: int) -> None:
    """Close every way out of this process but files under `folder` and its open descriptors. Raises `OSError`.

    `caller` is the process that started this one: without it, nothing would end the grader, so nothing is run.
    """
    import resource

    for kind, limit in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, disk_bytes),
        (resource.RLIMIT_CPU, int(seconds) + 2),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):
        resource.setrlimit(kind, (limit, limit))
    libc = _libc()
    # A caller that is killed cannot end its child, and a child that sleeps uses no CPU time.
    _check(libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0), "pdeathsig")
    if os.getppid() != caller:
        raise OSError("the process that wanted this grade has ended")
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _drop_capabilities(libc)
    _restrict_files(folder)
    _restrict_calls()


def main() -> None:
    """Read the request, isolate, grade, answer."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the grader prints must not mix with the answer
    caller = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        request = json.loads(_take(caller, int(_take(caller, HEAD_BYTES))))
        source, sample, item = request["source"], request["sample"], request["item"]
        limits = {name: request[name] for name in ("memory_bytes", "disk_bytes", "seconds", "caller")}
    except (ValueError, KeyError, RecursionError):
        sys.exit(UNREADABLE)
    try:
        isolate(".", **limits)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.stderr.flush()
        os._exit(UNPROTECTED)
    result = _grade(source, sample, item)
    output.write(json.dumps({**result, "seal": _take(caller, SEAL_BYTES).decode()}).encode())
    output.close()
    os.read(caller, 1)  # until the caller has looked at what the grader left
    # Threads and exit handlers of the grader get no further say.
    os._exit(0)


def _take(descriptor: int, size: int) -> bytes:
    """Exactly so many bytes, none ahead of them; fewer at the end."""
    taken = b""
    while len(taken) < size and (piece := os.read(descriptor, min(size - len(taken), 1 << 20))):
        taken += piece
    return taken


def _grade(source: str, sample: object, item: object) -> dict[str, object]:
    # A module of its own, and listed: dataclasses, pydantic and typing look their classes' modules up there.
    module = types.ModuleType("grader")
    sys.modules["grader"] = module
    try:
        exec(compile(source, "<grader>", "exec", dont_inherit=True), module.__dict__)
        grade = module.__dict__.get("grade")
        if not callable(grade):
            return {"error": "runtime", "details": "the source defines no function grade(sample, item)"}
        value = grade(sample, item)
        if isinstance(value, (str, bytes)) or not hasattr(value, "__float__"):
            return {"error": "runtime", "details": f"grade returned {type(value).__name__}, not a number"}
        reward = float(value)  # an int that is too large raises OverflowError here
        if reward != reward or reward in (float("inf"), float("-inf")):
            return {"error": "runtime", "details": f"grade returned {reward}, not a finite number"}
        return {"reward": reward}
    except BaseException as error:
        return {"error": "runtime", "details": _told(error)}


def _told(error: BaseException) -> str:
    """The error and where in the grader's source it came up; at most 2,000 characters."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<grader>":
            line = trace.tb_lineno
        trace = trace.tb_next
    if isinstance(error, SyntaxError):
        line = error.lineno
    try:
        text = f"{type(error).__name__}: {error}"[:2000]
    except BaseException:
        text = type(error).__name__
    return text if line is None else f"line {line}: {text}"


def _restrict_files(folder: str) -> None:
    version = _landlock_version()
    if version < OLDEST_LANDLOCK:
        raise OSError(f"this kernel's Landlock has version {version}; {OLDEST_LANDLOCK} is needed")
    # Every right that this version knows is denied unless a rule grants it.
    handled = (1 << (15 if version < 5 else 16)) - 1
    attribute = struct.pack("QQQ", handled, 0b11 if version >= 4 else 0, 0b11 if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    libc = _libc()
    ruleset = _check(libc.syscall(_CREATE_RULESET, attribute, size, 0), "landlock_create_ruleset")
    for path in _readable():
        _allow(libc, ruleset, path, _READ & handled)
    _allow(libc, ruleset, "/dev/null", (_READ | 1 << 1) & handled)
    _allow(libc, ruleset, folder, handled & ~_NEVER)
    _check(libc.syscall(_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    os.close(ruleset)


def _readable() -> set[str]:
    """Python, its packages, and the libraries and zones of the system."""
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths |= {f"{prefix}/lib" for prefix in (sys.prefix, sys.base_prefix)}
    paths |= {path for path in sys.path if path.endswith(("/site-packages", "/dist-packages"))}
    paths |= {"/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache"}
    paths |= {f"{prefix}/nltk_data" for prefix in (sys.prefix, "/usr/share", "/usr/local/share")}
    paths |= {"/dev/urandom", "/dev/random", "/dev/zero"}
    return {os.path.realpath(path) for path in paths if path and Path(path).exists()}


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    if not Path(path).is_dir():
        rights &= _FILE_RIGHTS
    _check(libc.syscall(_ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, descriptor), 0), f"landlock_add_rule {path}")
    os.close(descriptor)


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Nothing that root may do more than others: no capability now, none to be had again. Raises `OSError`."""
    for capability in range(64):
        if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break  # not root, who has none to drop; or past the last one
    libc.prctl(_PR_CAP_AMBIENT, 4, 0, 0, 0)  # PR_CAP_AMBIENT_CLEAR_ALL
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    _check(libc.capset(header, struct.pack("6I", *[0] * 6)), "capset")


Step = tuple[int, int, int, int]
"""An instruction of classic BPF: code, jump if true, jump if false, operand."""
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_DENY, _ALLOW, _KILL, _UNKNOWN = (
    (_RETURN, 0, 0, 0x00050000 | _EPERM),
    (_RETURN, 0, 0, 0x7FFF0000),
    (_RETURN, 0, 0, 0x80000000),
    (_RETURN, 0, 0, 0x00050000 | _ENOSYS),
)


def _restrict_calls() -> None:
    """A filter in classic BPF. Denied calls fail with EPERM; a call of another architecture ends the process."""
    architecture = _MACHINES.index(platform.machine())
    program: list[Step] = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, _ARCHITECTURE[architecture]), _KILL, (_LOAD, 0, 0, 0)]
    # Calls that are younger than this list, and on x86-64 those of the x32 interface, which has numbers of its own.
    program += [(_AT_LEAST, 0, 1, _NEWEST), _UNKNOWN]
    for numbers in _DENIED.values():
        if (number := numbers[architecture]) is not None:
            program += [(_EQUAL, 0, 1, number), _DENY]
    # clone3 and openat2 hide their flags in memory; where they are missing, libc uses clone and openat.
    for number in (_CLONE3, _OPENAT2):
        program += [(_EQUAL, 0, 1, number), _UNKNOWN]
    program += _case(
        _CLONE[architecture], [_argument(0), (_ANY_BIT, 1, 0, _CLONE_THREAD), _DENY, _ALLOW]
    )  # threads alone
    for numbers, index, uses, then, otherwise in (
        (_FCNTL, 1, _FCNTLS, _DENY, _ALLOW),
        (_PRCTL, 0, _PRCTLS, _DENY, _ALLOW),
        (_IOCTL, 1, _IOCTLS, _ALLOW, _DENY),
    ):
        tests = [step for use in uses for step in ((_EQUAL, 0, 1, use), then)]
        program += _case(numbers[architecture], [_argument(index), *tests, otherwise])
    # What an event loop wakes itself with: a pair of streams, written to without an address.
    stream = [_argument(0), (_EQUAL, 1, 0, 1), _DENY, _argument(1), (_AND, 0, 0, 0xF), (_EQUAL, 1, 0, 1), _DENY, _ALLOW]
    program += _case(_SOCKETPAIR[architecture], stream)
    no_address = [_argument(4), (_EQUAL, 1, 0, 0), _DENY, _argument(4, high=True), (_EQUAL, 1, 0, 0), _DENY, _ALLOW]
    program += _case(_SENDTO[architecture], no_address)
    program.append(_ALLOW)
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code)))
    _check(_libc().prctl(_PR_SET_SECCOMP, _FILTER_MODE, ctypes.addressof(header), 0, 0), "seccomp")


def _case(number: int, steps: list[Step]) -> list[Step]:
    """Steps for one call; every way through them returns."""
    return [(_EQUAL, 0, len(steps), number), *steps]


def _argument(index: int, *, high: bool = False) -> Step:
    """Load half of an argument of the call; both machines are little-endian."""
    return (_LOAD, 0, 0, 16 + 8 * index + 4 * high)


def _landlock_version() -> int:
    return int(_libc().syscall(_CREATE_RULESET, None, 0, 1))


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
    return libc


def _check(result: int, what: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
    return result


if __name__ == "__main__":
    main()
