#!/usr/bin/env python3
"""What keyturn-seal computes, computed again from the documentation alone.

Only the standard library; shares no code with the Rust crate. SHARE files are decrypted envelopes (age -d).

    oracle.py commitment SHARE...   the commitment to each share, in hexadecimal
    oracle.py combine SHARE...      the identity that the ciphertext is encrypted to (give k shares of one version and group)
    oracle.py share X SHARE...      custodian X's share, computed from k others
    oracle.py identity HEX          32 bytes (of argon2, or by hand) as an age identity
"""

import hashlib
import re
import sys

LABEL = b"keyturn share commitment v1"
LINES = ["origin", "credential", "version", "group", "k", "n", "x", "share"]
NUMBERS = ["version", "k", "n", "x"]
BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def parse(path):
    """A decrypted envelope: a type line, then the eight lines in their order, nothing else."""
    with open(path, "rb") as file:
        lines = file.read().decode("ascii").split("\n")
    if lines[0] != "keyturn share v1" or lines[-1] != "" or len(lines) != len(LINES) + 2:
        raise ValueError("not a share, or altered")
    share = {}
    for name, line in zip(LINES, lines[1:]):
        key, _, value = line.partition(": ")
        if key != name or not re.fullmatch(r"[!-~]{1,500}", value):
            raise ValueError(f"line `{name}` is not well-formed")
        share[name] = value
    for name in NUMBERS:
        if not re.fullmatch(r"[1-9][0-9]*", share[name]):
            raise ValueError(f"`{name}` is not a number from 1")
        share[name] = int(share[name])
    if not re.fullmatch(r"[0-9a-f]{64}", share["share"]):
        raise ValueError("the share is not 64 hexadecimal digits")
    share["share"] = bytes.fromhex(share["share"])
    if not (2 <= share["k"] <= share["n"] <= 64 and share["x"] <= share["n"] and share["version"] < 2**64):
        raise ValueError("the numbers are not possible")
    return share


def commitment(share):
    """SHA-256 over the fields, each after its length in 4 bytes."""
    fields = [
        LABEL,
        share["origin"].encode(),
        share["credential"].encode(),
        share["version"].to_bytes(8, "big"),
        share["group"].encode(),
        share["x"].to_bytes(1, "big"),
        share["share"],
    ]
    return hashlib.sha256(b"".join(len(field).to_bytes(4, "big") + field for field in fields)).hexdigest()


def times(a, b):
    """The product in GF(256): polynomials over GF(2) modulo x^8 + x^4 + x^3 + x^2 + 1."""
    product = 0
    for bit in range(8):
        if b >> bit & 1:
            product ^= a << bit
    for bit in range(14, 7, -1):
        if product >> bit & 1:
            product ^= 0x11D << (bit - 8)
    return product


def over(a, b):
    """The quotient: the only c with c times b = a."""
    return next(c for c in range(256) if times(c, b) == a)


def value_at(at, shares):
    """Lagrange's interpolation, byte by byte. Adding and subtracting are XOR."""
    value = bytes(32)
    for one in shares:
        weight = 1
        for other in shares:
            if other is not one:
                weight = times(weight, over(other["x"] ^ at, other["x"] ^ one["x"]))
        value = bytes(sum ^ times(y, weight) for sum, y in zip(value, one["share"]))
    return value


def quorum(paths):
    """Exactly k shares of one version and group, all different."""
    shares = [parse(path) for path in paths]
    facts = {tuple(share[name] for name in LINES if name not in ("x", "share")) for share in shares}
    if len(facts) != 1:
        raise ValueError("the shares are of different versions or groups")
    if len({share["x"] for share in shares}) != len(shares):
        raise ValueError("a share is given twice")
    if len(shares) < shares[0]["k"]:
        raise ValueError(f"{shares[0]['k']} shares are needed")
    return shares[: shares[0]["k"]]


def identity(secret):
    """BIP-173 with the prefix age-secret-key-, in upper case."""
    if len(secret) != 32:
        raise ValueError("an identity has 32 bytes")
    bits = "".join(f"{byte:08b}" for byte in secret)
    bits += "0" * (-len(bits) % 5)
    data = [int(bits[at : at + 5], 2) for at in range(0, len(bits), 5)]
    prefix = "age-secret-key-"
    expanded = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
    check = 1
    for value in expanded + data + [0] * 6:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate([0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3]):
            if top >> bit & 1:
                check ^= generator
    data += [(check ^ 1) >> 5 * (5 - place) & 31 for place in range(6)]
    return (prefix + "1" + "".join(BECH32[value] for value in data)).upper()


def main(command, *arguments):
    if command == "commitment":
        for path in arguments:
            print(commitment(parse(path)))
    elif command == "combine":
        print(identity(value_at(0, quorum(arguments))))
    elif command == "share":
        print(value_at(int(arguments[0]), quorum(arguments[1:])).hex())
    elif command == "identity":
        print(identity(bytes.fromhex(arguments[0])))
    else:
        raise ValueError("unknown command; see the beginning of this file")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except (ValueError, OSError, IndexError) as error:
        sys.exit(f"error: {error}")
