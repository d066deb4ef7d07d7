"""What Linux sends into a blackhole, and when. Used by ci/e2e/calibrate, which makes the namespaces.

    calibrate.py serve ADDRESS               answers every byte with one, at port 80
    calibrate.py strangers ADDRESS           one SYN to port 81 for each line of input, and nothing after it
    calibrate.py look PLAN.. -- SECONDS      opens what the plans need, says "ready", waits for a line of input (from now on
                                             nothing is heard), lets each plan say something and prints what was sent when
    calibrate.py compare SIMULATED MEASURED.. the lines of the simulator and of Linux: within a tenth of each distance
"""

import select
import socket
import struct
import sys
import time

PEER = "10.0.0.2"
OWN = "10.0.0.1"
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
# Of each distance that is compared.
TOLERANCE = 0.10
# Distances that must have been compared of each plan.
LEAST = 3


def serve(address):
    listener = socket.create_server((address, 80), backlog=64)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    peers = {}
    print("ready", flush=True)
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                peer, _ = listener.accept()
                peers[peer.fileno()] = peer
                poll.register(peer, select.EPOLLIN)
            elif data := peers[fd].recv(4096):
                peers[fd].send(data)
            else:
                poll.unregister(fd)
                peers.pop(fd).close()


def strangers(address):
    for _ in sys.stdin:
        stranger = socket.socket()
        stranger.setblocking(False)
        stranger.connect_ex((address, 81))
        # Closed before the answer: its SYN is not repeated.
        stranger.close()


def opened():
    s = socket.create_connection((PEER, 80))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Some round trips, so that their time is known.
    for _ in range(10):
        s.send(b"x" * 100)
        need = 100
        while need:
            need -= len(s.recv(need))
        time.sleep(0.02)
    return s


class Plan:
    """A connection, what it says when nobody hears, and which of its packets count."""

    def __init__(self, name):
        self.name, kind = name, name.removesuffix("-plain")
        self.kind, self.times, self.port = kind, [], None
        if kind in ("data", "fin", "keepalive"):
            self.socket = opened()
        if kind == "keepalive":
            s = self.socket
            s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 4)
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 5)
        if kind == "syn-ack":
            self.socket = socket.create_server((OWN, 81))
            self.port = 81
        if kind == "syn":
            self.socket = socket.socket()
            self.socket.bind((OWN, 0))
        self.port = self.port or self.socket.getsockname()[1]

    def say(self):
        if self.kind == "data":
            self.socket.send(b"x" * 100)
        if self.kind == "fin":
            self.socket.shutdown(socket.SHUT_WR)
        if self.kind == "syn":
            self.socket.setblocking(False)
            self.socket.connect_ex((PEER, 80))

    def counts(self, flags, length):
        if self.kind == "keepalive":
            return flags == ACK and length == 0
        return bool(flags & {"data": PSH, "fin": FIN}.get(self.kind, SYN))


def look(names, seconds):
    plans = [Plan(name) for name in names]
    by_port = {plan.port: plan for plan in plans}
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    # When the kernel gave them to the device (SO_TIMESTAMPNS), not when this program woke up.
    tap.setsockopt(socket.SOL_SOCKET, 35, 1)
    tap.bind(("veth", 0))
    print("ready", flush=True)
    sys.stdin.readline()
    while select.select([tap], [], [], 0)[0]:
        tap.recv(65536)
    for plan in plans:
        plan.say()
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if not select.select([tap], [], [], left)[0]:
            break
        frame, control, _, sender = tap.recvmsg(65536, 128)
        if sender[2] != socket.PACKET_OUTGOING or frame[12:14] != b"\x08\x00" or frame[23] != 6:
            continue
        at = 14 + (frame[14] & 15) * 4
        port, flags = struct.unpack("!H", frame[at : at + 2])[0], frame[at + 13]
        length = struct.unpack("!H", frame[16:18])[0] - (at - 14) - (frame[at + 12] >> 4) * 4
        plan = by_port.get(port)
        if plan and plan.counts(flags, length):
            stamp = struct.unpack("qq", control[0][2][:16])
            plan.times.append(stamp[0] * 1000 + stamp[1] / 1e6)
    for plan in plans:
        print(plan.name, *(round(t - plan.times[0]) for t in plan.times), flush=True)


def compare(simulated, measured):
    def lines(path):
        return {line.split()[0]: [int(n) for n in line.split()[1:]] for line in open(path) if line.strip()}

    expected, found, bad, done = lines(simulated), {}, 0, 0
    for path in measured:
        found |= lines(path)
    if missing := expected.keys() - found.keys():
        sys.exit(f"Linux was not asked for {', '.join(sorted(missing))}")
    for name, times in expected.items():
        pairs = list(zip(times, found[name]))
        worst = 0.0
        for (s0, m0), (s1, m1) in zip(pairs, pairs[1:]):
            off = abs((m1 - m0) - (s1 - s0)) / max(s1 - s0, 1)
            worst = max(worst, off)
        right = len(pairs) > LEAST and worst <= TOLERANCE
        done, bad = done + right, bad + (not right)
        print(f"{'ok' if right else 'FAILED'}: {name}: {len(pairs) - 1} distances, off by {worst:.1%} at most")
        print(f"    simulated {' '.join(map(str, times[: len(pairs)]))}")
        print(f"    Linux     {' '.join(map(str, found[name]))}")
    print(f"@count {done} {bad} 0")
    sys.exit(bad > 0)


match sys.argv[1:]:
    case ["serve", address]:
        serve(address)
    case ["strangers", address]:
        strangers(address)
    case ["look", *names, "--", seconds]:
        look(names, float(seconds))
    case ["compare", simulated, *measured]:
        compare(simulated, measured)
    case _:
        sys.exit(__doc__)
