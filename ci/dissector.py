"""The test of docs/wireshark/evenkeel.lua: see ci/dissector."""

import collections, json, pathlib, random, re, resource, struct, subprocess, sys

EVENKEEL, TMP, SEED = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
LUA = pathlib.Path("docs/wireshark/evenkeel.lua")
DOC = pathlib.Path("docs/replication.md")
CODEC = pathlib.Path("core/src/sync/codec/mod.rs")
JUDGED = pathlib.Path("core/src/sync/codec/tests/damaged.txt")
SNAPSHOT = pathlib.Path("core/src/sync/codec/tests/snapshots/evenkeel_core__sync__codec__tests__format.snap")
HEADER_LEN, CHECK_LEN, FORMAT_VERSION = 32, 8, 3
SIM_PORT, NODE_PORT = 5679, 4790

# Scenarios of the catalogue. Their loads are smaller and their times shorter here, and nothing is expected of them but that they
# run: what they are about is judged elsewhere. Together they say all that the codec knows.
SCENARIOS = {
    "split-brain": [
        ("duration", '"15s"'), ("quiet", '"5s"'), ("flows", "30"), ("rate", "30"), ("workers", "2\nbuckets = 16"),
        ("at", '"4s"', '"8s..9s"'), ("for", '"3s"'),
    ],
    "drain": [
        ("duration", '"9s"'), ("quiet", '"2s"'), ("flows", "30"), ("rate", "30"), ("workers", "2\nbuckets = 16"),
        ("at", '"4s"', '"8s..12s"'), ("at", '"1s"', '"4s..5s"'),
    ],
    "last-frame-lost": [],
}
# Kinds that no scenario can bring forth, each with the reason.
CANNOT_OCCUR = {}
# What `sim run --json` counts of frames between nodes. `vrrp` is on other links.
COUNTED = {
    2: "heartbeat", 3: "ack", 4: "nack", 5: "skip", 6: "hint", 8: "slot", 9: "slot", 10: "slot", 11: "watermark", 12: "merged",
    13: "offer", 14: "offer", 16: "digest", 0x41: "presence", 0x42: "fenced", 0x43: "handover",
}
NOT_COMPARED = {"vrrp"}


def fail(text):
    sys.exit(f"ci/dissector: {text}")


# Captures ------------------------------------------------------------------------------------------------------------


def sent(path):
    """The frames of a pcapng of the simulator that the node sent: what it received another one sent."""
    data, at, frames = path.read_bytes(), 0, []
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        if kind == 6:
            captured, = struct.unpack_from("<I", data, at + 20)
            option = at + 28 + (captured + 3) // 4 * 4
            while option < at + length - 4:
                code, size = struct.unpack_from("<HH", data, option)
                if code == 2 and data[option + 4] & 3 == 2:
                    frames.append(data[at + 28 : at + 28 + captured])
                option += 4 + (size + 3) // 4 * 4
                if code == 0:
                    break
        at += length
    return frames


def ethernet(payload, protocol):
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0)
    return bytes.fromhex("025c00000002025c000000010800") + head + bytes([198, 18, 0, 1, 198, 18, 0, 2]) + payload


def udp(payload, port=NODE_PORT):
    return ethernet(struct.pack(">HHHH", port, port, 8 + len(payload), 0) + payload, 17)


def tcp(stream, number, sizes):
    """A connection on which the stream comes in segments of these sizes."""
    def segment(seq, flags, data=b""):
        return ethernet(struct.pack(">HHIIBBHHH", 20000 + number, NODE_PORT, seq, 1, 5 << 4, flags, 65535, 0, 0) + data, 6)

    packets, at = [segment(0, 2)], 0
    while at < len(stream):
        size = sizes()
        packets.append(segment(1 + at, 0x18, stream[at : at + size]))
        at += size
    return packets


def framed(frame):
    """A frame as it goes over TCP. The dissector shows the check and cannot verify it: any will do."""
    return struct.pack("<I", len(frame) + CHECK_LEN) + frame + b"\xaa" * CHECK_LEN


def write(path, packets):
    """A capture of packets; of one that is (bytes, length) no more than these bytes were captured."""
    out = [struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)]
    for n, packet in enumerate(packets):
        packet, length = packet if isinstance(packet, tuple) else (packet, len(packet))
        out.append(struct.pack("<IIII", n // 1000, n % 1000 * 1000, len(packet), length) + packet)
    path.write_bytes(b"".join(out))


FIELDS = [
    "frame.number", "frame.len", "frame.protocols", "evenkeel.message.kind", "evenkeel.live.closes", "evenkeel.pull.count",
    "evenkeel.slots_empty.count", "evenkeel.ack.refused", "evenkeel.length", "evenkeel.rest", "evenkeel.unknown",
    "evenkeel.refused", "evenkeel.unsupported", "evenkeel.truncated", "evenkeel.skipped", "evenkeel.not_captured",
    "evenkeel.key", "evenkeel.type", "evenkeel.tag", "evenkeel.hello.salt", "evenkeel.hello.suite",
    "_ws.expert.message",
]
ERRORS = {"evenkeel.refused", "evenkeel.unsupported", "evenkeel.truncated"}
NOT_CLEAN = ERRORS | {"evenkeel.skipped", "evenkeel.not_captured", "evenkeel.rest", "evenkeel.unknown"}


def tshark(lua, path):
    """A row of fields for each packet. A dissector that goes round in circles uses up its time of a core, and fails."""
    args = ["tshark", "-n", "-X", f"lua_script:{lua}", "-r", str(path), "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=;"]
    run = subprocess.run(args + [a for f in FIELDS for a in ("-e", f)], capture_output=True, text=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (120, 120)))
    said = [l for l in run.stderr.splitlines() if "Running as user" not in l and l.strip()]
    if run.returncode != 0 or said:
        fail(f"tshark ended with {run.returncode}: {said[:5]}")
    return [Row(line) for line in run.stdout.split("\n")[:-1]]


class Row:
    def __init__(self, line):
        self.fields = dict(zip(FIELDS, line.split("\t")))

    def ints(self, name):
        return [int(x, 0) for x in self.fields[name].split(";") if x]

    def text(self, name):
        return self.fields[name]

    def is_error(self):
        return any(self.fields[f] for f in ERRORS)

    def is_clean(self):
        return not any(self.fields[f] for f in NOT_CLEAN) and not self.has_lua_error()

    def has_lua_error(self):
        return "Lua" in self.fields["_ws.expert.message"]


def clean(rows, what):
    for row in rows:
        if not row.is_clean():
            fail(f"{what}: not dissected to its last byte: {row.fields}")


# What the codec knows --------------------------------------------------------------------------------------------------


def codec_kinds():
    block = re.search(r"mod kind \{(.*?)\n\}", CODEC.read_text(), re.S).group(1)
    return {int(n, 0): name for name, n in re.findall(r"const ([A-Z_]+): u8 = (\w+);", block)}


def constants(text, pattern):
    return {name: int(n.replace("_", ""), 0) for name, n in re.findall(pattern, text, re.M)}


def agree(kinds):
    """Dissector and specification name each kind by the codec's number, and the bounds are the same ones."""
    lua, doc = LUA.read_text(), DOC.read_text()
    table = re.search(r"local KIND = \{(.*?)\n\}", lua, re.S).group(1)
    in_lua = {int(n, 0): name for name, n in re.findall(r"([A-Z_]+) = (\w+)", table)}
    if set(in_lua) != set(kinds):
        fail(f"kinds of the dissector {sorted(in_lua)}, of the codec {sorted(kinds)}")
    for number, name in in_lua.items():
        if not re.search(rf"^\| {hex(number) if number > 0x40 else number} \| {name} \|", doc, re.M):
            fail(f"{DOC} has no row for kind {number}, {name}")
    rust = {}
    for path in (CODEC, pathlib.Path("core/src/sync/message.rs"), pathlib.Path("core/src/conn/slots.rs"), pathlib.Path("core/src/lport.rs")):
        rust.update(constants(path.read_text(), r"^(?:pub )?const ([A-Z_]+): \w+ = ([0-9_x]+);"))
    for name, value in constants(lua, r"^local ([A-Z_]+) = ([0-9]+)$").items():
        if name in rust and rust[name] != value:
            fail(f"{name} is {value} in the dissector and {rust[name]} in the codec")
    if f"format {rust['FORMAT_VERSION']}" not in doc:
        fail(f"{DOC} is not about format {rust['FORMAT_VERSION']}")


def worked_example():
    """The frame of the specification, and its annotated bytes, which go through all of it in order."""
    doc = DOC.read_text()
    dump = re.search(r"^```\n(0000  .*?)```", doc, re.M | re.S).group(1)
    frame = bytes.fromhex("".join(line.split("  ", 1)[1] for line in dump.splitlines()))
    at = 0
    for offset, text in re.findall(r"^\| ([0-9a-f]{2}) \| ((?:`[0-9a-f ]+` ?)+) \|", doc, re.M):
        part = bytes.fromhex("".join(re.findall("`([^`]+)`", text)))
        if int(offset, 16) != at or frame[at : at + len(part)] != part:
            fail(f"{DOC}: the row of offset {offset} is not of the frame above it")
        at += len(part)
    if at != len(frame):
        fail(f"{DOC}: the rows explain {at} bytes of {len(frame)}")
    return frame


def examples():
    """The codec's own examples of each message, with what scenarios seldom or never have (deltas, ISNs, two families)."""
    messages = []
    for line in SNAPSHOT.read_text().split("---\n", 2)[2].splitlines():
        title = re.fullmatch(r".+, (\d+) bytes", line)
        if title:
            messages.append([int(title.group(1)), ""])
        else:
            messages[-1][1] += line.strip()
    messages = [(length, bytes.fromhex(text)) for length, text in messages]
    assert all(length == len(message) for length, message in messages), "the snapshot is read as it is written"
    return [message for _, message in messages]


def frame_of(messages, number=0):
    body = b"".join(messages)
    return struct.pack("<BBBBIHHHHQQ", FORMAT_VERSION, 1, 0, 0, 7, 1, 0, len(messages), HEADER_LEN + len(body), 5, number) + body


# Scenarios -------------------------------------------------------------------------------------------------------------


def shortened(name, more=""):
    text = pathlib.Path(f"sim-scenarios/scenarios/{name}.toml").read_text()
    if not SCENARIOS[name]:
        return text
    text = re.sub(r"^\[\[expect\]\]\n(?:(?!^\[).*\n?)*", "", text, flags=re.M)
    for key, value, *was in SCENARIOS[name]:
        text, count = re.subn(rf"^{key} = {re.escape(was[0]) if was else '.*'}$", f"{key} = {value}", text, flags=re.M)
        if not count:
            fail(f"{name} has no such {key} any more")
    text = text.replace("[cluster]\n", f"[cluster]\n{more}", 1)
    return text + '\n[[expect]]\nthat = "connections >= 1"\n'


def simulate(name, more=""):
    """What the nodes of a scenario sent to each other, and what the simulator counted of it."""
    (TMP / f"{name}.toml").write_text(shortened(name, more))
    args = [EVENKEEL, "sim", "run", str(TMP / f"{name}.toml"), "--json", "--pcap", str(TMP / name)]
    run = subprocess.run(args, capture_output=True, text=True)
    if run.returncode != 0:
        fail(f"{name} ended with {run.returncode}: {run.stdout[:500]}{run.stderr[-500:]}")
    captures = sorted((TMP / name).glob("*-sync.pcapng"))
    frames = [frame for capture in captures for frame in sent(capture)]
    for path in (TMP / name).iterdir():
        path.unlink()
    return frames, json.loads(run.stdout.splitlines()[0])["sync"]


def counted(rows):
    counts = collections.Counter()
    for row in rows:
        kinds = row.ints("evenkeel.message.kind")
        # A section with a CLOSE among its records is one, whatever else is in it.
        closes = len(row.ints("evenkeel.live.closes"))
        counts.update({"frames": 1, "bytes": int(row.text("frame.len")), "close": closes, "live": kinds.count(1) - closes})
        counts.update(COUNTED[kind] for kind in kinds if kind in COUNTED)
        # A question for many slots, and one answer for many, count as so many.
        counts["pull"] += sum(row.ints("evenkeel.pull.count"))
        counts["slot"] += sum(row.ints("evenkeel.slots_empty.count"))
        # LSNs that an ACK says were refused.
        counts["refused"] += sum(row.ints("evenkeel.ack.refused"))
    return {name: n for name, n in counts.items() if n}


# Damage ----------------------------------------------------------------------------------------------------------------


def damaged(frames, rng, count):
    """Frames with bits flipped, bytes set, parts cut out or put in twice, cut at the end, with lengths that were made to fit
    or not. With each: whether a receiver is sure to refuse it."""
    made = []
    for n in range(count):
        frame = bytearray(rng.choice(frames))
        how, sure = n % 6, False
        if how == 0:
            for _ in range(rng.randint(1, 4)):
                frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
        elif how == 1:
            for _ in range(rng.randint(1, 8)):
                frame[rng.randrange(HEADER_LEN, len(frame))] = rng.choice([0, 1, 2, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        elif how == 2:
            # Its header says more bytes than there are. Eight less would look like a frame with its check.
            del frame[rng.randrange(1, len(frame)) :]
            sure = True
        elif how == 3:
            # The last message ends within a field, by lengths that agree with that.
            at, starts = HEADER_LEN, []
            while at < len(frame):
                starts.append(at)
                at += 6 + struct.unpack_from("<H", frame, at + 4)[0]
            length, = struct.unpack_from("<H", frame, starts[-1] + 4)
            fewer = rng.randint(1, length)
            struct.pack_into("<H", frame, starts[-1] + 4, length - fewer)
            del frame[len(frame) - fewer :]
            struct.pack_into("<H", frame, 14, len(frame))
        elif how == 4:
            begin, end = sorted(rng.randrange(HEADER_LEN, len(frame) + 1) for _ in range(2))
            frame[begin:end] = b"" if rng.random() < 0.5 else bytes(frame[begin:end]) * 3
            struct.pack_into("<H", frame, 14, len(frame) & 0xFFFF)
        else:
            # A version, a type, flags, a kind of message or lengths that there are not.
            place, value = rng.choice([(0, 1), (0, 2), (1, 2), (1, 9), (2, 0xFE), (12, 0), (HEADER_LEN, 0xBF), (HEADER_LEN, 0xC7)])
            frame[place : place + (2 if place == 12 else 1)] = bytes([value] * (2 if place == 12 else 1))
            sure = True
        made.append((bytes(frame[:20000]), sure))
    return made


# The test --------------------------------------------------------------------------------------------------------------


def main():
    rng = random.Random(SEED)
    kinds = codec_kinds()
    agree(kinds)
    parts, packets = {}, []

    def add(name, more):
        parts[name] = slice(len(packets), len(packets) + len(more))
        packets.extend(more)

    wanted, frames = {}, []
    for name in SCENARIOS:
        own, wanted[name] = simulate(name)
        add(name, own)
        frames += own
    sealed, sealed_count = simulate("drain", 'sealed = "on"\n')
    add("sealed", sealed)
    payloads = [frame[42:] for frame in frames]
    if worked_example() not in payloads:
        fail(f"no node has sent the frame of {DOC}: the codec or the scenario is another one")
    messages = examples()
    add("examples", [udp(frame_of([message], n)) for n, message in enumerate(messages) if not message[1] & 2])
    # What refers to the section before it stands behind that one; and all in one frame, with a check behind it.
    add("all examples", [udp(frame_of(messages)), udp(frame_of(messages) + b"\xaa" * CHECK_LEN)])
    # Over TCP: in pieces of any size, many in one segment, byte by byte.
    bulk = [p for p in payloads if p[HEADER_LEN] & 0x7F in (8, 9, 10, 15) or len(p) > 1400]
    streams = [rng.sample(bulk, min(60, len(bulk))), rng.sample(payloads, 60), [frame_of(messages), frame_of(messages[:1])]]
    pieces = [lambda: rng.choice([1, 3, 4, 5, 36, 500, 1448]), lambda: rng.randint(1000, 60000), lambda: 1]
    for n, (stream, sizes) in enumerate(zip(streams, pieces)):
        add(f"tcp {n}", tcp(b"".join(map(framed, stream)), n, sizes))
    whole = udp(frame_of(messages) + b"\xaa" * CHECK_LEN)
    add("cut by the capture", [(whole[:length], len(whole)) for length in range(43, len(whole), 7)])
    # Damaged frames of which the codec's tests say whether they are refused.
    judged = [line.split(" ") for line in JUDGED.read_text().splitlines()]
    add("judged", [udp(bytes.fromhex(frame), SIM_PORT) for _, frame in judged])
    pool = rng.sample(payloads, 400) + [frame_of([m]) for m in messages if not m[1] & 2] * 20
    bad = damaged(pool, rng, 1500)
    add("damaged", [udp(frame, SIM_PORT) for frame, _ in bad])
    bad_streams = []
    for n in range(60):
        stream = bytearray(b"".join(framed(f) for f, _ in damaged(rng.sample(pool, 3), rng, 3)))
        for _ in range(n % 3):
            stream[rng.randrange(len(stream))] = rng.choice([0, 0xFF, rng.randrange(256)])
        bad_streams += tcp(bytes(stream), 100 + n, lambda: rng.randint(1, 2000))
    add("damaged tcp", bad_streams)
    write(TMP / "all.pcap", packets)
    rows = tshark(LUA, TMP / "all.pcap")
    if len(rows) != len(packets):
        fail(f"{len(rows)} packets of {len(packets)}")
    errors = [row.fields for row in rows if row.has_lua_error()]
    if errors:
        fail(f"{len(errors)} errors of Lua with seed {SEED}, the first one: {errors[0]}")

    # Every frame of the scenarios, and every kind in them.
    seen = collections.Counter()
    for name in SCENARIOS:
        of_it = rows[parts[name]]
        clean(of_it, name)
        alien = [r.fields for r in of_it if not r.text("frame.protocols").endswith(":udp:evenkeel")]
        if alien:
            fail(f"{name}: not recognised: {alien[0]}")
        for row in of_it:
            seen.update(row.ints("evenkeel.message.kind"))
        got = counted(of_it)
        want = {k: n for k, n in wanted[name].items() if k not in NOT_COMPARED}
        if got != want:
            other = {k: (want.get(k, 0), got.get(k, 0)) for k in sorted(set(want) | set(got)) if want.get(k, 0) != got.get(k, 0)}
            fail(f"{name}: the simulator and the dissector count otherwise: {other}")
    absent = [f"{n} {kinds[n]}" for n in kinds if not seen[n] and n not in CANNOT_OCCUR]
    if absent:
        fail(f"kinds that no scenario has shown: {', '.join(absent)}")
    if set(CANNOT_OCCUR) & set(seen):
        fail("what cannot occur has")

    # Of sealed frames what is in clear, and nothing else.
    of_it = rows[parts["sealed"]]
    clean(of_it, "sealed")
    if len(of_it) != sealed_count["frames"] or len(of_it) < 1000:
        fail(f"sealed: {len(of_it)} frames, and the simulator counts {sealed_count['frames']}")
    if wrong := [r.fields for r in of_it if r.ints("evenkeel.key") != [1] or not r.text("evenkeel.tag") or r.ints("evenkeel.message.kind")]:
        fail(f"sealed: {len(wrong)} frames are not, or not whole, the first one: {wrong[0]}")
    hellos = [r for r in of_it if r.ints("evenkeel.type") == [2]]
    if len(hellos) < 4 or not all(len(r.text("evenkeel.hello.salt").replace(":", "")) == 32 and r.ints("evenkeel.hello.suite") == [1] for r in hellos):
        fail(f"sealed: {len(hellos)} HELLOs, or not as they are: {[r.fields for r in hellos][:2]}")
    sealed_said = f"{len(of_it)} sealed ones with {len(hellos)} HELLOs"

    # The codec's own examples.
    for name in ("examples", "all examples"):
        clean(rows[parts[name]], name)
    for row in rows[parts["all examples"]]:
        if [k & 0x7F for k in (m[0] for m in messages)] != row.ints("evenkeel.message.kind"):
            fail(f"not the messages that the codec wrote: {row.fields}")

    # Over TCP as many frames and messages as went in.
    for n, stream in enumerate(streams):
        of_it = rows[parts[f"tcp {n}"]]
        clean(of_it, f"tcp {n}")
        lengths = [length for row in of_it for length in row.ints("evenkeel.length")]
        if lengths != [len(frame) for frame in stream]:
            fail(f"tcp {n}: other frames than were sent: {len(lengths)} of {len(stream)}")

    # What a capture has left out is no fault of the frame.
    for row in rows[parts["cut by the capture"]]:
        if row.is_error() or not row.text("evenkeel.not_captured"):
            fail(f"a frame of which a part was captured: {row.fields}")

    # Dissector and codec refuse the same ones.
    for row, (verdict, frame) in zip(rows[parts["judged"]], judged):
        if row.is_error() == verdict.startswith("Ok"):
            fail(f"the codec says {verdict} of {frame}, the dissector: {row.fields}")

    # What is sure to be refused is an error; of the rest it is enough that it was looked at.
    silent = [r.fields for r, (_, sure) in zip(rows[parts["damaged"]], bad) if sure and not r.is_error()]
    if silent:
        fail(f"{len(silent)} frames that a receiver refuses show no error with seed {SEED}, the first one: {silent[0]}")
    refused = sum(r.is_error() for r in rows[parts["damaged"]])

    # The counter-proof: a field that is forgotten leaves a rest, and an error of Lua is seen.
    lua = LUA.read_text()
    worse = lua.replace('c:lsn(tree, "merged.at")', "", 1).replace('bodies[KIND.HINT] = function(c, tree)', 'bodies[KIND.HINT] = function(c, tree) error("on purpose")', 1)
    assert worse.count("on purpose") == 1 and len(worse) < len(lua) + 40, "both were planted"
    (TMP / "worse.lua").write_text(worse)
    write(TMP / "examples.pcap", packets[parts["examples"]])
    rows = tshark(TMP / "worse.lua", TMP / "examples.pcap")
    found = {k for r in rows for k in r.ints("evenkeel.message.kind") if r.text("evenkeel.rest") or r.has_lua_error()}
    if found != {6, 12}:
        fail(f"of a dissector with two faults in HINT and MERGED the kinds {sorted(found)} are seen")

    print(
        f"dissector: {len(frames)} frames with {sum(seen.values())} messages of {len(seen)} kinds in {len(SCENARIOS)} scenarios, "
        f"all counts those of the simulator; {sum(map(len, streams))} frames over TCP; {sealed_said}; {len(judged)} frames judged as by the codec; {len(bad)} damaged frames and 60 damaged "
        f"connections without an error of Lua, {refused} of the frames refused (seed {SEED})"
    )


main()
