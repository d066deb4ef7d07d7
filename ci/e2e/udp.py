"""A UDP service that says who asked it, and a client that asks it again and again from one port.

    udp.py server NAME PORT         answers with its name, and the address and port that it sees
    udp.py client ADDRESS PORT      numbered datagrams, 20 a second; a line for each that leaves and for each answer
"""

import select
import socket
import sys
import time


def server(name, port):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as ours:
        ours.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        ours.bind(("::", port))
        while True:
            question, who = ours.recvfrom(2048)
            address = who[0].removeprefix("::ffff:")
            ours.sendto(b"%s %s %s %d" % (question, name.encode(), address.encode(), who[1]), who)


def client(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as ours:
        ours.connect((address, port))
        number = 0
        while True:
            number += 1
            print("asked", number, flush=True)
            ours.send(b"%d" % number)
            until = time.monotonic() + 0.05
            while (left := until - time.monotonic()) > 0 and select.select([ours], [], [], left)[0]:
                try:
                    print("answer", ours.recv(2048).decode(), flush=True)
                except ConnectionError as error:
                    print("error", error, flush=True)


if sys.argv[1] == "server":
    server(sys.argv[2], int(sys.argv[3]))
else:
    client(sys.argv[2], int(sys.argv[3]))
