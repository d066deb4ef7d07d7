#!/usr/bin/python3
"""One end of a TCP conversation that no usual program holds on purpose; for ci/make-captures.

    tcp-story.py ROLE ADDRESS PORT

Servers print `ready` once they listen, serve the connections that their story needs, and end.
Whoever waits, waits for bytes or for an end, never for a while, but for the one story that is
about time.
"""

import socket
import struct
import sys
import time


def listener(address: str, port: int) -> socket.socket:
    s = socket.create_server((address, port), backlog=8)
    s.settimeout(20)
    print("ready", flush=True)
    return s


def accept(s: socket.socket) -> socket.socket:
    c, _ = s.accept()
    c.settimeout(20)
    return c


def connect(address: str, port: int) -> socket.socket:
    return socket.create_connection((address, port), timeout=20)


def read_exactly(c: socket.socket, n: int) -> bytes:
    got = b""
    while len(got) < n:
        more = c.recv(n - len(got))
        if not more:
            raise SystemExit(f"the peer ended after {len(got)} of {n} bytes")
        got += more
    return got


def abort(c: socket.socket) -> None:
    """Closes with RST: a linger time of zero (socket(7))."""
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    c.close()


def refused_client(address: str, port: int) -> None:
    try:
        connect(address, port)
    except ConnectionRefusedError:
        print("refused")
        return
    raise SystemExit("somebody listens there")


# Two connections: the client aborts the first, the server the second.
REQUEST = b"request " * 16
ANSWER = b"answer " * 512


def reset_server(address: str, port: int) -> None:
    s = listener(address, port)
    for server_aborts in (False, True):
        c = accept(s)
        read_exactly(c, len(REQUEST))
        c.sendall(ANSWER)
        if server_aborts:
            read_exactly(c, 1)
            abort(c)
            continue
        try:
            c.recv(1)
            raise SystemExit("the client was to abort")
        except ConnectionResetError:
            c.close()


def reset_client(address: str, port: int) -> None:
    for server_aborts in (False, True):
        c = connect(address, port)
        c.sendall(REQUEST)
        read_exactly(c, len(ANSWER))
        if not server_aborts:
            abort(c)
            continue
        c.sendall(b"!")
        try:
            c.recv(1)
            raise SystemExit("the server was to abort")
        except ConnectionResetError:
            c.close()
    print("reset by the client, then by the server")


# The client says all that it has and ends its direction; the server goes on for a second.
ROUNDS = 10


def halfclosed_server(address: str, port: int) -> None:
    s = listener(address, port)
    c = accept(s)
    got = 0
    while more := c.recv(65536):
        got += len(more)
    for n in range(ROUNDS):
        c.sendall(f"{n}: {got} bytes came. ".encode() * 40)
        time.sleep(0.1)
    c.close()


def halfclosed_client(address: str, port: int) -> None:
    c = connect(address, port)
    c.sendall(b"all that I have to say\n" * 100)
    c.shutdown(socket.SHUT_WR)
    got = 0
    while more := c.recv(65536):
        got += len(more)
    c.close()
    print(f"{got} bytes after the client's end")


ROLES = {
    "refused-client": refused_client,
    "reset-server": reset_server,
    "reset-client": reset_client,
    "halfclosed-server": halfclosed_server,
    "halfclosed-client": halfclosed_client,
}

if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in ROLES:
        raise SystemExit(f"usage: tcp-story.py {'|'.join(ROLES)} ADDRESS PORT")
    ROLES[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
