#!/usr/bin/python3
"""The network between two nodes: a process that passes TCP on, and can delay, slow down, cut and stall it.

Wan() starts one. As a program (wan.py PORT TARGET-HOST TARGET-PORT) it takes commands on standard input, one a line,
and answers each with a line: cut, mend, stall, flow, delay SECONDS, rate BYTES-PER-SECOND (0: no limit), count.
"""

import asyncio
import contextlib
import itertools
import os
import random
import socket
import subprocess
import sys


def ports_to_listen_on():
    """From a random one on, those that the kernel gives to no outgoing connection (ip(7), ip_local_port_range)."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        outgoing = range(int(file.read().split()[0]), 65536)
    ports = range(max(1024, outgoing.start - 10000), outgoing.start) or outgoing
    start = random.randrange(len(ports))
    return itertools.cycle([*ports[start:], *ports[:start]])


PORTS = ports_to_listen_on()


def free_port():
    """A port that nobody listens on now, for one listener: given to no other one, and no dialer can have it as its own
    (who dials a port that nobody listens on, from that port, is connected to itself)."""
    for port in PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Wan:
    def __init__(self, target_port):
        self.port = free_port()
        self.process = subprocess.Popen([sys.executable, os.path.abspath(__file__), str(self.port), "127.0.0.1",
                                         str(target_port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()  # listening

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError("the WAN process ended")
        return line.strip()

    def _say(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self._answer()

    def cut(self):
        """All connections break (reset), new ones are refused."""
        self._say("cut")

    def mend(self):
        self._say("mend")

    def stall(self):
        """Nothing passes any more, nothing breaks."""
        self._say("stall")

    def flow(self):
        self._say("flow")

    def delay(self, seconds):
        """Each way."""
        self._say(f"delay {seconds}")

    def rate(self, bytes_per_second):
        self._say(f"rate {bytes_per_second}")

    def bytes_passed(self):
        """Since the start, both ways."""
        return int(self._say("count"))

    def close(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()


PIECE = 32768  # bytes read at once


class Proxy:
    def __init__(self, port, target):
        self.port, self.target = port, target
        self.delay, self.rate, self.passed = 0.0, 0, 0
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.writers = set()
        self.server = None

    async def listen(self):
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", self.port)

    async def accept(self, reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        self.writers |= {writer, far_writer}
        ways = [asyncio.create_task(self.pump(reader, writer, far_writer)),
                asyncio.create_task(self.pump(far_reader, far_writer, writer))]
        await asyncio.wait(ways)
        for one in (writer, far_writer):
            self.writers.discard(one)
            one.transport.abort()

    def in_flight_max(self):
        """What a line holds: as much as it passes on in its delay, and in a router's quarter of a second."""
        return max(PIECE, self.rate * (self.delay + 0.25)) if self.rate else 4096 * PIECE

    async def pump(self, reader, near, far):
        """A queue in between, so that a delay does not become a limit of the rate."""
        loop = asyncio.get_running_loop()
        queue = asyncio.Queue()
        in_flight, less = 0, asyncio.Event()

        async def send():
            nonlocal in_flight
            try:
                while True:
                    due, data = await queue.get()
                    if not data:
                        break
                    if due > loop.time():
                        await asyncio.sleep(due - loop.time())
                    await self.flowing.wait()
                    if self.rate:
                        await asyncio.sleep(len(data) / self.rate)
                    far.write(data)
                    self.passed += len(data)
                    await far.drain()
                    in_flight -= len(data)
                    less.set()
            except OSError:
                near.transport.abort()  # nobody takes what is read here
            far.transport.abort()
            in_flight = 0
            less.set()

        sender = asyncio.create_task(send())
        try:
            data = b"more"
            while data:
                while in_flight >= self.in_flight_max():
                    less.clear()
                    await less.wait()
                data = await reader.read(PIECE)
                in_flight += len(data)
                queue.put_nowait((loop.time() + self.delay, data))
            await sender
        except OSError:
            sender.cancel()
            far.transport.abort()

    async def command(self, words):
        if words[0] == "cut":
            if self.server:
                self.server.close()
                self.server = None
            for writer in list(self.writers):
                writer.transport.abort()
        elif words[0] == "mend":
            if not self.server:
                await self.listen()
        elif words[0] == "stall":
            self.flowing.clear()
        elif words[0] == "flow":
            self.flowing.set()
        elif words[0] == "delay":
            self.delay = float(words[1])
        elif words[0] == "rate":
            self.rate = float(words[1])
        elif words[0] == "count":
            return str(self.passed)
        return "ok"

    async def run(self):
        await self.listen()
        print("listening", flush=True)
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while line := await lines.readline():
            print(await self.command(line.decode().split()), flush=True)


if __name__ == "__main__":
    asyncio.run(Proxy(int(sys.argv[1]), (sys.argv[2], int(sys.argv[3]))).run())
