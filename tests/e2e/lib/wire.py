"""A node's side of the wire, as far as it takes to say wrong things: only without TLS, on loopback.

What the bytes mean: net/link/handshake.h (LinkHello, Proof), net/wire/frame.h (frames), net/wire/messages.h.
"""

import ctypes
import hashlib
import hmac
import os
import socket
import struct

HELLO = struct.Struct("<IHBBB7s16s32sQ")    # magic, version, role, tls, verdict, reserved, volume, nonce, hash
PROOF = struct.Struct("<B7s32s")            # verdict, reserved, code
FRAME = struct.Struct("<IHHIIQQ")           # magic, version, flags, length, reserved, body's hash, header's hash
FRAME_MAX = 4 << 20
_xxhash = ctypes.CDLL("libxxhash.so.0")
_xxhash.XXH3_64bits_withSeed.restype = ctypes.c_uint64
_xxhash.XXH3_64bits_withSeed.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]


def hash64(content):
    return _xxhash.XXH3_64bits_withSeed(content, len(content), 0)


def link_hello(volume, version=1, role=1):
    fields = [0x484d4656, version, role, 0, 0, bytes(7), volume, os.urandom(32), 0]
    fields[-1] = hash64(HELLO.pack(*fields))
    return HELLO.pack(*fields)


def frame(body, length=None):
    """`length`: what the header says instead of the truth."""
    fields = [0x464e4656, 1, 1, len(body) if length is None else length, 0, hash64(body), 0]
    fields[-1] = hash64(FRAME.pack(*fields))
    return FRAME.pack(*fields) + body


def text(words):
    return struct.pack("<I", len(words)) + words.encode()


def node_hello(volume, versions=(1, 1), node=0x1234567812345678, joining=True, payload_max=1 << 20):
    """The first message inside the frames."""
    return (struct.pack("<BBHIHHQ", 1, 0, 0, 0x4f4c4856, *versions, 0) + volume +
            struct.pack("<QIBQ", 7, payload_max, joining, node) + text("stranger") + text(""))


class Dialer:
    """Connects to a node that has tls = off; with the right secret it is let in."""

    def __init__(self, port, volume, secret, version=1):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        mine = link_hello(volume, version)
        self.socket.sendall(mine)
        theirs = self.receive(HELLO.size)
        self.verdict = HELLO.unpack(theirs)[4] if len(theirs) == HELLO.size else None
        if self.verdict != 0:
            return
        key = hmac.new(secret, b"vmfs link 1 proof", hashlib.sha256).digest()
        code = hmac.new(key, text("vmfs link 1 dialer") + mine + theirs, hashlib.sha256).digest()
        self.socket.sendall(PROOF.pack(0, bytes(7), code))
        answer = self.receive(PROOF.size)
        self.verdict = PROOF.unpack(answer)[0] if len(answer) == PROOF.size else None

    def receive(self, size):
        """So many bytes, or fewer if the other side ends the connection."""
        got = b""
        while len(got) < size:
            try:
                part = self.socket.recv(size - len(got))
            except ConnectionError:
                break
            if not part:
                break
            got += part
        return got

    def next_frame(self):
        """The next frame's body; None: the other side has ended the connection."""
        header = self.receive(FRAME.size)
        if len(header) < FRAME.size:
            return None
        return self.receive(FRAME.unpack(header)[3])

    def ended(self):
        """Whatever still comes, the other side ends the connection."""
        while self.next_frame() is not None:
            pass
        return True

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()
