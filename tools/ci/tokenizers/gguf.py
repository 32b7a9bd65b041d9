"""GGUF files without tensors: reads the metadata of one, and writes a vocabulary as one."""

import struct

NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
UINT32, INT32, FLOAT32, BOOL = 4, 5, 6, 7
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def read(path):
    """The metadata of a file, by key."""
    with open(path, "rb") as file:
        def number(code):
            return struct.unpack(f"<{code}", file.read(struct.calcsize(f"<{code}")))[0]

        def string():
            return file.read(number("Q")).decode()

        def value(kind):
            if kind == STRING:
                return string()
            if kind != ARRAY:
                return number(NUMBERS[kind])
            kind, count = number("I"), number("Q")
            if kind in (STRING, ARRAY):
                return [value(kind) for _ in range(count)]
            code = f"<{count}{NUMBERS[kind]}"
            return list(struct.unpack(code, file.read(struct.calcsize(code))))

        magic, version = file.read(4), number("I")
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"{path} is no GGUF file of version 2 or 3")
        number("Q")
        keys = number("Q")
        metadata = {}
        for _ in range(keys):
            key = string()
            metadata[key] = value(number("I"))
        return metadata


def write(path, metadata):
    """A file of `metadata`: strings, whole numbers, booleans, and lists of strings, whole numbers or floats."""
    def string(text):
        data = text.encode()
        return struct.pack("<Q", len(data)) + data

    def value(content):
        if isinstance(content, str):
            return struct.pack("<I", STRING) + string(content)
        if isinstance(content, bool):
            return struct.pack("<I?", BOOL, content)
        if isinstance(content, int):
            return struct.pack("<II", UINT32, content)
        head = struct.pack("<I", ARRAY)
        if isinstance(content[0], str):
            return head + struct.pack("<IQ", STRING, len(content)) + b"".join(map(string, content))
        kind = INT32 if isinstance(content[0], int) else FLOAT32
        return head + struct.pack(f"<IQ{len(content)}{NUMBERS[kind]}", kind, len(content), *content)

    with open(path, "wb") as file:
        file.write(struct.pack("<4sIQQ", b"GGUF", 3, 0, len(metadata)))
        for key, content in metadata.items():
            file.write(string(key) + value(content))
