"""Runs a command at a terminal of its own, and types keys there.

    terminal.py [EXPECTED TYPED]... -- COMMAND...

Once the terminal shows an EXPECTED text, its TYPED keys are typed; backslashes escape as in
Python. If the terminal then shows nothing for some seconds, the keys are typed once more, as
a person would: a program that is stopped and continued at its prompt may discard a line, and
ssh misses a Ctrl-C between its prompt and its read. Everything that the terminal shows goes to
standard output. The exit code is that of the command, or 99 if an EXPECTED text did not appear.
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
        print(shown, "\nno more output", steps)
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
