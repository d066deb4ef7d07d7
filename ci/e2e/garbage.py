"""Sends garbage to the replication port of a node, as fast as it can, for a time.

    python3 garbage.py ADDRESS PORT SECONDS [HEX..]

Datagrams are random bytes of 1 to 1,400, random bytes behind the beginning of a frame, and cut or altered copies of
frames that are given in hexadecimal. Says when it begins, and how many were sent, at the end or at SIGTERM. The seed is
fixed: every run sends the same.
"""

import random
import signal
import socket
import sys
import time


def datagrams(frames):
    rng = random.Random(1)
    made = []
    for n in range(2000):
        if frames and n % 2:
            frame = bytearray(rng.choice(frames))
            if n % 4 == 1:
                frame = frame[: rng.randrange(1, len(frame) + 1)]
            for _ in range(rng.randrange(3)):
                frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
            if n % 8 == 7:
                frame[8:] = rng.randbytes(rng.randrange(1, 1400))
            made.append(bytes(frame))
        else:
            made.append(rng.randbytes(rng.randrange(1, 1400)))
    return made


def main():
    address, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    made = datagrams([bytes.fromhex(text) for text in sys.argv[4:]])
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    out.connect((address, port))
    sent = refused = 0
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    print("sending", flush=True)
    began = time.monotonic()
    while time.monotonic() < began + seconds and not stopped:
        for datagram in made:
            try:
                out.send(datagram)
                sent += 1
            except OSError:
                refused += 1
    print(f"sent {sent} refused {refused} in {time.monotonic() - began:.1f} s")


main()
