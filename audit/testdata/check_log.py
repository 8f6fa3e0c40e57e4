#!/usr/bin/env python3
"""Checks a keyturn log directory without keyturn.

Needs only Python's standard library and the `openssl` command (3.0 or newer), for Ed25519. Written from the
specifications: RFC 6962 (tree), RFC 8785 (entries), and C2SP signed-note, tlog-checkpoint, tlog-cosignature,
tlog-tiles and tlog-proof. Slow and plain on purpose: everything is computed by its definition.

    check_log.py LOGDIR VKEY_FILE [--saved FILE]... [--witness VKEY_FILE]... [--receipt FILE --entry FILE]
"""

import argparse
import base64
import hashlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile

SPKI_ED25519 = bytes.fromhex("302a300506032b6570032100")


def sha256(data):
    return hashlib.sha256(data).digest()


def need(condition, complaint):
    if not condition:
        sys.exit("FAILED: " + complaint)


# --- tree: RFC 6962, section 2.1 ---


def leaf(entry):
    return sha256(b"\x00" + entry)


def tree_hash(leaves):
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return leaves[0]
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + tree_hash(leaves[:k]) + tree_hash(leaves[k:]))


def root_from_path(index, size, leaf_hash, path):
    """The root to which an inclusion proof leads, by the recursion of section 2.1.1."""
    if size == 1:
        need(not path, "the inclusion proof is too long")
        return leaf_hash
    need(path, "the inclusion proof is too short")
    k = 1 << (size - 1).bit_length() - 1
    if index < k:
        return sha256(b"\x01" + root_from_path(index, k, leaf_hash, path[:-1]) + path[-1])
    return sha256(b"\x01" + path[-1] + root_from_path(index - k, size - k, leaf_hash, path[:-1]))


# --- notes ---


class Key:
    def __init__(self, path):
        self.name, key_id, key = pathlib.Path(path).read_text().strip().split("+", 2)
        typed = base64.b64decode(key, validate=True)
        self.kind, self.public = typed[0], typed[1:]
        self.id = sha256(self.name.encode() + b"\n" + typed)[:4]
        need(len(self.public) == 32, f"{path}: not an Ed25519 key")
        need(self.id.hex() == key_id, f"{path}: the key id does not belong to the key")

    def verify(self, message, signature):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "key").write_bytes(SPKI_ED25519 + self.public)
            (folder / "message").write_bytes(message)
            (folder / "signature").write_bytes(signature)
            command = "openssl pkeyutl -verify -pubin -keyform DER -inkey key -rawin -in message -sigfile signature"
            return subprocess.run(command.split(), cwd=folder, capture_output=True).returncode == 0


def read_note(text):
    text, lines = text.rsplit("\n\n", 1)
    need(lines.endswith("\n"), "the note does not end with a line end")
    signatures = []
    for line in lines[:-1].split("\n"):
        dash, name, value = line.split(" ")
        need(dash == "\u2014", "a signature line does not begin with a dash")
        value = base64.b64decode(value, validate=True)
        signatures.append((name, value[:4], value[4:]))
    return text + "\n", signatures


def read_checkpoint(text, log, witnesses):
    """Verifies the log's signature and every witness's; gives size and root."""
    text, signatures = read_note(text)
    by = lambda key: [value for name, key_id, value in signatures if (name, key_id) == (key.name, key.id)]
    need(log.kind == 1 and by(log), "the checkpoint is not signed by the log")
    for signature in by(log):
        need(log.verify(text.encode(), signature), "the log's signature is wrong")
    for witness in witnesses:
        need(witness.kind == 4 and by(witness), f"{witness.name} did not cosign")
        for value in by(witness):
            time = int.from_bytes(value[:8], "big")
            message = f"cosignature/v1\ntime {time}\n{text}".encode()
            need(witness.verify(message, value[8:]), f"the cosignature of {witness.name} is wrong")
    origin, size, root = text[:-1].split("\n")
    need(origin == log.name, "the checkpoint is of another log")
    need(re.fullmatch("0|[1-9][0-9]*", size), "the size does not have its form")
    return int(size), base64.b64decode(root, validate=True)


# --- files ---


def tile_path(kind, index, width):
    groups = [f"{index % 1000:03}"]
    while index >= 1000:
        index //= 1000
        groups.insert(0, f"x{index % 1000:03}")
    return f"tile/{kind}/{'/'.join(groups)}" + ("" if width == 256 else f".p/{width}")


def rows(count):
    """Index and width of every tile that holds a row of so many things."""
    return [(first // 256, min(256, count - first)) for first in range(0, count, 256)]


def read_entries(log, size):
    entries = []
    for index, width in rows(size):
        path = tile_path("entries", index, width)
        data, found = (log / path).read_bytes(), []
        while data:
            length = int.from_bytes(data[:2], "big")
            need(len(data) >= 2 + length, f"{path}: ends inside an entry")
            found.append(data[2 : 2 + length])
            data = data[2 + length :]
        need(len(found) == width, f"{path}: does not hold {width} entries")
        entries += found
    return entries


def check_tiles(log, leaves):
    level, row, tiles = 0, leaves, 0
    while row:
        for index, width in rows(len(row)):
            path = tile_path(level, index, width)
            want = b"".join(row[256 * index : 256 * index + width])
            need((log / path).read_bytes() == want, f"{path}: does not belong to the entries")
            tiles += 1
        row = [tree_hash(row[at : at + 256]) for at in range(0, len(row) - 255, 256)]
        level += 1
    return tiles


def no_floats(text):
    need(False, f"a number that is not an integer: {text}")


def check_entry(n, data):
    """Canonical JSON: what is read and written again with sorted keys is the same bytes."""
    text = data.decode()
    entry = json.loads(text, parse_float=no_floats, parse_constant=no_floats)
    again = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    need(again == text, f"entry {n} is not canonical")
    fields = ["actor", "body", "charter", "n", "time", "type", "v"]
    need(list(entry) == fields and entry["v"] == 1, f"entry {n} does not have its fields")
    need(entry["n"] == n, f"entry {n} says that it is entry {entry['n']}")


def check_receipt(receipt, entry, log, witnesses):
    head, note = receipt.split("\n\n", 1)
    lines = head.split("\n")
    need(lines.pop(0) == "c2sp.org/tlog-proof@v1", "not a receipt")
    if lines[0].startswith("extra "):
        lines.pop(0)
    index = int(lines.pop(0).removeprefix("index "))
    path = [base64.b64decode(line, validate=True) for line in lines]
    size, root = read_checkpoint(note, log, witnesses)
    need(index < size, "the receipt is about an entry outside the log")
    need(root_from_path(index, size, leaf(entry), path) == root, "the receipt is not of this entry")
    return index


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("log", type=pathlib.Path)
    parser.add_argument("vkey")
    parser.add_argument("--saved", action="append", default=[])
    parser.add_argument("--witness", action="append", default=[])
    parser.add_argument("--receipt")
    parser.add_argument("--entry")
    options = parser.parse_args()
    key = Key(options.vkey)
    witnesses = [Key(path) for path in options.witness]

    size, root = read_checkpoint((options.log / "checkpoint").read_text(), key, witnesses)
    entries = read_entries(options.log, size)
    for n, entry in enumerate(entries):
        check_entry(n, entry)
    leaves = [leaf(entry) for entry in entries]
    need(tree_hash(leaves) == root, "the entries do not lead to the signed root")
    tiles = check_tiles(options.log, leaves)
    for path in options.saved:
        old, old_root = read_checkpoint(pathlib.Path(path).read_text(), key, [])
        need(old <= size, f"{path}: the log shrank")
        need(tree_hash(leaves[:old]) == old_root, f"{path}: the log forked")
    objects = sorted((options.log / "objects").glob("*"))
    for path in objects:
        need(sha256(path.read_bytes()).hex() == path.name, f"{path}: not what its name says")
    print(f"{size} entries, {tiles} tiles, {len(objects)} objects: the log is whole")
    if options.receipt:
        entry = pathlib.Path(options.entry).read_bytes()
        index = check_receipt(pathlib.Path(options.receipt).read_text(), entry, key, witnesses)
        print(f"entry {index} is in it")


try:
    main()
except (ValueError, OSError, IndexError) as error:
    sys.exit(f"FAILED: {error!r}")
