"""Long connections that ask and are answered, for ci/e2e/truth: the load `long` of the scenario active-backup-crash.

    truth.py server PORT                          answers each request of 200 bytes with 600
    truth.py client ADDRESS PORT COUNT SECONDS    COUNT connections, each of which asks every 100 to 1,900 ms
    truth.py ping ADDRESS PORT COUNT              one connection that asks COUNT times; median and p99 in microseconds

The client prints `open` once every connection was answered, and at its end a JSON object: connections, how many broke, and
for each connection its longest wait for an answer, as quantiles in milliseconds.
"""

import asyncio
import json
import random
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

    server = await asyncio.start_server(answer, "0.0.0.0", port, backlog=2048)
    await server.serve_forever()


async def ask(address, port, until, opened, waits, draw):
    clock = asyncio.get_running_loop().time
    longest = 0.0
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(address, port), GIVE_UP)
        first = True
        while clock() < until:
            asked = clock()
            writer.write(b"q" * REQUEST)
            await asyncio.wait_for(reader.readexactly(REPLY), GIVE_UP)
            longest = max(longest, clock() - asked)
            if first:
                opened()
                first = False
            await asyncio.sleep(draw.uniform(0.1, 1.9))
        writer.close()
    except (asyncio.IncompleteReadError, asyncio.TimeoutError, OSError):
        return False
    waits.append(longest * 1000)
    return True


async def load(address, port, count, seconds):
    until = asyncio.get_running_loop().time() + seconds
    waits, n, draw = [], 0, random.Random(1)

    def opened():
        nonlocal n
        n += 1
        if n == count:
            print("open", flush=True)

    async def one(k):
        await asyncio.sleep(k * 0.002)
        return await ask(address, port, until, opened, waits, draw)

    done = await asyncio.gather(*(one(k) for k in range(count)))
    waits.sort()
    at = lambda q: round(waits[int((len(waits) - 1) * q)], 1) if waits else None
    stall = {"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1.0)}
    print(json.dumps({"connections": count, "broken": done.count(False), "stall_ms": stall}), flush=True)


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
    asyncio.run(load(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])))
