"""Traces of the allocations of real programs: the compact form, and how a raw recording becomes one.

trace/README.md describes both forms.
"""
import collections
import lzma
import struct
import zlib

MAGIC = b"TARNTRC1"
RAW_MAGIC = b"TARNREC1"
RAW_HEADER_BYTES = 4096
RAW_HEADER = struct.Struct("<8sQQII")
RAW_EVENT = struct.Struct("<QQIBxxB")
(RAW_NONE, RAW_MALLOC, RAW_CALLOC, RAW_ALIGNED, RAW_FREE, RAW_REALLOC_BEGIN, RAW_REALLOC_END) = range(7)

MALLOC, CALLOC, ALIGNED, REALLOC, FREE, THREAD = range(6)
NAMES = ("malloc", "calloc", "aligned", "realloc", "free")
FLAG_CUT = 1

# Numbers of freed objects are used again by the thread that freed them; by another one only when so many are free.
FREE_NUMBERS_KEPT = 4096
# What the replayer takes; a larger block is left out, a larger alignment becomes the largest.
MOST_BLOCK_BYTES = 2**32 - 1
LEAST_ALIGNMENT_LOG2, MOST_ALIGNMENT_LOG2 = 3, 30
MOST_THREADS = 4096
MOST_NUMBERS = 2**23
MOST_PEAK_BYTES = 2**32


class BadTrace(Exception):
    """A file that is not what it should be."""


def varint(value):
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


class Numbers:
    """Gives numbers to objects, and takes them back."""

    def __init__(self):
        self.count = 0
        self.of_thread = collections.defaultdict(collections.deque)
        self.free = 0

    def take(self, thread):
        own = self.of_thread[thread]
        if not own and self.free > FREE_NUMBERS_KEPT:
            own = max(self.of_thread.values(), key=len)
            self.free -= 1
            return own.popleft()  # the one that has been free for the longest time
        if own:
            self.free -= 1
            return own.pop()
        self.count += 1
        return self.count - 1

    def give(self, thread, number):
        self.free += 1
        self.of_thread[thread].append(number)


class Packer:
    """Turns raw events, in their order, into the body of a compact trace, and counts."""

    def __init__(self):
        self.body = bytearray()
        self.numbers = Numbers()
        self.live = {}      # address: (number, bytes, thread that has it from the allocator)
        self.moving = {}    # thread: address and block of the realloc that it is in
        self.thread = 0
        self.threads = 1
        self.events = 0
        self.frees = 0
        self.foreign_frees = 0
        self.unknown = 0    # frees and reallocs of blocks that were not recorded
        self.live_bytes = 0
        self.peak_bytes = 0

    def emit(self, thread, kind, *operands):
        if thread != self.thread:
            self.body += bytes([THREAD]) + varint(thread)
            self.thread = thread
            self.threads = max(self.threads, thread + 1)
        self.body.append(kind)
        for operand in operands:
            self.body += varint(operand)
        self.events += 1

    def grow(self, size):
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def allocated(self, thread, kind, address, size, *alignment):
        if size > MOST_BLOCK_BYTES:
            return
        if address in self.live:  # the free was never seen: it was done by libc itself, or cut off by a fork
            self.freed(thread, self.live.pop(address))
        number = self.numbers.take(thread)
        self.live[address] = (number, size, thread)
        self.grow(size)
        self.emit(thread, kind, number, *alignment, size)

    def freed(self, thread, block):
        number, size, owner = block
        self.live_bytes -= size
        self.frees += 1
        self.foreign_frees += thread != owner
        self.emit(thread, FREE, number)
        self.numbers.give(thread, number)

    def moved(self, thread, address, size):
        old_address, block = self.moving.pop(thread, (None, None))
        if block is None:  # not recorded: a new block from here on
            if address:
                self.allocated(thread, MALLOC, address, size)
        elif address and 0 < size <= MOST_BLOCK_BYTES:
            number, old_size, _ = block
            self.live[address] = (number, size, thread)
            self.grow(size - old_size)
            self.emit(thread, REALLOC, number, size)
        elif size == 0 or address:
            self.freed(thread, block)
        else:  # no memory: the block stays what it was
            self.live[old_address] = block

    def take(self, address, size, thread, alignment_log2, kind):
        if kind in (RAW_MALLOC, RAW_CALLOC):
            self.allocated(thread, MALLOC if kind == RAW_MALLOC else CALLOC, address, size)
        elif kind == RAW_ALIGNED:
            alignment_log2 = min(max(alignment_log2, LEAST_ALIGNMENT_LOG2), MOST_ALIGNMENT_LOG2)
            self.allocated(thread, ALIGNED, address, size, alignment_log2)
        elif kind == RAW_FREE and address in self.live:
            self.freed(thread, self.live.pop(address))
        elif kind == RAW_REALLOC_BEGIN:
            self.unknown += address not in self.live
            self.moving[thread] = address, self.live.pop(address, None)
        elif kind == RAW_REALLOC_END:
            self.moved(thread, address, size)
        elif kind == RAW_FREE:
            self.unknown += 1

    def file(self, cut):
        """The compact form, not compressed."""
        # What was in the midst of a realloc at the end stays allocated.
        header = MAGIC + b"".join(map(varint, (
            FLAG_CUT if cut else 0, self.threads, self.numbers.count, self.events, self.peak_bytes)))
        data = header + bytes(self.body)
        return data + struct.pack("<I", zlib.crc32(data))


def pack(raw, limit=None):
    """(the compact form, what is worth telling of it) of the bytes of a recording."""
    if len(raw) < RAW_HEADER_BYTES or raw[:8] != RAW_MAGIC:
        raise BadTrace("this is not a recording of tarn-record.so")
    _, capacity, claimed, _, _ = RAW_HEADER.unpack_from(raw)
    count = min(claimed, capacity)
    if RAW_HEADER_BYTES + count * RAW_EVENT.size > len(raw):
        raise BadTrace("the recording is shorter than its header says")
    packer = Packer()
    body = memoryview(raw)[RAW_HEADER_BYTES:RAW_HEADER_BYTES + count * RAW_EVENT.size]
    holes, used = 0, 0
    for event in RAW_EVENT.iter_unpack(body):
        if limit is not None and packer.events >= limit:
            break
        used += 1
        if event[4] == RAW_NONE:
            holes += 1
        else:
            packer.take(*event)
    for what, value, most in (("threads", packer.threads, MOST_THREADS),
                              ("objects at once", packer.numbers.count, MOST_NUMBERS),
                              ("bytes at once", packer.peak_bytes, MOST_PEAK_BYTES)):
        if value > most:
            raise BadTrace(f"{value} {what} are more than a trace may have, {most}")
    if not packer.events:
        raise BadTrace("nothing was recorded")
    cut = used < claimed
    data = packer.file(cut)
    return data, {
        "events": packer.events, "threads": packer.threads, "objects_at_once": packer.numbers.count,
        "peak_bytes": packer.peak_bytes, "frees": packer.frees, "foreign_frees": packer.foreign_frees,
        "left": len(packer.live) + sum(block is not None for _, block in packer.moving.values()),
        "unknown": packer.unknown, "holes": holes, "cut": cut, "recorded": claimed,
    }


def compress(data):
    # A trace is bytes without alignment and with long repetitions; literals follow the byte before.
    return lzma.compress(data, filters=[{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME,
                                         "dict_size": 1 << 23, "lc": 4, "lp": 0, "pb": 0}])


def read(path):
    """The bytes of a compact trace, compressed or not."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        return lzma.decompress(data) if data.startswith(b"\xfd7zXZ\0") else data
    except (lzma.LZMAError, EOFError) as error:
        raise BadTrace(f"{path}: {error}") from None


def events(data):
    """Each event of a compact trace: (thread, kind, object number, bytes or None, log2 of the alignment or None)."""
    if len(data) < 12 or data[:8] != MAGIC or struct.unpack("<I", data[-4:])[0] != zlib.crc32(data[:-4]):
        raise BadTrace("this is not a trace, or it is damaged")
    at, end = 8, len(data) - 4

    def number():
        nonlocal at
        value, shift = 0, 0
        while True:
            if at >= end:
                raise BadTrace("the trace is damaged: it ends within an event")
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    for _ in range(5):
        number()
    thread = 0
    while at < end:
        kind = number()
        if kind > THREAD:
            raise BadTrace(f"the trace is damaged: there is no event {kind}")
        if kind == THREAD:
            thread = number()
            continue
        which = number()
        alignment = number() if kind == ALIGNED else None
        yield thread, kind, which, None if kind == FREE else number(), alignment
