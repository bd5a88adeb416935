"""The child process of a python grader: takes every way out from itself, then runs the grader's source.

    stdin    {"source", "sample", "item", "memory_bytes", "disk_bytes", "seconds"}
    stdout   {"reward"} or {"error", "details"}, once
    stderr   what the grader prints

    rlimits    memory (address space), file size, CPU time, no core dumps
    Landlock   files: Python and its packages may be read, the working folder written, nothing else opened
               (Linux 5.13; from 6.7 TCP, from 6.12 signals and abstract sockets too)
    seccomp    system calls: no sockets, no processes, no signals, no tracing, no changed limits, no other way in
               (Linux 3.5, x86-64 and ARM64)

Both work without root and cannot be taken back. Run by path with `python -I`, standard library only. Sources: landlock(7),
seccomp(2), the system call tables of Linux; the ARM64 table has not been run.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import struct
import sys
import sysconfig
from pathlib import Path

UNREADABLE, UNPROTECTED = 3, 4
"""Exit codes: the request could not be read; a protection could not be set up, and nothing was run."""

_PR_SET_PDEATHSIG, _PR_GET_SECCOMP, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 21, 22, 38
_FILTER_MODE, _SIGKILL = 2, 9
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_READ = 1 << 2 | 1 << 3  # READ_FILE, READ_DIR
_FILE_RIGHTS = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15  # what a rule on a single file may name

# Denied calls by number. Sockets; exec; signals; tracing; mounts and namespaces; shared memory and queues, which limits do
# not count; kernel features that grow new ways around a filter (io_uring, bpf, userfaultfd, pidfd); limits.
_DENIED = {
    "x86_64": (
        41, 42, 43, 44, 46, 49, 50, 53, 288, 299, 307, 57, 58, 59, 322, 62, 200, 234, 129, 297, 101, 310, 311, 165, 166,
        155, 161, 272, 308, 29, 30, 64, 68, 240, 319, 425, 426, 427, 321, 323, 298, 424, 434, 438, 303, 304, 248, 249, 250,
        175, 313, 246, 320, 169, 160, 302, 428, 429, 430, 431, 432, 433, 442,
    ),
    "aarch64": (
        198, 203, 202, 206, 211, 200, 201, 199, 242, 243, 269, 221, 281, 129, 130, 131, 138, 240, 117, 270, 271, 40, 39,
        41, 51, 97, 268, 194, 196, 190, 186, 180, 279, 425, 426, 427, 280, 282, 241, 424, 434, 438, 264, 265, 217, 218, 219,
        105, 273, 104, 294, 142, 164, 261, 428, 429, 430, 431, 432, 433, 442,
    ),
}  # fmt: skip
_ARCHITECTURE = {"x86_64": (0xC000003E, 56), "aarch64": (0xC00000B7, 220)}  # AUDIT_ARCH and the number of clone
_CLONE3, _CLONE_THREAD = 435, 0x00010000
_EPERM, _ENOSYS = 1, 38


def missing() -> str | None:
    """What this system lacks to run python graders, or None when it has everything."""
    if sys.platform != "linux":
        return "Linux (python graders are isolated by Landlock and seccomp)"
    if platform.machine() not in _DENIED or sys.maxsize < 2**32:
        return f"a filter of system calls for {platform.machine()}"
    if _landlock_version() < 1:
        return "Landlock (Linux 5.13 or newer, with landlock among its security modules)"
    # Fails with EINVAL on a kernel without seccomp.
    return None if _libc().prctl(_PR_GET_SECCOMP, 0, 0, 0, 0) >= 0 else "seccomp"


def isolate(folder: str, *, memory_bytes: int, disk_bytes: int, seconds: float) -> None:
    """Close every way out of this process but files under `folder` and its open descriptors. Raises `OSError`."""
    import resource

    for kind, limit in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, disk_bytes),
        (resource.RLIMIT_CPU, int(seconds) + 2),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))
    libc = _libc()
    # A caller that is killed cannot end its child, and a child that sleeps uses no CPU time.
    _check(libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0), "pdeathsig")
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _restrict_files(folder)
    _restrict_calls()


def main() -> None:
    """Read the request, isolate, grade, answer."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the grader prints must not mix with the answer
    try:
        request = json.loads(sys.stdin.buffer.read())
        source, sample, item = request["source"], request["sample"], request["item"]
        limits = {name: request[name] for name in ("memory_bytes", "disk_bytes", "seconds")}
    except (ValueError, KeyError, RecursionError):
        sys.exit(UNREADABLE)
    try:
        isolate(".", **limits)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.stderr.flush()
        os._exit(UNPROTECTED)
    answer.write(json.dumps(_grade(source, sample, item)).encode())
    answer.flush()
    # Threads and exit handlers of the grader get no further say.
    os._exit(0)


def _grade(source: str, sample: object, item: object) -> dict[str, object]:
    names: dict[str, object] = {"__name__": "grader"}
    try:
        exec(compile(source, "<grader>", "exec"), names)
        grade = names.get("grade")
        if not callable(grade):
            return {"error": "runtime", "details": "the source defines no function grade(sample, item)"}
        value = grade(sample, item)
        if isinstance(value, (str, bytes)) or not hasattr(value, "__float__"):
            return {"error": "runtime", "details": f"grade returned {type(value).__name__}, not a number"}
        reward = float(value)
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
    if version < 1:
        raise OSError("this kernel has no Landlock")
    # Every right that this version knows is denied unless a rule grants it.
    handled = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    attribute = struct.pack("QQQ", handled, 0b11 if version >= 4 else 0, 0b11 if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    libc = _libc()
    ruleset = _check(libc.syscall(_CREATE_RULESET, attribute, size, 0), "landlock_create_ruleset")
    for path in _readable():
        _allow(libc, ruleset, path, _READ & handled)
    _allow(libc, ruleset, "/dev/null", (_READ | 1 << 1) & handled)
    _allow(libc, ruleset, folder, handled & ~(1 << 0))
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


def _restrict_calls() -> None:
    """A filter in classic BPF. Denied calls fail with EPERM; a call of another architecture ends the process."""
    machine = platform.machine()
    architecture, clone = _ARCHITECTURE[machine]
    load, equal, at_least, any_bit, back = 0x20, 0x15, 0x35, 0x45, 0x06
    deny, allow = 0x00050000 | _EPERM, 0x7FFF0000
    program = [(load, 0, 0, 4), (equal, 1, 0, architecture), (back, 0, 0, 0x80000000), (load, 0, 0, 0)]
    if machine == "x86_64":
        program += [(at_least, 0, 1, 0x40000000), (back, 0, 0, deny)]  # the x32 interface has numbers of its own
    for number in _DENIED[machine]:
        program += [(equal, 0, 1, number), (back, 0, 0, deny)]
    # clone3 hides its flags in memory; where it is missing, libc uses clone, whose flags tell a thread from a process.
    program += [(equal, 0, 1, _CLONE3), (back, 0, 0, 0x00050000 | _ENOSYS)]
    program += [(equal, 0, 3, clone), (load, 0, 0, 16), (any_bit, 1, 0, _CLONE_THREAD), (back, 0, 0, deny)]
    program += [(back, 0, 0, allow)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code)))
    _check(_libc().prctl(_PR_SET_SECCOMP, _FILTER_MODE, ctypes.addressof(header), 0, 0), "seccomp")


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
