#!/usr/bin/env python3
"""Adds, replaces, deletes and lists routes of a WaveVM gateway, by its control port.

Every order is answered by the gateway; when none comes the program says so and fails.
"""
import argparse
import ipaddress
import json
import socket
import struct
import sys

MAGIC = 0x57564D43  # "WVMC"
ROUTE_ADD, ROUTE_DEL, ROUTE_DUMP = 1, 2, 4
ANSWER = 0x8000
NODES = 1 << 20
PART = 1024
TRIES, WAIT_S = 5, 0.5
STATUS = {
    1: "the gateway does not know the command; is it a gateway's control port?",
    2: "others ask at the same time; try again",
    9: "this version does not do that",
    10: "the gateway understood a request of another length; is it of another version?",
    11: f"the vnodes are not all within 0 to {NODES - 1}",
    12: "the target is no address of a host, or the gateway itself",
    13: "the gateway has no room for one more route (--orders)",
    14: "there is no operator's route to delete",
    15: "the gateway does not take that from this host",
}


class Refused(Exception):
    """What the operator is told."""


def number(low, high):
    def parse(text):
        value = int(text) if text.isdecimal() else -1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"'{text}' is not a number from {low} to {high}")
        return value
    return parse


def address(text):
    try:
        return ipaddress.IPv4Address(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not an IPv4 address") from None


def arguments():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("gateway", metavar="GW_IP", type=address)
    p.add_argument("port", metavar="CTL_PORT", type=number(1, 65535))
    p.add_argument("node", metavar="NODE_ID", type=number(0, NODES - 1), nargs="?",
                   help="virtual node id, the first of --count")
    p.add_argument("target", metavar="TARGET_IP", type=address, nargs="?")
    p.add_argument("target_port", metavar="TARGET_PORT", type=number(1, 65535), nargs="?")
    p.add_argument("--count", type=number(1, NODES), default=1, metavar="N",
                   help="so many vnodes from NODE_ID on (1)")
    what = p.add_mutually_exclusive_group()
    what.add_argument("--delete", action="store_true", help="delete the operator's route of NODE_ID")
    what.add_argument("--dump", action="store_true", help="print all routes as JSON")
    a = p.parse_args()
    if a.dump and a.node is not None:
        p.error("--dump takes GW_IP and CTL_PORT alone")
    if a.delete and (a.node is None or a.target is not None):
        p.error("--delete takes GW_IP, CTL_PORT and NODE_ID")
    if not a.dump and not a.delete and a.target_port is None:
        p.error("GW_IP CTL_PORT NODE_ID TARGET_IP TARGET_PORT are needed")
    return a


def exchange(s, request, matches):
    """The answer to a request, which is sent until one comes."""
    refused = None
    for _ in range(TRIES):
        try:
            s.send(request)
            while True:
                answer = s.recv(2048)
                if matches(answer):
                    return answer
        except socket.timeout:
            pass
        except ConnectionRefusedError as e:
            refused = e
            break
    raise Refused(f"no gateway answers at its control port {s.getpeername()[0]}:{s.getpeername()[1]}: "
                  f"{refused or 'timed out'}; is it running, with that CTRL_PORT and --control-ip?")


def check(status):
    if status:
        raise Refused(STATUS.get(status, f"refused with status {status}"))


def order(s, a):
    op = ROUTE_DEL if a.delete else ROUTE_ADD
    target = 0 if a.delete else int(a.target)
    request = struct.pack("!IHIIH", MAGIC, op, a.node, target, a.target_port or 0)
    if a.count > 1:
        request += struct.pack("!I", a.count)

    def matches(answer):
        return len(answer) == 16 and struct.unpack("!IHI", answer[:10]) == (MAGIC, op | ANSWER, a.node)

    status, vnodes = struct.unpack("!HI", exchange(s, request, matches)[10:])
    check(status)
    last = f"-{a.node + a.count - 1}" if a.count > 1 else ""
    if a.delete:
        print(f"vnode {a.node}{last}: deleted, {vnodes} had a route")
    else:
        print(f"vnode {a.node}{last}: by {a.target}:{a.target_port}, {vnodes} replaced")


def dump(s):
    text, part, parts, snapshot = b"", 0, 1, 0
    while part < parts:
        request = struct.pack("!IHHIHHQ", MAGIC, ROUTE_DUMP, part, snapshot, 0, 0, 0)

        def matches(answer, part=part):
            return len(answer) >= 16 and \
                struct.unpack("!IHH", answer[:8]) == (MAGIC, ROUTE_DUMP | ANSWER, part)

        answer = exchange(s, request, matches)
        snapshot, status, parts = struct.unpack("!IHH", answer[8:16])
        check(status)
        text += answer[16:]
        part += 1
    print(json.dumps(json.loads(text), indent=1))


def main():
    a = arguments()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(WAIT_S)
        try:
            s.connect((str(a.gateway), a.port))
            if a.dump:
                dump(s)
            else:
                order(s, a)
        except (Refused, OSError, ValueError) as e:
            print(f"wvm_route_ctl.py: {e}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
