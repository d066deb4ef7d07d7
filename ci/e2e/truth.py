"""The loads of the scenario active-backup-crash, for ci/e2e/truth.

    truth.py server PORT                                  answers each request of 200 bytes with 600
    truth.py client ADDRESS,.. PORT COUNT RATE SECONDS    COUNT long connections, each of which asks every 100 to 1,900 ms, and
                                                          RATE new ones a second that ask twice
    truth.py ping ADDRESS PORT COUNT                      one connection that asks COUNT times; median and p99 in microseconds

The client prints `open` once every long connection was answered. SIGUSR1 tells it that the master is about to be killed. At its
end it prints a JSON object: connections, those that were alive at the signal, how many of them broke and of which kind, how many new ones
failed that were begun later, and as quantiles in milliseconds, for each connection that was alive, its longest wait for an
answer that came after the signal.
"""

import asyncio
import json
import random
import signal
import socket
import sys
import time

REQUEST, REPLY = 200, 600
# A connection that waits longer is broken, as in the scenario.
GIVE_UP = 15.0


async def serve(port):
    async def answer(reader, writer):
        try:
            while True:
                await reader.readexactly(REQUEST)
                writer.write(b"r" * REPLY)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    server = await asyncio.start_server(answer, None, port, backlog=2048)
    await server.serve_forever()


class Load:
    """What the client counts."""

    def __init__(self, count):
        self.missing = count
        self.connections = 0
        self.killed = None
        self.alive = set()
        self.at_kill = {"long": 0, "new": 0}
        self.broken = {"long": 0, "new": 0}
        self.failed = 0
        self.waits = {}

    def kill(self):
        self.killed = asyncio.get_running_loop().time()
        for kind, _ in self.alive:
            self.at_kill[kind] += 1

    def answered(self, who, asked, now):
        if self.killed is not None and now >= self.killed and who in self.waits:
            self.waits[who] = max(self.waits[who], now - asked)


async def ask(load, kind, n, address, port, requests, until, gap):
    """One connection: so many requests, or as many as come until then."""
    clock = asyncio.get_running_loop().time
    who = (kind, n)
    load.connections += 1
    begun_before, opened = load.killed is None, False
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(address, port), GIVE_UP)
        opened = True
        load.alive.add(who)
        if begun_before and load.killed is None:
            load.waits[who] = 0.0
        done = 0
        while clock() < until and done != requests:
            asked = clock()
            writer.write(b"q" * REQUEST)
            await asyncio.wait_for(reader.readexactly(REPLY), GIVE_UP)
            load.answered(who, asked, clock())
            done += 1
            if done == 1 and kind == "long":
                load.missing -= 1
                if load.missing == 0:
                    print("open", flush=True)
            await asyncio.sleep(gap())
        writer.close()
    except (asyncio.IncompleteReadError, asyncio.TimeoutError, OSError) as error:
        # One whose SYN-ACK was in the last flush may be heard of here only after the signal was.
        is_broken = who in load.waits or (opened and begun_before)
        load.waits.pop(who, None)
        if is_broken:
            load.broken[kind] += 1
        else:
            load.failed += 1
        print(f"{'broken' if is_broken else 'failed'}: {kind} {n}, begun before: {begun_before}, opened: {opened}: {error!r}", flush=True)
    if load.killed is None:
        load.waits.pop(who, None)
    load.alive.discard(who)


async def client(addresses, port, count, rate, seconds):
    loop = asyncio.get_running_loop()
    until, draw, load = loop.time() + seconds, random.Random(1), Load(count)
    loop.add_signal_handler(signal.SIGUSR1, load.kill)
    to = lambda n: addresses[n % len(addresses)]
    tasks = []

    async def long(n):
        await asyncio.sleep(n * 0.002)
        await ask(load, "long", n, to(n), port, None, until, lambda: draw.uniform(0.1, 1.9))

    tasks += [asyncio.create_task(long(n)) for n in range(count)]
    begun, n = loop.time(), 0
    while loop.time() < until - 1:
        due = begun + n / rate
        await asyncio.sleep(max(0.0, due - loop.time()))
        tasks.append(asyncio.create_task(ask(load, "new", n, to(n), port, 2, until, lambda: draw.uniform(0.01, 0.05))))
        n += 1
    await asyncio.gather(*tasks)
    waits = sorted(wait * 1000 for wait in load.waits.values())
    at = lambda q: round(waits[int((len(waits) - 1) * q)], 1) if waits else None
    said = {
        "connections": load.connections,
        "live_at_fault": sum(load.at_kill.values()),
        "long_at_fault": load.at_kill["long"],
        "broken": sum(load.broken.values()),
        "broken_long": load.broken["long"],
        "failed": load.failed,
        "stall_ms": {"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1.0)},
    }
    print(json.dumps(said), flush=True)


def ping(address, port, count):
    with socket.create_connection((address, port), timeout=GIVE_UP) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        times = []
        for _ in range(count):
            asked = time.perf_counter_ns()
            s.sendall(b"q" * REQUEST)
            left = REPLY
            while left:
                got = len(s.recv(left))
                if not got:
                    sys.exit("the connection was closed")
                left -= got
            times.append((time.perf_counter_ns() - asked) / 1000)
    times.sort()
    print(f"{times[count // 2]:.0f} {times[count * 99 // 100]:.0f}")


if sys.argv[1] == "ping":
    ping(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
elif sys.argv[1] == "server":
    asyncio.run(serve(int(sys.argv[2])))
else:
    asyncio.run(client(sys.argv[2].split(","), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]), float(sys.argv[6])))
