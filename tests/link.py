"""A bad connection for `-e`: runs the command for the other end on this machine and
forwards BYTES bytes of its output. Then `cut` ends the connection, `hang` sends nothing
more, and `slow` continues with a pause after each chunk.

usage: link.py BYTES cut|hang|slow HOST COMMAND
"""

import os
import subprocess
import sys
import time

CHUNK_LEN = 20_000
PAUSE_SECS = 0.2


def forward(answers: int, left: int) -> None:
    """Forward `left` bytes, as they arrive."""
    while left > 0 and (chunk := os.read(answers, min(left, 65_536))):
        os.write(1, chunk)
        left -= len(chunk)


def main() -> None:
    limit, then, _host, command = sys.argv[1:]
    process = subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE)
    assert process.stdout
    answers = process.stdout.fileno()
    forward(answers, int(limit))
    if then == "hang":
        time.sleep(1000)
    while then == "slow" and (chunk := os.read(answers, CHUNK_LEN)):
        os.write(1, chunk)
        time.sleep(PAUSE_SECS)
    process.kill()


if __name__ == "__main__":
    main()
