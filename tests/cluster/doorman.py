"""Stands in a pod, answers whoever comes to a port, and tries doors when told to: a program of the standard library.

It is run as ``python -I -c <this text> PORT [ADDRESS]``; with an address, it gives that to the machine first, and takes it away
at the end. For each line of its input, a JSON list of doors, it prints a JSON list of what came of each. A door is
``[protocol, host, port]``, where the protocol is ``tcp``, ``udp`` or ``name``, or ``link`` for whoever is on the pod's own
link, by IPv6. It ends with its input.
"""

from __future__ import annotations

import fcntl
import json
import socket
import struct
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

WITHIN_S = 1.5
# Programs that meet this in the place of the api try again later.
ANSWER = b"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
ANSWERED, OPENED, REFUSED = "answered", "opened", "refused"
AT_ONCE = 40
# Source: RFC 4443, 4.1; RFC 4291, 2.7.1.
LINK, ECHO, EVERYBODY = "eth0", bytes((128, 0, 0, 0, 0, 1, 0, 1)), ("ff02::1", 0, 0)
ANYWHERE = "0.0.0.0"  # whoever comes is answered; that is what it is for
# Source: linux/sockios.h. An alias of the loopback interface goes with its flags.
SET_ADDRESS, SET_MASK, SET_FLAGS, ALIAS = 0x8916, 0x891C, 0x8914, b"lo:17"


def answer(port: int, host: str = ANYWHERE) -> int:
    """Answer from now on whoever comes to the port, by TCP and by UDP; return the port."""
    visitors = socket.create_server((host, port), backlog=AT_ONCE)
    chosen = int(visitors.getsockname()[1])
    letters = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    letters.bind((host, chosen))
    threading.Thread(target=_visitors, args=(visitors,), daemon=True).start()
    threading.Thread(target=_letters, args=(letters,), daemon=True).start()
    return chosen


def try_door(door: Iterable[object]) -> str:
    """Return whether something answered there, only took the connection, or neither."""
    protocol, host, port = door
    try:
        if protocol == "name":
            return ANSWERED if socket.getaddrinfo(str(host), None) else REFUSED
        if protocol == "link":
            came = [_speak(socket.SOCK_STREAM, (other, port, 0, link)) for other, link in neighbours()]
            return min(came, key=(ANSWERED, OPENED, REFUSED).index, default=REFUSED)
        return _speak(socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM, (host, port))
    except OSError:
        return REFUSED


def neighbours() -> list[tuple[object, ...]]:
    """Return the link-local addresses of whoever answers a call to all on the pod's own link, its node for one."""
    link, found = socket.if_nametoindex(LINK), []
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6) as call:
        call.settimeout(WITHIN_S)
        call.sendto(ECHO, (*EVERYBODY, link))
        try:
            while True:
                found.append(call.recvfrom(1024)[1][0])
        except TimeoutError:
            return [(host, link) for host in found]


def main() -> None:
    """Answer at the port, and try what is told."""
    address = sys.argv[2] if len(sys.argv) > 2 else ""
    if address:
        _change_alias(SET_ADDRESS, _internet(address))
        _change_alias(SET_MASK, _internet("255.255.255.255"))
    answer(int(sys.argv[1]), address or ANYWHERE)
    print(json.dumps("here"), flush=True)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for line in sys.stdin:
            print(json.dumps(list(pool.map(try_door, json.loads(line)))), flush=True)
    if address:
        _change_alias(SET_FLAGS, struct.pack("h", 0))


def _visitors(listener: socket.socket) -> None:
    while True:
        visitor, _ = listener.accept()
        with visitor:
            visitor.settimeout(WITHIN_S)
            try:
                visitor.recv(1024)
                visitor.sendall(ANSWER)
            except OSError:
                continue  # gone before it was answered


def _letters(listener: socket.socket) -> None:
    while True:
        _, sender = listener.recvfrom(1024)
        listener.sendto(ANSWER, sender)


def _speak(kind: socket.SocketKind, place: tuple[object, ...]) -> str:
    with socket.socket(socket.AF_INET if len(place) == 2 else socket.AF_INET6, kind) as talk:
        talk.settimeout(WITHIN_S)
        try:
            talk.connect(place)
        except OSError:
            return REFUSED
        try:
            # Who expects TLS answers this too, with a complaint.
            talk.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return ANSWERED if talk.recv(1) else OPENED
        except OSError:
            return OPENED if kind == socket.SOCK_STREAM else REFUSED


def _change_alias(what: int, value: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, what, struct.pack("16s16s", ALIAS, value))


def _internet(address: str) -> bytes:
    return struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))


if __name__ == "__main__":
    main()
