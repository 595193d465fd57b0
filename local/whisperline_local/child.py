"""Run a command that cannot outlive its parent: `python -I -S child.py PARENT SIGNAL UID COMMAND...`.

Linux sends SIGNAL to the command when the thread that started it dies (`prctl(2)`, PR_SET_PDEATHSIG), even if
that thread's process was killed with SIGKILL. This is a program of its own because running Python between fork and
exec (`preexec_fn`) can deadlock in a process that has threads. It imports nothing but the standard library, since
every service waits for these imports first.
"""

import ctypes
import os
import pwd
import sys

PR_SET_PDEATHSIG = 1
KEEP_USER = -1


def main(parent: str, signal_number: str, uid: str, *command: str) -> None:
    """Replace this process by `command`, tied to `parent` (a process id) and run as user id `uid`."""
    # Change the user first, because that would clear the death signal.
    if (user_id := int(uid)) != KEEP_USER:
        group_id = pwd.getpwuid(user_id).pw_gid
        os.setgroups([])
        os.setresgid(group_id, group_id, group_id)
        os.setresuid(user_id, user_id, user_id)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != int(parent):
        sys.exit("the parent died before its child was tied to it")
    os.execvp(command[0], command)  # noqa: S606 - to run without a shell is what this is for


if __name__ == "__main__":
    main(*sys.argv[1:])
