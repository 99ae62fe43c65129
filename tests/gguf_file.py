"""A GGUF file taken apart and put together again, with anything wrong that a test wants wrong.

    f = gguf_file.parse(data)
    f.keys["llama.block_count"] = gguf_file.u32(7)
    f.tensors["output_norm.weight"].dims = [8]
    data = f.join()
"""
import struct

ALIGNMENT = 32
U32, F32, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def string(text):
    """Length and bytes."""
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def u32(value):
    return U32, struct.pack("<I", value)


def f32(value):
    return F32, struct.pack("<f", value)


def text(value):
    return STRING, string(value)


class Tensor:
    def __init__(self, dims, number_type, offset):
        self.dims, self.type, self.offset = dims, number_type, offset


class File:
    """keys: name -> (type, bytes of the value); tensors: name -> Tensor, offsets from the data."""

    def __init__(self, version, keys, tensors, data):
        self.version, self.keys, self.tensors, self.data = version, keys, tensors, data

    def header(self, keys=None, tensors=None):
        """The header; lists of pairs in place of self.keys and self.tensors may repeat names."""
        keys = list(self.keys.items()) if keys is None else keys
        tensors = list(self.tensors.items()) if tensors is None else tensors
        out = [b"GGUF", struct.pack("<IQQ", self.version, len(tensors), len(keys))]
        for name, (kind, value) in keys:
            out += [string(name), struct.pack("<I", kind), value]
        for name, t in tensors:
            out += [string(name), struct.pack(f"<I{len(t.dims)}Q", len(t.dims), *t.dims),
                    struct.pack("<IQ", t.type, t.offset)]
        return b"".join(out)

    def join(self, keys=None, tensors=None):
        header = self.header(keys, tensors)
        return header + bytes(-len(header) % ALIGNMENT) + self.data


def _string_end(data, at):
    return at + 8 + struct.unpack_from("<Q", data, at)[0]


def _value_end(data, at, kind):
    if kind == STRING:
        return _string_end(data, at)
    if kind != ARRAY:
        return at + SIZES[kind]
    kind, n = struct.unpack_from("<IQ", data, at)
    at += 12
    if kind != STRING:
        return at + n * SIZES[kind]
    for _ in range(n):
        at = _string_end(data, at)
    return at


def parse(data):
    version, n_tensors, n_keys = struct.unpack_from("<IQQ", data, 4)
    at, keys, tensors = 24, {}, {}
    for _ in range(n_keys):
        end = _string_end(data, at)
        name = data[at + 8:end].decode()
        kind, = struct.unpack_from("<I", data, end)
        at = _value_end(data, end + 4, kind)
        keys[name] = kind, data[end + 4:at]
    for _ in range(n_tensors):
        end = _string_end(data, at)
        name = data[at + 8:end].decode()
        n_dims, = struct.unpack_from("<I", data, end)
        fields = struct.unpack_from(f"<{n_dims}QIQ", data, end + 4)
        tensors[name] = Tensor(list(fields[:n_dims]), *fields[n_dims:])
        at = end + 4 + 8 * n_dims + 12
    return File(version, keys, tensors, data[at + -at % ALIGNMENT:])
