"""Records or replays the frames between a slave and `fssync serve`.

    -e "python3 transcript.py record FILE"   runs the real command and records both directions
    -e "python3 transcript.py replay FILE"   answers as the recorded master did

A line of a transcript is a direction, a kind and the content:

    < hello 4                the master's hello, with its version
    > hello 4                the slave's
    > J {"Digest":...}       a message
    < D 46533330             data, in hexadecimal

While it replays, it ends with exit code 3 and a message if the slave sends another frame than
the recorded one. Like the programs of version 4, it sends its hello first, and ends if the other
hello has another version.
"""

import json
import subprocess
import sys
import threading

NAME = b"fssync"


def read_exactly(stream, length):
    content = b""
    while len(content) < length:
        piece = stream.read(length - len(content))
        if not piece:
            return None
        content += piece
    return content


def read_hello(stream):
    hello = read_exactly(stream, len(NAME) + 2)
    if hello is None:
        return None
    assert hello.startswith(NAME), hello
    return hello, "hello %d" % int.from_bytes(hello[len(NAME):], "big")


def read_frame(stream):
    header = read_exactly(stream, 5)
    if header is None:
        return None
    content = read_exactly(stream, int.from_bytes(header[1:], "big"))
    if content is None:
        return None
    kind = header[:1].decode()
    text = content.decode() if kind == "J" else content.hex()
    return header + content, kind + " " + text


def encode(line):
    kind, content = line.split(" ", 1)
    if kind == "hello":
        return NAME + int(content).to_bytes(2, "big")
    content = content.encode() if kind == "J" else bytes.fromhex(content)
    return kind.encode() + len(content).to_bytes(4, "big") + content


def record(path, command):
    program = subprocess.Popen(
        command, shell=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    lines = open(path, "w")
    lock = threading.Lock()

    def forward(source, target, direction):
        read = read_hello
        while found := read(source):
            read = read_frame
            frame, line = found
            with lock:
                lines.write("%s %s\n" % (direction, line))
                lines.flush()
            target.write(frame)
            target.flush()
        target.close()

    requests = threading.Thread(
        target=forward, args=(sys.stdin.buffer, program.stdin, ">"), daemon=True
    )
    requests.start()
    forward(program.stdout, sys.stdout.buffer, "<")
    return program.wait()


def includes(found, expected):
    """Whether a message has everything that is expected. It may have more fields."""
    if isinstance(found, dict) and isinstance(expected, dict):
        return all(
            key in found and includes(found[key], expected[key]) for key in expected
        )
    return found == expected


def is_same(found, expected):
    if found.startswith("J ") and expected.startswith("J "):
        return includes(json.loads(found[2:]), json.loads(expected[2:]))
    return found == expected


def replay(path):
    lines = [line.rstrip("\n").split(" ", 1) for line in open(path)]
    # Which hello was recorded first depends on the moment.
    hellos = [line for line in lines if line[1].startswith("hello ")]
    frames = [line for line in lines if line not in hellos]
    read = read_hello
    for direction, expected in sorted(hellos) + frames:
        if direction == "<":
            sys.stdout.buffer.write(encode(expected))
            sys.stdout.buffer.flush()
            continue
        found = read(sys.stdin.buffer)
        read = read_frame
        if found is None:
            return 0
        if not is_same(found[1], expected):
            print("received %s instead of %s" % (found[1], expected), file=sys.stderr)
            return 3
    return 0


if __name__ == "__main__":
    action, path, command = sys.argv[1], sys.argv[2], sys.argv[-1]
    sys.exit(record(path, command) if action == "record" else replay(path))
