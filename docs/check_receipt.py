#!/usr/bin/env python3
"""Computes the digests of a receipt again, from the files it is of.

    check_receipt.py RECEIPT [--module FILE] [--chunks FILE] [--outputs FILE]
                     [--aggregate FILE] [--context FILE] [--proof FILE]
                     [--dir HOST:GUEST]... [--definition FILE] [--effects FILE]

It shares no code with wasm-jobs, needs the standard library alone, and executes
nothing: docs/receipt.md says what is computed. Each file that is given is
checked. --outputs is what run --outputs wrote, and --aggregate what run -o did.

RECEIPT may be of a flow (docs/flow-receipt.md). --outputs, --aggregate and --effects
are then what flow run wrote, --proof is of flow prove, and --definition is a
definition in JSON, with its modules in its folder.

Exit codes: 0 all that was checked agrees, 1 something does not, 2 a file cannot
be read.
"""

import argparse
import hashlib
import json
import os
import re
import sys

MAX_DEPTH = 256  # arrays, maps and tags inside one another


class Malformed(Exception):
    """A file is invalid."""


def head(b, at):
    """Returns major type, argument (None = indefinite) and end of a head."""
    if at >= len(b):
        raise Malformed("the input ends within an item")
    major, info = b[at] >> 5, b[at] & 31
    at += 1
    if info < 24:
        return major, info, at
    if info < 28:
        size = 1 << (info - 24)
        if at + size > len(b):
            raise Malformed("the input ends within an item")
        return major, int.from_bytes(b[at : at + size], "big"), at + size
    if info == 31 and 2 <= major <= 5:
        return major, None, at
    raise Malformed("byte %d does not begin an item" % (at - 1))


def end_of_item(b, at, depth=0):
    """Returns where the CBOR item that begins at an offset ends."""
    major, arg, at = head(b, at)
    if major in (0, 1, 7):
        return at
    if major in (2, 3):
        if arg is None:
            while b[at : at + 1] != b"\xff":
                at = end_of_item(b, at, depth)
            return at + 1
        if at + arg > len(b):
            raise Malformed("the input ends within a string")
        return at + arg
    if depth >= MAX_DEPTH:
        raise Malformed("the items are nested too deeply")
    if arg is None:
        while b[at : at + 1] != b"\xff":
            at = end_of_item(b, at, depth + 1)
        return at + 1
    for _ in range({4: arg, 5: 2 * arg, 6: 1}[major]):
        at = end_of_item(b, at, depth + 1)
    return at


def items(b, at=0, end=None):
    """Yields the bytes of the items that follow each other."""
    end = len(b) if end is None else end
    while at < end:
        after = end_of_item(b, at)
        yield b[at:after]
        at = after


def elements(item):
    """Yields the items inside an array or map."""
    _, arg, at = head(item, 0)
    return items(item, at, len(item) - (arg is None))


def text_of(item):
    """Returns the bytes of a text, or None."""
    major, arg, at = head(item, 0)
    if major != 3:
        return None
    if arg is not None:
        return item[at:]
    return b"".join(part[head(part, 0)[2] :] for part in items(item, at, len(item) - 1))


def id_of(item):
    """Returns an id: ("int", n) or ("text", bytes). They sort in id order."""
    major, arg, _ = head(item, 0)
    if major == 0:
        return (0, arg)
    text = text_of(item)
    if text is None:
        raise Malformed("invalid id: want an unsigned integer or a text")
    return (1, text)


def member(item, key):
    """Returns the value under a text key of a map, or None."""
    if head(item, 0)[0] != 5:
        return None
    inside = list(elements(item))
    for k, v in zip(inside[::2], inside[1::2]):
        if text_of(k) == key:
            return v
    return None


def encode_head(major, n):
    """Returns the shortest head."""
    if n < 24:
        return bytes([major << 5 | n])
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if n < 1 << 8 * size:
            return bytes([major << 5 | info]) + n.to_bytes(size, "big")
    raise Malformed("a number has more than 64 bits")


def entry(ident, item):
    """Returns the CBOR array [id, item], with the id in its shortest form."""
    kind, value = ident
    shortest = encode_head(3, len(value)) + value if kind else encode_head(0, value)
    return b"\x82" + shortest + item


def sha256(b):
    return hashlib.sha256(b).digest()


def tree_root(leaves):
    """Returns the Merkle tree hash of RFC 6962, section 2.1."""
    stack = []  # of (leaves below, hash); sizes fall
    for leaf in leaves:
        stack.append((1, sha256(b"\x00" + leaf)))
        while len(stack) > 1 and stack[-1][0] == stack[-2][0]:
            join(stack)
    while len(stack) > 1:
        join(stack)
    return stack[0][1] if stack else sha256(b"")


def join(stack):
    size, right = stack.pop()
    left_size, left = stack.pop()
    stack.append((left_size + size, sha256(b"\x01" + left + right)))


def root_of_proof(leaf, index, size, path):
    """Returns where an audit path leads (RFC 6962, section 2.1.1), or None."""
    if not 0 <= index < size:
        return None
    node, last, path = sha256(b"\x00" + leaf), size - 1, list(path)
    while last > 0:
        if index & 1 or index < last:
            if not path:
                return None
            beside = path.pop(0)
            node = sha256(b"\x01" + (beside + node if index & 1 else node + beside))
        index, last = index >> 1, last >> 1
    return None if path else node


def chunks_of(b, id_key, layout):
    """Yields (id, chunk) for each chunk of a chunk file."""
    is_array = layout == "array" or layout == "auto" and b != b"" and head(b, 0)[0] == 4
    source = elements(b) if is_array else items(b)
    for position, chunk in enumerate(source):
        value = member(chunk, id_key) if id_key else None
        yield (0, position) if value is None else id_of(value), chunk


def outputs_of(b):
    """Yields (id, output) for each item of an outputs file."""
    for item in items(b):
        ident, output = member(item, b"id"), member(item, b"output")
        if ident is None or output is None:
            raise Malformed("an item is not a map of id and output")
        yield id_of(ident), output


def root_of_entries(pairs):
    pairs = sorted(pairs, key=lambda pair: pair[0])
    if any(a[0] == b[0] for a, b in zip(pairs, pairs[1:])):
        raise Malformed("duplicate id of two entries")
    return len(pairs), digest(tree_root(entry(i, item) for i, item in pairs))


def digest(b):
    return "sha256:" + b.hex()


def once(pairs):
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise Malformed("duplicate key")
    return dict(pairs)


def one_form(value):
    """Returns the only JSON that stands for a receipt."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return re.sub("[<>&\u2028\u2029]", lambda m: "\\u%04x" % ord(m[0]), text)


def tree_digest(top):
    """Returns the digest of a directory that a WASI command read."""
    h = hashlib.sha256(b"wasm-jobs directory 1\n")

    def sized(b):
        h.update(len(b).to_bytes(8, "big") + b)

    def walk(path, name):
        if os.path.islink(path):
            h.update(b"\x07")
            sized(name)
            sized(os.readlink(path))
        elif os.path.isdir(path):
            h.update(b"\x03")
            sized(name)
            names = sorted(os.listdir(path))
            h.update(len(names).to_bytes(8, "big"))
            for inner in names:
                walk(os.path.join(path, inner), inner)
        else:
            h.update(b"\x04")
            sized(name)
            sized(read(path))
            sized(b"")

    top = os.fsencode(top)
    walk(os.path.join(top, b"."), b"")
    return digest(h.digest())


def read_receipt(path):
    text = read(path).decode()
    receipt = json.loads(text, object_pairs_hook=once)
    if one_form(receipt) != text:
        raise Malformed("the receipt is not in canonical form")
    if receipt.get("version") != 1:
        raise Malformed("unsupported version: want 1")
    return receipt


def read(path):
    with open(path, "rb") as f:
        return f.read()


class Checks:
    def __init__(self):
        self.failed = False

    def same(self, what, has, computed):
        agrees = has == computed
        self.failed = self.failed or not agrees
        print("%s: %s" % (what, "agrees" if agrees else "differs: the receipt has %s, and the file %s" % (has, computed)))


def check(args, checks):
    receipt = read_receipt(args.receipt)
    if receipt.get("kind") == "flow":
        return check_flow(args, receipt, checks)
    if args.module:
        checks.same("module", receipt["module"], digest(sha256(read(args.module))))
    if args.context:
        context = read(args.context)
        checks.same("settings.context", receipt["settings"].get("context"), None if context == b"\xf6" else digest(sha256(context)))
    dirs = {d["guest"]: d["digest"] for d in receipt["settings"].get("dirs", [])}
    for pair in args.dir:
        host, _, guest = pair.rpartition(":")
        checks.same("directory " + guest, dirs.get(guest), tree_digest(host))
    if args.chunks:
        count, root = root_of_entries(chunks_of(read(args.chunks), args.id_key.encode(), args.chunk_format))
        checks.same("chunks", receipt["chunks"], count)
        checks.same("input", receipt["input"], root)
    if args.outputs:
        count, root = root_of_entries(outputs_of(read(args.outputs)))
        checks.same("number of outputs", receipt["chunks"], count)
        checks.same("outputs", receipt["outputs"], root)
    if args.aggregate:
        checks.same("aggregate", receipt.get("aggregate"), digest(sha256(read(args.aggregate))))
    if args.proof:
        proof = json.loads(read(args.proof), object_pairs_hook=once)
        ident = (1, proof["id"].encode()) if isinstance(proof["id"], str) else (0, proof["id"])
        leaf = entry(ident, bytes.fromhex(proof["output"]))
        root = root_of_proof(leaf, proof["index"], proof["size"], [bytes.fromhex(p) for p in proof["path"]])
        checks.same("size of the proof", receipt["chunks"], proof["size"])
        checks.same("proof", receipt["outputs"], root and digest(root))


ITEM = re.compile(rb'("(?:[^"]|"")*"|.*?)((?:->[0-9]+)*)', re.DOTALL)


def item_order(ident):
    """Returns a key that sorts ids of items in item order: roots, then numbers."""
    kind, value = ident
    if not kind:
        return (0, value, b""), ()
    root, path = ITEM.fullmatch(value).groups()
    numbers = tuple(int(n) for n in path.split(b"->")[1:])
    if root.startswith(b'"'):
        return (1, 0, root[1:-1].replace(b'""', b'"')), numbers
    if root.isdigit():
        return (0, int(root), b""), numbers
    return (1, 0, root), numbers


def in_item_order(leaves):
    """Returns (id, leaf) pairs, which must be in item order, as a list."""
    leaves = list(leaves)
    keys = [item_order(ident) for ident, _ in leaves]
    if keys != sorted(keys):
        raise Malformed("the items are not in item order")
    return [leaf for _, leaf in leaves]


def root_item_id(ident):
    """Returns the id that items have for the id of a chunk."""
    kind, value = ident
    if not kind or not (b"->" in value or b"," in value or b'"' in value or value.isdigit()):
        return ident
    return (1, b'"' + value.replace(b'"', b'""') + b'"')


def json_text(text):
    short = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
    return '"' + "".join(short.get(c) or ("\\u%04x" % ord(c) if c < " " else c) for c in text) + '"'


def json_number(f):
    """Returns a float as ECMAScript writes it."""
    if f == int(f) and abs(f) < 1e21:
        return str(int(f))
    mantissa, e, exponent = repr(f).partition("e")
    if e and 1e-6 <= abs(f) < 1:
        return ("%.20f" % f)[: 2 + len(mantissa.replace(".", "").lstrip("-")) - int(exponent) - 1 + (f < 0)].rstrip("0")
    return mantissa + (e and "e" + exponent[0] + exponent[1:].lstrip("0"))


def canonical_json(v):
    """Returns the JSON of RFC 8785."""
    if isinstance(v, dict):
        keys = sorted(v, key=lambda k: k.encode("utf-16-be"))
        return "{" + ",".join(json_text(k) + ":" + canonical_json(v[k]) for k in keys) + "}"
    if isinstance(v, list):
        return "[" + ",".join(map(canonical_json, v)) + "]"
    if isinstance(v, str):
        return json_text(v)
    if v is None or isinstance(v, bool):
        return {None: "null", True: "true", False: "false"}[v]
    return json_number(v) if isinstance(v, float) else str(v)


LEFT_OUT = {"meta", "limits", "concurrency", "rate", "burst", "retry"}


def canonical_definition(path):
    """Returns the canonical JSON of a definition."""
    folder = os.path.dirname(path)

    def without(v):
        return {k: x for k, x in v.items() if k not in LEFT_OUT} if isinstance(v, dict) else v

    def module(v):
        return dict(v, **{k: digest(sha256(read(os.path.join(folder, v[k])))) for k in ("module", "fold") if k in v})

    d = without(json.loads(read(path), object_pairs_hook=once))
    states = d["states"]
    d["states"] = {}
    for name, state in states.items():
        state = module(without(state))
        if "children" in state:
            state["children"] = module(state["children"])
        d["states"][name] = state
    if "defaults" in d:
        d["defaults"] = without(d["defaults"])
    d.setdefault("start", next(iter(states)))
    return canonical_json(d).encode()


def check_ends(path, receipt, checks):
    ends = {name: [] for name in receipt["ends"]}
    for item in items(read(path)):
        ident, state, data = member(item, b"id"), member(item, b"state"), member(item, b"data")
        if ident is None or state is None or data is None:
            raise Malformed("an item is not a map of id, state and data")
        ends[text_of(state).decode()].append((id_of(ident), entry(id_of(ident), data)))
    for name, leaves in sorted(ends.items()):
        trail = {"count": len(leaves), "root": digest(tree_root(in_item_order(leaves)))}
        checks.same("end " + name, receipt["ends"][name], trail)
    checks.same("items", receipt["items"], sum(map(len, ends.values())))


def check_effects(path, receipt, checks):
    effects, people = [], []
    for leaf in items(read(path)):
        parts = list(elements(leaf))
        if len(parts) == 5:
            effects.append((id_of(parts[0]), leaf))
        elif len(parts) == 7:  # ["intervention", n, id, from, to, step, how]
            people.append(b"\x84" + b"".join(parts[1:5]))
        elif len(parts) != 6:  # a failure is in no tree
            raise Malformed("an item is not the result of an effect")
    trail = {"count": len(effects), "root": digest(tree_root(in_item_order(effects)))}
    checks.same("effects", receipt["effects"], trail)
    checks.same("interventions", receipt["interventions"], {"count": len(people), "root": digest(tree_root(people))})


def check_place(what, part, leaf, root, size, checks):
    led = root_of_proof(leaf, part["index"], part["size"], [bytes.fromhex(p) for p in part["path"]])
    checks.same("size of the tree of " + what, size, part["size"])
    checks.same(what, root, led and digest(led))


def proof_id(ident):
    return (1, ident.encode()) if isinstance(ident, str) else (0, ident)


def hashed(data):
    return b"\x58\x20" + sha256(bytes.fromhex(data))


def check_flow_proof(path, receipt, checks):
    """Checks that each leaf is in its tree, and that they are of one item."""
    proof = json.loads(read(path), object_pairs_hook=once)
    root, end, ident = proof["root"], proof["end"], proof_id(proof["id"])
    check_place("root of the proof", root, entry(proof_id(root["id"]), bytes.fromhex(root["data"])), receipt["input"], root["size"], checks)
    of = item_order(ident)
    related = [item_order(root_item_id(proof_id(root["id"])))]
    for step in proof["steps"]:
        state = receipt["states"][step["state"]]
        leaf = b"\x84" + entry(proof_id(step["id"]), encode_head(0, step["step"]) + hashed(step["input"]) + hashed(step["output"]))[1:]
        check_place("step %d in state %s" % (step["step"], step["state"]), step, leaf, state["root"], state["steps"], checks)
        related.append(item_order(proof_id(step["id"])))
    at = receipt["ends"][end["state"]]
    check_place("end " + end["state"], end, entry(proof_id(end["id"]), bytes.fromhex(end["data"])), at["root"], at["count"], checks)
    ours = proof_id(end["id"]) == ident and all(a[0] == of[0] and a[1] == of[1][: len(a[1])] for a in related)
    checks.same("item of the proof", True, ours)


def check_flow(args, receipt, checks):
    if args.definition:
        checks.same("flow", receipt["flow"], digest(sha256(canonical_definition(args.definition))))
    if args.context:
        context = read(args.context)
        checks.same("settings.context", receipt["settings"].get("context"), digest(sha256(context)))
    if args.chunks:
        _, root = root_of_entries(chunks_of(read(args.chunks), args.id_key.encode(), args.chunk_format))
        checks.same("input", receipt["input"], root)
    if args.outputs:
        check_ends(args.outputs, receipt, checks)
    if args.aggregate:
        checks.same("result", receipt["result"], digest(sha256(read(args.aggregate))))
    if args.effects:
        check_effects(args.effects, receipt, checks)
    if args.proof:
        check_flow_proof(args.proof, receipt, checks)


def main():
    parser = argparse.ArgumentParser(description="Computes the digests of a receipt again.")
    parser.add_argument("receipt")
    for name in ("module", "chunks", "outputs", "aggregate", "context", "proof", "definition", "effects"):
        parser.add_argument("--" + name, metavar="FILE")
    parser.add_argument("--dir", metavar="HOST:GUEST", action="append", default=[])
    parser.add_argument("--id-key", default="id", metavar="NAME")
    parser.add_argument("--chunk-format", default="auto", choices=("auto", "sequence", "array"))
    checks = Checks()
    try:
        check(parser.parse_args(), checks)
    except (Malformed, OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        print("check_receipt.py: %s" % e, file=sys.stderr)
        return 2
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
