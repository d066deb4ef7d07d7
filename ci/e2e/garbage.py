"""Sends garbage to the replication port of a node, for a time.

    python3 garbage.py SOURCE ADDRESS PORT SECONDS RATE [HEX..]

RATE is in datagrams a second; 0: as fast as it can. SOURCE is `own`, or the IPv4 address of another host: the datagrams then come from there and from the same port.

Datagrams are random bytes of 1 to 1,400, random bytes behind the beginning of a frame, and cut or altered copies of
frames that are given in hexadecimal. Says when it begins, when 10,000 were sent, and how many were at the end or at SIGTERM. The
seed is fixed: every run sends the same.
"""

import random
import signal
import socket
import struct
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
    source, address, port, seconds, rate = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])
    made = datagrams([bytes.fromhex(text) for text in sys.argv[6:]])
    if source == "own":
        out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        out.connect((address, port))
    else:
        # The kernel fills in the length and the header's checksum; UDP does without one.
        out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        out.connect((address, 0))
        ends = socket.inet_aton(source) + socket.inet_aton(address)
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_UDP, 0) + ends
        made = [ip + struct.pack("!HHHH", port, port, 8 + len(d), 0) + d for d in made]
    sent = refused = 0
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    print("sending", flush=True)
    began = time.monotonic()
    enough = 10000
    turn = 0
    # Every 5 ms what is due by then; who was late for more than a tenth of a second does not catch up.
    due, share = began, max(1, rate // 200)
    while time.monotonic() < began + seconds and not stopped:
        some = made
        if rate:
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due, time.monotonic() - 0.1) + share / rate
            some = [made[(turn + n) % len(made)] for n in range(share)]
            turn += share
        for datagram in some:
            try:
                out.send(datagram)
                sent += 1
            except OSError:
                refused += 1
        if enough and sent >= enough:
            print("enough", flush=True)
            enough = 0
    print(f"sent {sent} refused {refused} in {time.monotonic() - began:.1f} s")


main()
