"""Runs a command at a terminal of its own, and types what is to be typed there.

    terminal.py [EXPECTED TYPED]... -- COMMAND...

Each EXPECTED is waited for in what the terminal shows before its TYPED, in which
backslashes escape as in Python, is typed. All that is shown goes to the standard
output. Exits as the command does, or with 99 if something expected does not come.
"""

import os
import pty
import select
import sys
import time

PATIENCE_SECS = 60

at = sys.argv.index("--")
words, command = sys.argv[1:at], sys.argv[at + 1:]
steps = list(zip(words[::2], words[1::2]))

pid, terminal = pty.fork()
if pid == 0:
    os.execvp(command[0], command)

shown = ""
deadline = time.monotonic() + PATIENCE_SECS
while True:
    ready, _, _ = select.select([terminal], [], [], max(0, deadline - time.monotonic()))
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
        os.write(terminal, typed.encode().decode("unicode_escape").encode())

sys.stdout.write(shown)
_, status = os.waitpid(pid, 0)
code = os.waitstatus_to_exitcode(status)
sys.exit(99 if steps else code % 256)
