"""Runs a command at a terminal of its own, and types what is to be typed there.

    terminal.py [EXPECTED TYPED]... -- COMMAND...

Each EXPECTED is waited for in what the terminal shows before its TYPED, in which
backslashes escape as in Python, is typed. A program that is stopped and continued at
its prompt may discard a line, and ssh misses a Ctrl-C between its prompt and its read.
So keys are typed once more, as a person would, if the terminal shows nothing for some
seconds. All that is shown goes to the standard output. Exits as the command does, or with 99 if something expected does not come.
"""

import os
import pty
import select
import sys
import time

PATIENCE_SECS = 60
TYPE_AGAIN_SECS = 8

at = sys.argv.index("--")
words, command = sys.argv[1:at], sys.argv[at + 1:]
steps = list(zip(words[::2], words[1::2]))

pid, terminal = pty.fork()
if pid == 0:
    os.execvp(command[0], command)

shown = ""
keys = b""
deadline = time.monotonic() + PATIENCE_SECS
while True:
    left = max(0, deadline - time.monotonic())
    patience = min(left, TYPE_AGAIN_SECS) if keys else left
    ready, _, _ = select.select([terminal], [], [], patience)
    if not ready and keys:
        os.write(terminal, keys)
        keys = b""
        continue
    if not ready:
        print(shown, "\nnothing more came", steps)
        os.kill(pid, 9)
        sys.exit(99)
    try:
        got = os.read(terminal, 65536)
    except OSError:
        break
    if not got:
        break
    shown += got.decode(errors="replace")
    while steps and steps[0][0] in shown:
        expected, typed = steps.pop(0)
        before, _, shown = shown.partition(expected)
        sys.stdout.write(before + expected)
        keys = typed.encode().decode("unicode_escape").encode()
        os.write(terminal, keys)

sys.stdout.write(shown)
_, status = os.waitpid(pid, 0)
code = os.waitstatus_to_exitcode(status)
sys.exit(99 if steps else code % 256)
