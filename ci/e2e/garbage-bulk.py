"""Garbage at a node's replication port over TCP, where long frames come, until SIGTERM.

    python3 garbage-bulk.py ADDRESS PORT HELD

One connection after the other brings random bytes (no length that a frame may have), a frame of random bytes, or half a frame
and its end. After 300 of them it says `enough`, and HELD further ones stay open behind the first half of a frame. Says at its end how many connections there were, how many the node closed for what came or for whose they were, and how many whole frames were
sent over such as were not closed. A node that is not there is asked again. The seed is fixed.
"""

import random
import select
import signal
import socket
import struct
import sys
import time

# What a node may take until it closes a connection that it refuses. Who holds none is a stranger, of whom it refuses all.
PATIENCE = 10.0


def main():
    address, port, held_count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    rng, stopped, held = random.Random(1), [], []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    connections = closed = frames = 0

    def half():
        length = rng.randrange(100, 60000)
        return struct.pack("<I", length) + rng.randbytes(length // 2)

    def is_closed(stream, patience):
        if not select.select([stream], [], [], patience)[0]:
            return False
        try:
            return not stream.recv(1)
        except OSError:
            return True

    while not stopped:
        try:
            held = [stream for stream in held if not is_closed(stream, 0)]
            while connections >= 300 and len(held) < held_count:
                stream = socket.create_connection((address, port), timeout=PATIENCE)
                stream.sendall(half())
                # A node that has no place for it closes it.
                if not is_closed(stream, 0.05):
                    held.append(stream)
                    print("holds", len(held), flush=True)
            with socket.create_connection((address, port), timeout=PATIENCE) as stream:
                connections += 1
                kind = connections % 3
                try:
                    if kind == 0:
                        stream.sendall(b"\xff\xff\xff\x7f" + rng.randbytes(rng.randrange(1400)))
                        closed += is_closed(stream, PATIENCE)
                    else:
                        length = rng.randrange(1, 3000)
                        stream.sendall(half() if kind == 1 else struct.pack("<I", length) + rng.randbytes(length))
                        refused = is_closed(stream, 0.02 if held_count else PATIENCE)
                        closed += refused
                        frames += kind == 2 and not refused
                except OSError:
                    closed += 1
        except OSError:
            # Nobody is there.
            time.sleep(0.02)
        if connections == 300:
            print("enough", flush=True)
    print(f"connections {connections} closed {closed} frames {frames} held {len(held)}", flush=True)


main()
