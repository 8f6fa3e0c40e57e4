#!/usr/bin/env python3
"""An independent reader of keyturn's formats, written from docs/FORMATS.md.

Nothing but Python's standard library. Reads JSON lines on standard input,

    {"type": "request", "data": BASE64, "under": BASE64 or null, "of": BASE64 or null}

and answers each with one line: "ok SHA256 SIX WORDS", or "refused CODE". `under` is the charter by which a
definition or manifest is judged, `of` the definition of a manifest or the charter before a charter.
"""

import base64
import binascii
import datetime
import hashlib
import ipaddress
import json
import pathlib
import re
import sys
import unicodedata

WORDS = (pathlib.Path(__file__).parent.parent / "src" / "words.txt").read_text("ascii").split()
MAX_INTEGER = 2**53 - 1
DIGEST, STAMP, ID = re.compile(r"[0-9a-f]{64}"), r"%Y-%m-%dT%H:%M:%SZ", re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
NAME = re.compile(r"[a-z0-9]+(?:[-_.][a-z0-9]+)*")
INTEGER = re.compile(r"0|[1-9][0-9]*")


class Refused(Exception):
    """Carries the code of section 2 or 3."""


class Wrong(Exception):
    """A value is not as it should be."""


def need(kept):
    if not kept:
        raise Wrong


# --- Values (section 1) ---------------------------------------------------------------------------

def exact(pattern, text):
    need(isinstance(text, str) and pattern.fullmatch(text) and text.isascii())
    return text


def digest(text):
    return exact(DIGEST, text)


def ulid(text):
    return exact(ID, text)


def name(text):
    need(len(exact(NAME, text)) <= 64)
    return text


def origin(text, least=1, longest=128):
    need(isinstance(text, str) and len(text) <= longest and least <= len(text.split("/")) <= 8)
    for part in text.split("/"):
        name(part)
    return text


def path(text):
    return origin(text, 2, 256)


def integer(text, least=0, most=MAX_INTEGER):
    need(least <= int(exact(INTEGER, text)[:20]) <= most and len(text) <= 16)
    return int(text)


def version(text):
    need(text.startswith("v"))
    return integer(text[1:], 1)


def stamp(text):
    need(isinstance(text, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text) and text.isascii())
    try:
        need(datetime.datetime.strptime(text, STAMP).year >= 1970 and text[17:19] < "60")
    except ValueError:
        raise Wrong from None
    return text


def span(text):
    need(re.fullmatch(r"(0|[1-9][0-9]{0,15})[smhd]", text) and text.isascii())
    secs = int(text[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[text[-1]]
    units = [unit for unit, size in (("d", 86400), ("h", 3600), ("m", 60)) if secs and secs % size == 0]
    need(secs <= 36500 * 86400 and text[-1] == (units + ["s"])[0])
    return secs


HIDDEN = [
    tuple(int(end, 16) for end in (part.split("-") * 2)[:2])
    for part in """0-1F 7F-9F A0 AD 34F 600-605 61C 6DD 70F 890-891 8E2 115F-1160 1680 17B4-17B5 180B-180F 2000-200F
    2028-202F 205F-206F 2800 3000 3164 E000-F8FF FDD0-FDEF FE00-FE0F FEFF FFA0 FFF0-FFFF 110BD 110CD 13430-1343F
    1BCA0-1BCA3 1D173-1D17A 1FFFE-1FFFF 2FFFE-2FFFF 3FFFE-10FFFF""".split()
]


def line(text):
    need(isinstance(text, str) and 1 <= len(text.encode("utf-8", "surrogatepass")) <= 500 and text != "-")
    need(text == text.strip(" ") and "  " not in text)
    need(not any(low <= ord(char) <= high for char in text for low, high in HIDDEN))
    need(not any(0xD800 <= ord(char) <= 0xDFFF for char in text) and unicodedata.is_normalized("NFC", text))
    return text


def raw(text):
    need(isinstance(text, str) and text.isascii())
    try:
        octets = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Wrong from None
    need(base64.b64encode(octets).decode() == text)
    return octets


SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")


def public_key(text):
    key = raw(text)
    need(len(key) == 91 and key.startswith(SPKI))
    return text


def bech32(prefix, size, text):
    """The bytes of a Bech32 text (BIP-173), or None."""
    charset = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    if not text.startswith(prefix + "1") or any(char not in charset for char in text[len(prefix) + 1:]):
        return None
    values = [charset.index(char) for char in text[len(prefix) + 1:]]
    checked, sum_ = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix] + values, 1
    for value in checked:
        top, sum_ = sum_ >> 25, (sum_ & 0x1FFFFFF) << 5 ^ value
        for bit, term in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            sum_ ^= term if top >> bit & 1 else 0
    number, bits = 0, 5 * (len(values) - 6)
    for value in values[:-6]:
        number = number << 5 | value
    spare = bits - 8 * size
    if sum_ != 1 or not 0 <= spare < 5 or number & ((1 << spare) - 1):
        return None
    return (number >> spare).to_bytes(size, "big")


def share_key(text):
    need(isinstance(text, str))
    if bech32("age", 32, text) is None:
        key = bech32("age1yubikey", 33, text)
        need(key is not None and key[0] in (2, 3))
    return text


def verifier_key(text, algorithm):
    need(isinstance(text, str))
    parts = text.split("+", 2)
    need(len(parts) == 3)
    key = raw(parts[2])
    need(len(key) == 33 and key[0] in (1, 4))
    need(hashlib.sha256(origin(parts[0]).encode() + b"\n" + key).hexdigest()[:8] == parts[1])
    return parts[0], key[0] == algorithm


def firmware(text):
    need(isinstance(text, str) and len(text.split(".")) == 3)
    return [integer(part, 0, 255) for part in text.split(".")]


def network(text):
    need(isinstance(text, str))
    try:
        found = ipaddress.ip_network(text, strict=True)
    except ValueError:
        raise Wrong from None
    need(str(found) == text and getattr(found.network_address, "ipv4_mapped", None) is None)
    return text


def skeleton(text):
    for seen, meant in (("rn", "m"), ("vv", "w"), ("0", "o"), ("1", "l"), ("_", "-"), (".", "-")):
        text = text.replace(seen, meant)
    return text


def words(hexadecimal):
    top = int(hexadecimal, 16) >> (256 - 66)
    return " ".join(WORDS[top >> shift & 2047] for shift in range(55, -1, -11))


# --- Signed texts (section 2) -----------------------------------------------------------------------

def fields(text, *readers):
    """The parts of a value, with one blank between."""
    parts = text.split(" ")
    need(len(parts) == len(readers))
    return tuple(read(part) for read, part in zip(readers, parts))


def word(*known):
    def read(text):
        need(text in known)
        return text
    return read


def dash(read):
    return lambda text: None if text == "-" else read(text)


def positive(text):
    return integer(text, 1)


def charter_ref(text):
    return fields(text, positive, digest)


def head(text):
    return fields(text, integer, digest)


def person(text):
    return fields(text, name, ulid)


def token(text):
    serial = dash(lambda number: integer(number, 0, 2**32 - 1))
    return fields(text, ulid, word("yubikey", "software"), serial)


def device(text):
    return fields(text, ulid, name, public_key)


def credential(text):
    return fields(text, path, ulid, version, digest)


def state(parts, not_held):
    if len(parts) == 2:
        need(parts[0].startswith("x"))
        return integer(parts[0][1:], 1, 255), digest(parts[1])
    need(len(parts) == 1 and parts[0] in ("unreadable",) + ("not-held",) * not_held)
    return parts[0]


def share(text):
    parts = text.split(" ")
    need(len(parts) >= 3)
    return path(parts[0]), version(parts[1]), state(parts[2:], True)


def tried(text):
    parts = text.split(" ")
    need(len(parts) >= 5)
    return path(parts[0]), version(parts[3]), name(parts[2]), ulid(parts[1]), state(parts[4:], False)


def returned(text):
    return fields(text, path, ulid, word("worked"), dash(version), word("void"), dash(version))


WAIVERS = "attestation check-out devices firmware hours networks requester teams ticket".split()


def waivers(text):
    listed = text.split(" ")
    need(text == "-" or [waiver for waiver in WAIVERS if waiver in listed] == listed)
    return listed


def subject(purpose):
    new_head, pin = lambda text: fields(text, integer, digest), dash(digest)

    def read(text):
        parts = text.split(" ")
        if purpose in ("unseal", "drill"):
            need(text == "-")
        elif purpose == "reshare" or purpose == "change" and parts[0] == "charter":
            fields(text, word("charter"), positive, digest)
        elif purpose == "change":
            fields(text, word("definition"), ulid, digest, digest)
        elif purpose == "extend":
            fields(text, word("checkout"), ulid, word("until"), stamp)
        elif purpose == "erase":
            fields(text, ulid, digest)
        else:
            need(len(parts) == 12 and parts[0::3][:2] == ["head", "lost"])
            need((parts[6], parts[8], parts[10]) == ("log-key", "node-key", "documents"))
            new_head(" ".join(parts[1:3]))
            need(parts[4:6] == ["-", "-"] or new_head(" ".join(parts[4:6])))
            pin(parts[7]), pin(parts[9]), digest(parts[11])
        return text
    return read


class Lines:
    """Reads a text from the top."""

    def __init__(self, kind, data):
        if len(data) > 16384:
            raise Refused("size")
        if not data.endswith(b"\n"):
            raise Refused("end")
        self.rest = data.decode("utf-8").split("\n")[:-1]
        if self.rest.pop(0) != f"keyturn {kind} v1":
            raise Refused("type")

    def one(self, label, read):
        if not self.rest or not self.rest[0].startswith(label + ": "):
            raise Refused("line")
        text = self.rest.pop(0)[len(label) + 2:]
        try:
            return read(text if text == "-" else line(text))
        except Wrong:
            raise Refused("value") from None

    def each(self, label, read, most):
        found = []
        while self.rest and self.rest[0].startswith(label + ": "):
            if len(found) == most:
                raise Refused("many")
            found.append(self.one(label, read))
        return found

    def table(self, **rows):
        found = {}
        for label, read in rows.items():
            found[label] = self.one(label.replace("_", "-"), read)
        return found

    def end(self):
        if self.rest:
            raise Refused("extra")


def rule(*kept):
    if not all(kept):
        raise Refused("rule")


def order(keys):
    if any(one >= other for one, other in zip(keys, keys[1:])):
        raise Refused("order")


def text(value):
    """A value that must not be empty."""
    need(value != "-")
    return value


def request(lines):
    got = lines.table(vault=origin, ceremony=ulid)
    purpose = lines.one("purpose", word("unseal", "drill", "reshare", "change", "extend", "accept-restore", "erase"))
    lines.one("subject", subject(purpose))
    got = lines.table(
        scenario=dash(name), group=dash(name), requested_by=person, used_by=dash(text), deliver_to=dash(share_key),
        ticket=dash(text), details=digest, check_out=dash(span), waive=waivers, charter=charter_ref, log=head,
        opened=stamp, valid_for=span, salt=digest)
    credentials = lines.each("credential", credential, 32)
    lines.end()
    delivers = purpose in ("unseal", "drill")
    opens = delivers or purpose == "reshare"
    rule(delivers == (got["deliver_to"] is not None))
    rule(delivers == (got["check_out"] is not None), got["check_out"] != 0)
    rule(delivers or got["used_by"] is None, opens or got["group"] is None)
    rule(opens == bool(credentials), got["valid_for"] > 0)
    order([(row[0].encode(), row[2]) for row in credentials])
    paths, ids = {row[0] for row in credentials}, {row[1] for row in credentials}
    rule(len(paths) <= 8, len(paths) == len(ids) == len({row[:2] for row in credentials}))


def approval(lines):
    lines.table(request_sha256=digest, custodian=person, token=token)
    shares = lines.each("share", share, 32)
    got = lines.table(decision=word("approve", "refuse", "retract"), reason=dash(digest), retracts=dash(digest),
                      charter=dash(charter_ref), log=dash(head), signed=stamp)
    lines.end()
    decision = got["decision"]
    rule(not shares or decision == "approve", (got["reason"] is not None) == (decision == "refuse"),
         (got["retracts"] is not None) == (decision == "retract"))
    order([(row[0].encode(), row[1]) for row in shares])


def details(lines):
    lines.table(salt=digest, reason=text, contact=dash(text), systems=dash(text))
    lines.end()


def submit_key(lines):
    got = lines.table(vault=origin, ceremony=ulid, request_sha256=digest, node=ulid, submit_key=share_key, made=stamp)
    lines.end()
    rule(bech32("age", 32, got["submit_key"]) is not None)


def checkin(lines):
    lines.table(vault=origin, ceremony=ulid, request_sha256=digest, returned_by=person, signed=stamp)
    found = lines.each("credential", returned, 8)
    lines.end()
    rule(found, all(row[3] is None or row[3] != row[5] for row in found))
    order([row[0].encode() for row in found])


def enrol(lines):
    got = lines.table(person=person, token=token, approval_key=public_key, share_key=share_key,
                      attestation=dash(digest), device=dash(device), made=stamp)
    lines.end()
    _, kind, serial = got["token"]
    rule((serial is not None) == (kind == "yubikey"), kind == "yubikey" or got["attestation"] is None)
    rule(got["device"] is None or got["device"][2] != got["approval_key"])


def join(lines):
    got = lines.table(vault=origin, genesis=digest, charter=charter_ref, enrolment=digest, person=person, token=token,
                      nonce=digest, signed=stamp)
    lines.end()
    rule((got["charter"][0] == 1) == (got["charter"][1] == got["genesis"]))


def new_device(lines):
    got = lines.table(vault=origin, genesis=digest, charter=charter_ref, person=person, token=token, device=device,
                      signed=stamp)
    lines.end()
    rule((got["charter"][0] == 1) == (got["charter"][1] == got["genesis"]))


def heartbeat(lines):
    lines.table(vault=origin, person=person, token=token, charter=charter_ref, log=head, signed=stamp)
    shares = lines.each("share", tried, 32)
    lines.end()
    order([(row[0].encode(), row[1], row[2].encode()) for row in shares])


def review(lines):
    got = lines.table(vault=origin, ceremony=ulid, request_sha256=digest, reviewer=person,
                      outcome=word("in-order", "questioned"), note=dash(digest), log=head, signed=stamp)
    lines.end()
    rule(got["outcome"] == "in-order" or got["note"] is not None)


def recover(lines):
    lines.table(vault=origin, ceremony=ulid, group=name, requested_by=person, used_by=dash(text),
                deliver_to=share_key, ticket=dash(text), details=digest, opened=stamp, salt=digest,
                credential=credential)
    lines.end()


TEXTS = {"request": request, "approval": approval, "details": details, "submit-key": submit_key, "checkin": checkin,
         "enrol": enrol, "join": join, "device": new_device, "heartbeat": heartbeat, "review": review,
         "recover": recover}


# --- Documents (section 3) ---------------------------------------------------------------------------

def number(least=0, most=MAX_INTEGER):
    def read(value):
        need(type(value) is int and least <= value <= most)
    return read


def boolean(value):
    need(type(value) is bool)


def one_of(*known):
    def read(value):
        need(isinstance(value, str) and value in known)
    return read


def maybe(read):
    return lambda value: value is None or read(value)


def each(read):
    def all_of(value):
        need(isinstance(value, list))
        for item in value:
            read(item)
    return all_of


def ascending(read, key=lambda item: item.encode()):
    def all_of(value):
        each(read)(value)
        keys = [key(item) for item in value]
        need(all(one < other for one, other in zip(keys, keys[1:])))
    return all_of


def shape(**rows):
    def read(value):
        need(isinstance(value, dict) and set(value) == set(rows))
        for field, reader in rows.items():
            reader(value[field])
    return read


def mapping(value):
    need(isinstance(value, dict))
    for key, item in value.items():
        name(key), line(item)


def listed(*known):
    return ascending(one_of(*known), known.index)


seconds, byte, ids = number(0, 36500 * 86400), number(0, 255), ascending(ulid)
charter_shape, head_shape = shape(index=number(), digest=digest), shape(size=number(), root=digest)
slot = shape(pin=one_of("never", "once", "always"), touch=one_of("never", "cached", "always"))
node_shape = shape(id=ulid, name=name, key=public_key)
KINDS = "aws-root aws-iam-password aws-iam-access-key totp-seed postgres ldap mfa text".split()
SHAPES = {
    "charter": (524288, shape(
        format=one_of("keyturn charter v1"), origin=origin, index=number(), previous=maybe(digest),
        persons=each(shape(
            id=ulid, name=name, roles=listed("custodian", "requester", "operator", "auditor"),
            tokens=each(shape(
                id=ulid, kind=one_of("yubikey", "software"), serial=maybe(number(0, 2**32 - 1)),
                approval_key=public_key, share_key=share_key,
                attestation=maybe(shape(object=digest, firmware=firmware, approval=slot, share=slot)))),
            devices=each(node_shape))),
        groups=each(shape(
            name=name, k=byte, members=ids, governing=boolean, allow_no_spare=boolean,
            rules=shape(one_from_each=each(shape(name=name, members=ids))))),
        policies=each(shape(
            name=name, valid_for_secs=seconds, waiting_secs=seconds, check_out_secs=seconds,
            check_out_max_secs=seconds, extend_max_secs=seconds, grace_secs=seconds, quarantine_secs=seconds,
            rotate_max_age_secs=seconds, require_attestation=boolean, minimum_firmware=maybe(firmware),
            different_devices=boolean, requester_may_approve=boolean,
            hours=each(shape(days=listed("mon", "tue", "wed", "thu", "fri", "sat", "sun"), from_hour=byte,
                             until_hour=byte)),
            networks=each(network), cosignatures=byte, cosignature_wait_secs=seconds, notices=ascending(name),
            copies_min=byte)),
        scenarios=each(shape(
            name=name, waiting_secs=maybe(seconds), valid_for_secs=maybe(seconds), check_out_secs=maybe(seconds),
            check_out_max_secs=maybe(seconds), cosignatures=maybe(byte), require_ticket=boolean,
            notices=ascending(name))),
        nodes=each(node_shape), log_key=lambda key: verifier_key(key, 1),
        witnesses=each(lambda key: verifier_key(key, 4)), joins=ascending(digest))),
    "definition": (49152, shape(
        format=one_of("keyturn definition v1"), origin=origin, credential=ulid, path=path, kind=one_of(*KINDS),
        group=name, fallback=maybe(name), policy=name, connector=maybe(shape(name=name, settings=mapping)),
        canary=boolean, metadata=mapping, previous=maybe(digest))),
    "manifest": (49152, shape(
        format=one_of("keyturn manifest v1"), origin=origin, definition=digest, credential=ulid, version=number(1),
        kind=one_of(*KINDS), charter=charter_shape, ciphertext=digest,
        groups=each(shape(group=name, k=byte, n=byte, holders=each(shape(
            person=ulid, x=byte, tokens=ids, commitment=digest, envelope=digest)))))),
    "restore": (4194304, shape(
        format=one_of("keyturn restore v1"), origin=origin, head=head_shape, lost=maybe(head_shape),
        charter=charter_shape, log_key=maybe(lambda key: verifier_key(key, 1)), node=maybe(node_shape),
        documents=ascending(digest))),
}


def document(kind, data):
    largest, read = SHAPES[kind]
    if len(data) > largest:
        raise Refused("size")
    try:
        value = json.loads(data.decode("utf-8"), parse_float=lambda _: need(False), parse_constant=lambda _: need(False))
        read(value)
        again = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8")
        need(again == data)
    except (ValueError, RecursionError, Wrong):
        raise Refused("form") from None
    return value


def distinct(values):
    values = list(values)
    return len(set(values)) == len(values)


def named(items):
    return distinct(skeleton(item["name"]) for item in items)


def under(policy, scenario):
    """The policy as a scenario changes it."""
    changed = dict(policy, notices=set(policy["notices"]) | set(scenario["notices"]))
    for field in ("waiting_secs", "valid_for_secs", "check_out_secs", "check_out_max_secs", "cosignatures"):
        if scenario[field] is not None:
            changed[field] = scenario[field]
    return changed


def check_policy(policy, witnesses):
    waits = ("valid_for", "waiting", "extend_max", "grace", "quarantine")
    rule(all(policy[wait + "_secs"] <= 400 * 86400 for wait in waits))
    rule(policy["valid_for_secs"] > 0)
    rule(0 < policy["check_out_secs"] <= policy["check_out_max_secs"] <= policy["extend_max_secs"])
    rule(all(hours["days"] and hours["from_hour"] < hours["until_hour"] <= 24 for hours in policy["hours"]))
    rule(all(len(policy[field]) <= 32 for field in ("hours", "networks", "notices")))
    rule(policy["cosignatures"] <= witnesses, policy["cosignature_wait_secs"] <= 60, policy["copies_min"] <= 8)


def check_group(group, custodians):
    members, teams = set(group["members"]), group["rules"]["one_from_each"]
    rule(len(members) <= 60, members <= custodians, 2 <= group["k"] <= len(members))
    rule(group["k"] < len(members) or group["allow_no_spare"])
    rule(len(teams) <= 16, len(teams) <= group["k"], named(teams))
    rule(all(team["members"] and set(team["members"]) <= members for team in teams))


def check_charter(charter):
    persons, nodes = charter["persons"], charter["nodes"]
    tokens = [token for person in persons for token in person["tokens"]]
    devices = [device for person in persons for device in person["devices"]]
    first = charter["index"] == 1
    rule(charter["index"] >= 1, (charter["previous"] is None) == first, not (first and charter["joins"]))
    for field, least, most in (("persons", 1, 500), ("groups", 1, 100), ("policies", 1, 100), ("scenarios", 0, 100),
                               ("nodes", 1, 16), ("witnesses", 0, 16), ("joins", 0, 1000)):
        rule(least <= len(charter[field]) <= most)
    rule(distinct(item["id"] for item in persons + tokens + devices + nodes))
    rule(all(named(charter[field]) for field in ("persons", "groups", "policies", "scenarios", "nodes")))
    witnesses = [verifier_key(key, 4) for key in charter["witnesses"]]
    rule(distinct(skeleton(witness) for witness, _ in witnesses))
    for person in persons:
        rule(person["roles"], person["tokens"] or person["devices"], named(person["devices"]))
        rule(person["tokens"] or "custodian" not in person["roles"])
        rule(len(person["tokens"]) <= 4, len(person["devices"]) <= 8)
    for token in tokens:
        hardware = token["kind"] == "yubikey"
        rule((token["serial"] is not None) == hardware, hardware or token["attestation"] is None)
    rule(distinct([token["approval_key"] for token in tokens] + [item["key"] for item in devices + nodes]))
    rule(distinct(token["share_key"] for token in tokens))
    rule(distinct(token["serial"] for token in tokens if token["serial"] is not None))
    rule(verifier_key(charter["log_key"], 1) == (charter["origin"], True))
    rule(all(right and witness != charter["origin"] for witness, right in witnesses))
    rule([group["governing"] for group in charter["groups"]].count(True) == 1)
    custodians = {person["id"] for person in persons if "custodian" in person["roles"]}
    for group in charter["groups"]:
        check_group(group, custodians)
    for policy in charter["policies"]:
        check_policy(policy, len(witnesses))
        for scenario in charter["scenarios"]:
            check_policy(under(policy, scenario), len(witnesses))


def meanings(charter):
    found = {node["id"]: node["key"] for node in charter["nodes"]}
    for person in charter["persons"]:
        for token in person["tokens"]:
            found[token["id"]] = [person["id"]] + [token[field] for field in ("kind", "serial", "approval_key", "share_key")]
        for device in person["devices"]:
            found[device["id"]] = [person["id"], device["key"]]
    return found


def check_follows(charter, before, data):
    rule(charter["origin"] == before["origin"], charter["index"] == before["index"] + 1)
    rule(charter["previous"] == hashlib.sha256(data).hexdigest())
    old, new = meanings(before), meanings(charter)
    rule(all(old.get(key, new[key]) == new[key] for key in new))
    tokens = {token["id"] for person in charter["persons"] for token in person["tokens"]}
    rule(len(tokens - {token["id"] for person in before["persons"] for token in person["tokens"]}) == len(charter["joins"]))


def check_definition(definition, charter):
    groups = {group["name"] for group in charter["groups"]}
    rule(definition["origin"] == charter["origin"], definition["group"] in groups)
    rule(definition["fallback"] is None or definition["fallback"] in groups - {definition["group"]})
    rule(definition["policy"] in {policy["name"] for policy in charter["policies"]})
    rule(len((definition["connector"] or {"settings": {}})["settings"]) <= 32, len(definition["metadata"]) <= 32)


def check_manifest(manifest, charter, charter_data, definition, definition_data):
    rule(all(manifest[field] == definition[field] for field in ("origin", "credential", "kind")))
    rule(manifest["definition"] == hashlib.sha256(definition_data).hexdigest(), manifest["origin"] == charter["origin"])
    rule(manifest["charter"] == {"index": charter["index"], "digest": hashlib.sha256(charter_data).hexdigest()})
    wanted = [definition["group"]] + ([definition["fallback"]] if definition["fallback"] else [])
    rule([group["group"] for group in manifest["groups"]] == wanted)
    chartered = {group["name"]: group for group in charter["groups"]}
    tokens = {person["id"]: sorted(token["id"] for token in person["tokens"]) for person in charter["persons"]}
    for group in manifest["groups"]:
        members, holders = chartered[group["group"]]["members"], group["holders"]
        rule(chartered[group["group"]]["k"] <= group["k"] <= group["n"] == len(members))
        rule([(one["person"], one["x"]) for one in holders] == list(zip(members, range(1, group["n"] + 1))))
        rule(all(holder["tokens"] == tokens[holder["person"]] for holder in holders))
    holders = [holder for group in manifest["groups"] for holder in group["holders"]]
    rule(all(distinct(holder[field] for holder in holders) for field in ("commitment", "envelope")))


def judge(kind, data, charter_data, of_data):
    if kind in TEXTS:
        TEXTS[kind](Lines(kind, data))
        return
    value = document(kind, data)
    charter = document("charter", charter_data) if charter_data else None
    if kind == "charter":
        check_charter(value)
        if of_data:
            check_follows(value, document("charter", of_data), of_data)
    elif kind == "definition" and charter:
        check_definition(value, charter)
    elif kind == "manifest" and charter:
        check_manifest(value, charter, charter_data, document("definition", of_data), of_data)


def main():
    for row in sys.stdin:
        row = json.loads(row)
        data, charter, of = (base64.b64decode(row[field]) if row[field] else b"" for field in ("data", "under", "of"))
        try:
            judge(row["type"], data, charter, of)
            found = hashlib.sha256(data).hexdigest()
            print("ok", found, words(found))
        except Refused as refused:
            print("refused", refused)


if __name__ == "__main__":
    main()
