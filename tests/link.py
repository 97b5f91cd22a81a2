"""A bad link, to be named with `-e`: runs the command for the other end on this
machine, passes on so many bytes of what it answers, and then does what it was
told: `cut` ends the link, `hang` keeps silent for ever, `slow` goes on with a
pause after every piece.

usage: link.py BYTES cut|hang|slow HOST COMMAND
"""

import os
import subprocess
import sys
import time

PIECE_LEN = 20_000
PAUSE_SECS = 0.2


def pass_on(answers: int, left: int) -> None:
    """Pass on `left` bytes, as they come."""
    while left > 0 and (piece := os.read(answers, min(left, 65_536))):
        os.write(1, piece)
        left -= len(piece)


def main() -> None:
    limit, then, _host, command = sys.argv[1:]
    process = subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE)
    assert process.stdout
    answers = process.stdout.fileno()
    pass_on(answers, int(limit))
    if then == "hang":
        time.sleep(1000)
    while then == "slow" and (piece := os.read(answers, PIECE_LEN)):
        os.write(1, piece)
        time.sleep(PAUSE_SECS)
    process.kill()


if __name__ == "__main__":
    main()
