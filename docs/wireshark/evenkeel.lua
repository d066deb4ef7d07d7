-- Frames between nodes of Evenkeel, format 3, as docs/replication.md specifies them: over UDP, and over TCP behind a length.
--
-- Needs Wireshark or tshark 4.0 or later:
--     tshark -X lua_script:docs/wireshark/evenkeel.lua -r node1-sync.pcapng
--
-- What makes a receiver refuse a frame is an expert error here, and nothing else is: `evenkeel && _ws.expert.severity == error`.
-- A note marks what is skipped, or is not in the capture. Of a sealed frame its header is shown, and of a HELLO what is in clear.

local evenkeel = Proto("evenkeel", "Evenkeel session replication")

-- Bounds of the format.
local FORMAT_VERSION = 3
local TYPE_MESSAGES = 1
local TYPE_HELLO = 2
local STREAM_CONTROL = 65535
local STREAM_BULK = 256
local SALT_LEN = 16
local TAG_LEN = 16
local HEADER_LEN = 32
local BULK_FRAME_LEN_MAX = 16384
local CHECK_LEN = 8
local LENGTH_LEN = 4
local LSN_MAX = 2 ^ 48 - 1
local BUCKET_COUNT_MAX = 256
local SLOT_COUNT = 4096
local RANGE_COUNT_MAX = 32
local SLOT_LIST_MAX = 256
local DIGEST_SLOT_COUNT_MAX = 64
local CLAIM_COUNT_MAX = 64
local PEER_COUNT_MAX = 16

evenkeel.prefs.ports = Pref.range("Ports", "4790,5679", "UDP and TCP ports of `sync` addresses; 5679 is the simulator's", 65535)

-- Numbers and what they mean ---------------------------------------------------------------------------------------------

local KIND = {
    LIVE = 1, HEARTBEAT = 2, ACK = 3, NACK = 4, SKIP = 5, HINT = 6, PULL = 7, SLOT_BEGIN = 8, SLOT_RECORDS = 9, SLOT_END = 10,
    WATERMARK = 11, MERGED = 12, OFFER = 13, OFFER_SEEN = 14, SLOTS_EMPTY = 15, DIGEST = 16,
    NODE_HEARTBEAT = 0x41, FENCED = 0x42, HANDOVER = 0x43,
}
local kinds = {}
for name, number in pairs(KIND) do
    kinds[number] = name
end
local RECORD = { OPEN = 1, UPDATE = 2, CLOSE = 3 }
local records = { [1] = "OPEN", [2] = "UPDATE", [3] = "CLOSE" }
local states = {
    [0] = "NONE", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT", "TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN",
    "SYN_ACK", "UDP_ONE_WAY", "UDP_NORMAL",
}
local modes = { [0] = "FullNAT" }
local protocols = { [0] = "TCP", "UDP" }
local families = { [0] = "IPv4", "IPv6" }
local reasons = { [0] = "expired", "replaced", "superseded" }
local hints = {
    [0] = "SYN, inbound", "FIN, inbound", "ACK, inbound", "RST, inbound", "SYN, outbound", "FIN, outbound", "ACK, outbound",
    "RST, outbound", "traffic, inbound", "traffic, outbound",
}
local pull_modes = { [0] = "replace", "merge" }
local copies = { [0] = "partial", "whole", "ready" }
local readinesses = { [0] = "joining", "degraded", "ready" }
local roles = { [0] = "replica", "orphan", "adopting", "owned", "suspect", "fenced", "draining" }

-- Fields -----------------------------------------------------------------------------------------------------------------

local f = {}

-- A field of the protocol: f["ack.of"] is evenkeel.ack.of.
local function field(kind, name, title, ...)
    f[name] = ProtoField[kind]("evenkeel." .. name, title, ...)
end

-- Where a mask is given the bit is one of the bytes that the item before it shows.
local function bit_of(name, title, mask, width)
    field("bool", name, title, width or 8, nil, mask)
end

field("uint32", "tcp_length", "Bytes of frame and check", base.DEC)
field("bytes", "check", "Check (xxh3-64, not verified)", base.NONE)
field("uint8", "version", "Version of the format", base.DEC)
field("uint8", "type", "Type of the frame", base.DEC, { [1] = "messages", "HELLO" })
field("uint8", "flags", "Flags", base.HEX)
bit_of("flags.ack_now", "ACK-NOW", 0x01)
bit_of("flags.to_one", "Sealed for one node", 0x02)
field("uint8", "key", "Key", base.DEC, { [0] = "none" })
field("uint32", "cluster", "Cluster", base.DEC)
field("uint16", "node", "Node", base.DEC)
field("uint16", "stream", "Stream", base.DEC)
field("uint16", "count", "Messages", base.DEC)
field("uint16", "length", "Bytes of the frame", base.DEC)
field("uint64", "incarnation", "Incarnation", base.DEC)
field("uint64", "packet_number", "Packet number", base.DEC)
field("bytes", "hello.salt", "Salt", base.NONE)
field("uint8", "hello.suite", "Sealed by", base.DEC, { [1] = "AES-256-GCM", "ChaCha20-Poly1305" })
field("uint32", "hello.capabilities", "Capabilities", base.HEX)
field("bytes", "sealed", "Sealed", base.NONE)
field("bytes", "tag", "Tag", base.NONE)

field("none", "message", "Message")
bit_of("message.critical", "Critical", 0x80)
field("uint8", "message.kind", "Kind", base.HEX, kinds, 0x7f)
field("uint8", "message.flags", "Flags", base.HEX)
bit_of("message.flags.ack_now", "ACK-NOW", 0x01)
bit_of("message.flags.same_group", "Group and epoch of the live section before", 0x02)
field("uint16", "message.bucket", "Bucket", base.DEC)
field("uint16", "message.length", "Bytes of the body", base.DEC)
field("bytes", "unknown", "Of an unknown type", base.NONE)
field("bytes", "rest", "Not dissected", base.NONE)

field("none", "group", "Group")
field("uint16", "group.node", "Node", base.DEC)
field("uint64", "group.generation", "Generation", base.DEC)
field("none", "epoch", "Epoch")
field("uint64", "epoch.term", "Term", base.DEC)
field("none", "peer", "Peer")
field("uint16", "peer.node", "Node", base.DEC)
field("uint64", "peer.incarnation", "Incarnation", base.DEC)
field("none", "version_of", "Version")
field("uint64", "version_of.lsn", "LSN", base.DEC)
field("uint64", "range.first", "First LSN", base.DEC)
field("uint64", "range.last", "Last LSN", base.DEC)
field("uint16", "slot", "Slot", base.DEC)
field("uint32", "pull_id", "Number of the pull", base.DEC)

field("uint64", "live.first", "First LSN", base.DEC)
field("uint16", "live.opens", "OPEN", base.DEC)
field("uint16", "live.updates", "UPDATE", base.DEC)
field("uint16", "live.closes", "CLOSE", base.DEC)
field("none", "record", "Record")
bit_of("record.critical", "Critical", 0x80)
field("uint8", "record.kind", "Kind", base.DEC, records, 0x7f)
field("uint8", "record.length", "Bytes", base.DEC)
field("uint64", "record.lsn", "LSN", base.DEC)
field("uint8", "close.reason", "Reason", base.DEC, reasons)

field("none", "tuple", "Client's tuple")
field("uint8", "tuple.lead", "Protocol and family", base.HEX)
field("uint8", "tuple.protocol", "Protocol", base.DEC, protocols, 0x01)
field("uint8", "tuple.family", "Family", base.DEC, families, 0x02)
for side, title in pairs({ client = "Client", vip = "VIP", server = "Real server", ["local"] = "Local end" }) do
    field("uint16", side .. ".port", title .. "'s port", base.DEC)
    field("ipv4", side .. ".ipv4", title .. "'s address")
    field("ipv6", side .. ".ipv6", title .. "'s address")
end

field("none", "session", "Session")
field("uint8", "session.lead", "State and families", base.HEX)
field("uint8", "session.state", "State", base.DEC, states, 0x0f)
field("uint8", "session.protocol", "Protocol", base.DEC, protocols, 0x10)
field("uint8", "session.client_family", "Client's side", base.DEC, families, 0x20)
field("uint8", "session.server_family", "Real server's side", base.DEC, families, 0x40)
field("uint8", "session.flags", "Flags", base.HEX)
bit_of("session.established", "Was established", 0x01)
bit_of("session.closed", "Was closed", 0x02)
bit_of("session.inbound_only", "Replies do not pass here", 0x04)
bit_of("session.has_deltas", "Sequence deltas follow", 0x08)
bit_of("session.has_client_isn", "Client's ISN follows", 0x10)
bit_of("session.has_server_isn", "Real server's ISN follows", 0x20)
bit_of("session.has_window_scales", "Window scales follow", 0x40)
field("uint8", "session.mode", "Forwarding mode", base.DEC, modes)
field("relative_time", "session.remaining", "Remaining time")
field("uint32", "session.delta_inbound", "Added to the client's sequence numbers", base.DEC)
field("uint32", "session.delta_outbound", "Added to the real server's sequence numbers", base.DEC)
field("uint32", "session.client_isn", "Client's ISN", base.DEC)
field("uint32", "session.server_isn", "Real server's ISN", base.DEC)
field("uint8", "session.client_window_scale", "Client's window scale (15: unknown)", base.DEC, nil, 0x0f)
field("uint8", "session.server_window_scale", "Real server's window scale (15: unknown)", base.DEC, nil, 0xf0)

field("none", "packed", "Packed record")
field("uint8", "packed.lead", "What follows", base.HEX)
bit_of("packed.has_epoch", "Epoch", 0x01)
bit_of("packed.closed", "Closed: a tuple instead of a session", 0x02)
field("uint64", "packed.lsn", "LSN", base.DEC)

field("uint64", "heartbeat.last", "Last LSN given", base.DEC)
field("uint64", "ack.contiguous", "All applied up to LSN", base.DEC)
field("uint8", "ack.applied_count", "Ranges applied beyond", base.DEC)
field("uint8", "ack.refused_count", "Ranges refused", base.DEC)
field("uint8", "ack.unkept_count", "Ranges unkept", base.DEC)
field("uint64", "ack.applied", "Applied", base.DEC)
field("uint64", "ack.refused", "Refused", base.DEC)
field("uint64", "ack.unkept", "Unkept", base.DEC)
field("uint8", "nack.count", "Ranges missing", base.DEC)
field("uint64", "nack.missing", "Missing", base.DEC)
field("uint64", "skip.gap", "Gap", base.DEC)
field("uint64", "skip.until", "Filled once all is applied up to LSN", base.DEC)
field("uint16", "skip.count", "Slots to pull", base.DEC)
field("uint8", "hint.kind", "Seen", base.DEC, hints)
field("uint8", "pull.mode", "Mode", base.DEC, pull_modes)
field("uint16", "pull.count", "Slots", base.DEC)
field("uint32", "slot_end.count", "Records since SLOT_BEGIN", base.DEC)
field("uint16", "slots_empty.count", "Slots", base.DEC)
field("uint64", "digest.last", "Last LSN given", base.DEC)
field("uint8", "digest.count", "Slots", base.DEC)
field("none", "digest", "Digest")
field("uint32", "digest.sessions", "Sessions", base.DEC)
field("uint64", "digest.hash", "Sum of their hashes", base.HEX)
field("uint8", "watermark.copy", "Copy of the group", base.DEC, copies)
field("uint64", "watermark.contiguous", "All applied up to LSN", base.DEC)
field("uint8", "watermark.count", "Ranges applied beyond", base.DEC)
field("uint64", "watermark.applied", "Applied", base.DEC)
field("uint8", "merged.exact", "Exact", base.DEC, { [0] = "no", "yes" })
field("uint64", "merged.at", "Last LSN that the adopter had given", base.DEC)
field("uint32", "offer.id", "Number of the offer", base.DEC)

field("uint64", "presence.shares", "Digest of the map of shares", base.HEX)
field("uint8", "presence.state", "State", base.HEX)
field("uint8", "presence.readiness", "Readiness", base.DEC, readinesses, 0x03)
bit_of("presence.draining", "Draining", 0x04)
field("uint8", "presence.claim_count", "Claims", base.DEC)
field("uint8", "presence.peer_count", "Peers heard", base.DEC)
field("uint16", "presence.late", "Peers out of sync", base.HEX)
field("none", "claim", "Claim")
field("none", "hears", "Hears")
field("bool", "hears.late", "Out of sync")
field("uint8", "claim.role", "Role", base.DEC, roles)

local list = {}
for _, one in pairs(f) do
    list[#list + 1] = one
end
evenkeel.fields = list

local function expert_of(name, title, group, severity)
    return ProtoExpert.new("evenkeel." .. name, title, group, severity)
end

local ef = {
    refused = expert_of("refused", "A receiver refuses this frame", expert.group.MALFORMED, expert.severity.ERROR),
    unsupported = expert_of("unsupported", "A receiver does not know this", expert.group.UNDECODED, expert.severity.ERROR),
    truncated = expert_of("truncated", "It ends within a field", expert.group.MALFORMED, expert.severity.ERROR),
    skipped = expert_of("skipped", "A receiver skips this", expert.group.UNDECODED, expert.severity.NOTE),
    not_captured = expert_of("not_captured", "Not in the capture", expert.group.UNDECODED, expert.severity.NOTE),
}
evenkeel.experts = { ef.refused, ef.unsupported, ef.truncated, ef.skipped, ef.not_captured }

-- Reading ----------------------------------------------------------------------------------------------------------------

-- Lua 5.2 to 5.4 agree on no operator for bits.
local function has(byte, bit)
    return math.floor(byte / bit) % 2 == 1
end

-- Bytes `at` to `stop` of `tvb`. Whoever takes what is not there gets nothing, and nothing more from then on: `over`. All that
-- is taken is shown, so that no byte is passed over.
local Cursor = {}
Cursor.__index = Cursor

local function cursor(tvb, at, stop)
    return setmetatable({ tvb = tvb, at = at, stop = stop, over = false }, Cursor)
end

function Cursor:left()
    return self.over and 0 or self.stop - self.at
end

-- It cannot be read any further.
function Cursor:fail(tree, kind, text)
    if not self.over then
        self.over = true
        -- What was cut off by the capture is no fault of the sender, and is said once.
        if not self.cut then
            tree:add_proto_expert_info(kind, text)
        end
    end
end

-- A value that cannot be, where reading goes on.
function Cursor:bad(tree, text)
    if not self.over then
        tree:add_proto_expert_info(ef.refused, text)
    end
end

function Cursor:take(tree, len)
    if self.over then
        return nil
    end
    if len > self.stop - self.at then
        self:fail(tree, ef.truncated, "It ends within a field")
        return nil
    end
    local range = self.tvb(self.at, len)
    self.at = self.at + len
    return range
end

-- Shows a field. What stands elsewhere, and is meant here too, is marked as such.
function Cursor:show(tree, name, range, ...)
    local item = tree:add_le(f[name], range, ...)
    if self.elsewhere then
        item:set_generated()
    end
    return item
end

-- The rest of it, which nobody understands.
function Cursor:rest(tree, name)
    if self.at < self.stop then
        tree:add(f[name or "rest"], self.tvb(self.at, self.stop - self.at))
        self.at = self.stop
    end
end

-- A number of up to 4 bytes: its value and item, or nothing.
function Cursor:number(tree, name, len)
    local range = self:take(tree, len)
    if range then
        return range:le_uint(), self:show(tree, name, range)
    end
end

-- A number of 8 bytes, as text.
function Cursor:long(tree, name)
    local range = self:take(tree, 8)
    if range then
        self:show(tree, name, range)
        return tostring(range:le_uint64())
    end
end

function Cursor:lsn(tree, name)
    local range = self:take(tree, 6)
    if range then
        return range:le_uint64():tonumber(), self:show(tree, name, range)
    end
end

-- A byte with bits: the bits are shown below it; those in none of the fields have to be 0.
function Cursor:bits(tree, name, known, names)
    local range = self:take(tree, 1)
    if not range then
        return nil
    end
    local byte, item = range:uint(), tree:add(f[name], range)
    for _, bit in ipairs(names) do
        item:add(f[bit], range)
    end
    for bit = 0, 7 do
        if has(byte, 2 ^ bit) and not has(known, 2 ^ bit) then
            self:bad(item, "Unknown flags")
            break
        end
    end
    return byte, item
end

-- A byte whose values have names.
function Cursor:choice(tree, name, values, what)
    local value, item = self:number(tree, name, 1)
    if value and not values[value] then
        self:bad(item, "No such " .. what)
    end
    return value
end

-- A list's length; nothing if it is beyond its bounds, and nothing is read any more then.
function Cursor:list_len(tree, name, len, least, most)
    local count, item = self:number(tree, name, len)
    if count and (count < least or count > most) then
        self:fail(item, ef.refused, string.format("%d to %d are possible", least, most))
        return nil
    end
    return count
end

-- A part with a branch of its own, of the bytes that `read` takes; what it returns is put behind the title.
function Cursor:part(tree, name, title, read)
    if self:left() == 0 then
        self:fail(tree, ef.truncated, "It ends within a field")
        return nil
    end
    local begin = self.at
    local branch = self:show(tree, name, self.tvb(begin, self.stop - begin))
    local said = read(branch)
    branch:set_len(self.at - begin)
    branch:set_text(said and title .. ": " .. said or title)
    return said
end

-- Fields that many messages have -----------------------------------------------------------------------------------------

local function read_peer(c, tree, title)
    return c:part(tree, "peer", title, function(t)
        local node = c:number(t, "peer.node", 2)
        local incarnation = c:long(t, "peer.incarnation")
        return incarnation and string.format("node %d, life %s", node, incarnation)
    end)
end

local function read_group(c, tree)
    return c:part(tree, "group", "Group", function(t)
        local node = c:number(t, "group.node", 2)
        local generation = c:long(t, "group.generation")
        return generation and string.format("%d/%s", node, generation)
    end)
end

local function read_epoch(c, tree, title)
    return c:part(tree, "epoch", title or "Epoch", function(t)
        local term = c:long(t, "epoch.term")
        local holder = read_peer(c, t, "Holder")
        return holder and string.format("term %s of %s", term, holder)
    end)
end

local function read_version(c, tree, title)
    return c:part(tree, "version_of", title, function(t)
        local epoch = read_epoch(c, t)
        local lsn = c:lsn(t, "version_of.lsn")
        return lsn and string.format("LSN %d, %s", lsn, epoch)
    end)
end

-- The item's value is how many LSNs are in it.
local function read_range(c, tree, name, title)
    if c:left() < 12 then
        return c:take(tree, 12)
    end
    local range = c.tvb(c.at, 12)
    local first, last = range(0, 6):le_uint64():tonumber(), range(6, 6):le_uint64():tonumber()
    local item = tree:add(f[name], range, UInt64(math.max(last - first + 1, 0)))
    item:set_text(string.format("%s: LSN %.0f to %.0f", title, first, last))
    c:lsn(item, "range.first")
    c:lsn(item, "range.last")
    if first > last then
        c:bad(item, "It ends before it begins")
    end
end

local function read_ranges(c, tree, count, name, title)
    for _ = 1, count or 0 do
        if c.over then
            return
        end
        read_range(c, tree, name, title)
    end
end

local function read_slot(c, tree)
    local slot, item = c:number(tree, "slot", 2)
    if slot and slot >= SLOT_COUNT then
        c:bad(item, "No such slot")
    end
    return slot
end

local function read_slots(c, tree, count)
    for _ = 1, count or 0 do
        if c.over then
            return
        end
        read_slot(c, tree)
    end
end

-- Both ports, then both addresses.
local function read_ends(c, tree, v6, a, b)
    local family, len = v6 and ".ipv6" or ".ipv4", v6 and 16 or 4
    local ports, addrs = {}, {}
    for n, side in ipairs({ a, b }) do
        ports[n] = c:number(tree, side .. ".port", 2)
    end
    for n, side in ipairs({ a, b }) do
        local range = c:take(tree, len)
        if range then
            tree:add(f[side .. family], range)
            addrs[n] = tostring(v6 and range:ipv6() or range:ipv4())
        end
    end
    if addrs[2] then
        local form = v6 and "[%s]:%d > [%s]:%d" or "%s:%d > %s:%d"
        return string.format(form, addrs[1], ports[1], addrs[2], ports[2])
    end
end

local function read_tuple(c, tree)
    return c:part(tree, "tuple", "Client's tuple", function(t)
        local lead = c:bits(t, "tuple.lead", 0x03, { "tuple.protocol", "tuple.family" })
        local ends = lead and read_ends(c, t, has(lead, 0x02), "client", "vip")
        return ends and string.format("%s %s", has(lead, 0x01) and "UDP" or "TCP", ends)
    end)
end

local function read_session(c, tree)
    return c:part(tree, "session", "Session", function(t)
        local lead, item = c:bits(t, "session.lead", 0x7f, {
            "session.state", "session.protocol", "session.client_family", "session.server_family",
        })
        local flags = c:bits(t, "session.flags", 0x7f, {
            "session.established", "session.closed", "session.inbound_only", "session.has_deltas", "session.has_client_isn",
            "session.has_server_isn", "session.has_window_scales",
        })
        if not flags then
            return nil
        end
        if not states[lead % 16] then
            c:bad(item, "No such state")
        end
        c:choice(t, "session.mode", modes, "forwarding mode")
        local remaining = c:take(t, 4)
        if remaining then
            local ms = remaining:le_uint()
            t:add(f["session.remaining"], remaining, NSTime.new(math.floor(ms / 1000), ms % 1000 * 1000000))
        end
        local outer = read_ends(c, t, has(lead, 0x20), "client", "vip")
        local inner = read_ends(c, t, has(lead, 0x40), "server", "local")
        if has(flags, 0x08) then
            c:number(t, "session.delta_inbound", 4)
            c:number(t, "session.delta_outbound", 4)
        end
        if has(flags, 0x10) then
            c:number(t, "session.client_isn", 4)
        end
        if has(flags, 0x20) then
            c:number(t, "session.server_isn", 4)
        end
        if has(flags, 0x40) then
            local scales = c:take(t, 1)
            if scales then
                t:add(f["session.client_window_scale"], scales)
                local last = t:add(f["session.server_window_scale"], scales)
                if scales:uint() == 0xff then
                    c:bad(last, "Neither is known, and yet they are there")
                end
            end
        end
        local udp = has(lead, 0x10) and "UDP" or "TCP"
        return inner and string.format("%s %s, %s, %s", udp, states[lead % 16] or "?", outer, inner)
    end)
end

-- A record with its version. Returns whether an epoch is known to the one behind it.
local function read_packed(c, tree, has_before)
    c:part(tree, "packed", "Packed record", function(t)
        local lead, item = c:bits(t, "packed.lead", 0x03, { "packed.has_epoch", "packed.closed" })
        if not lead then
            return nil
        end
        if has(lead, 0x01) then
            read_epoch(c, t)
        elseif not has_before then
            c:fail(item, ef.refused, "No epoch is known from before")
        end
        local lsn = c:lsn(t, "packed.lsn")
        local said
        if has(lead, 0x02) then
            said = read_tuple(c, t)
        else
            said = read_session(c, t)
        end
        return said and string.format("LSN %.0f, %s%s", lsn, has(lead, 0x02) and "closed, " or "", said)
    end)
end

-- What every answer to a pull begins with.
local function read_pulled(c, tree)
    c:number(tree, "pull_id", 4)
    read_group(c, tree)
    return read_slot(c, tree)
end

-- Messages ---------------------------------------------------------------------------------------------------------------

-- By kind: reads the body. What it returns is put behind the message's name. `frame` is what the frame has said so far.
local bodies = {}

bodies[KIND.LIVE] = function(c, tree, frame, flags)
    if not has(flags, 0x02) then
        frame.live = c.at
        read_group(c, tree)
        read_epoch(c, tree)
        frame.live = not c.over and frame.live or nil
    elseif frame.live then
        local before = cursor(c.tvb, frame.live, c.at)
        before.elsewhere = true
        read_group(before, tree)
        read_epoch(before, tree)
    else
        c:fail(tree, ef.refused, "There is no live section before it")
    end
    local lsn, first = c:lsn(tree, "live.first")
    if not lsn then
        return nil
    end
    local begin, counts, known = c.at, { 0, 0, 0 }, 0
    while c:left() > 0 do
        local ok = c:part(tree, "record", "Record", function(t)
            local lead = c:take(t, 1)
            t:add(f["record.critical"], lead)
            t:add(f["record.kind"], lead)
            local kind, critical = lead:uint() % 128, lead:uint() >= 128
            local len = c:number(t, "record.length", 1)
            if not len then
                return nil
            end
            if len > c:left() then
                c:fail(t, ef.truncated, "It ends behind its section")
                return nil
            end
            local body = cursor(c.tvb, c.at, c.at + len)
            c.at = body.stop
            local said
            if kind == RECORD.OPEN or kind == RECORD.UPDATE then
                said = read_session(body, t)
            elseif kind == RECORD.CLOSE then
                said = read_tuple(body, t)
                body:choice(t, "close.reason", reasons, "reason")
            else
                t:add_proto_expert_info(critical and ef.unsupported or ef.skipped, "Unknown type of record")
                body:rest(t, "unknown")
                return string.format("type %d", kind)
            end
            if body:left() > 0 then
                body:fail(t, ef.refused, "It goes on after its last field")
            end
            body:rest(t)
            counts[kind] = counts[kind] + 1
            t:add(f["record.lsn"], c.tvb(begin - 6, 6), UInt64(lsn + known)):set_generated()
            known = known + 1
            return string.format("%s, LSN %.0f%s", records[kind], lsn + known - 1, said and ", " .. said or "")
        end)
        if not ok then
            break
        end
    end
    if known == 0 and not c.over then
        c:bad(tree, "It has no record")
    end
    if lsn == 0 or lsn + math.max(known, 1) - 1 > LSN_MAX then
        c:bad(first, "LSNs go from 1 to 2^48 - 1")
    end
    local said = {}
    for kind, name in ipairs({ "opens", "updates", "closes" }) do
        if counts[kind] > 0 then
            tree:add(f["live." .. name], c.tvb(begin, c.at - begin), counts[kind]):set_generated()
            said[#said + 1] = string.format("%d %s", counts[kind], records[kind])
            frame:count(records[kind], counts[kind])
        end
    end
    return string.format("LSN %.0f, %s", lsn, table.concat(said, ", "))
end

bodies[KIND.HEARTBEAT] = function(c, tree)
    local last = c:lsn(tree, "heartbeat.last")
    return last and string.format("last LSN %.0f", last)
end

bodies[KIND.ACK] = function(c, tree)
    local of = read_peer(c, tree, "Of")
    local contiguous = c:lsn(tree, "ack.contiguous")
    local applied = c:list_len(tree, "ack.applied_count", 1, 0, RANGE_COUNT_MAX)
    local refused = c:list_len(tree, "ack.refused_count", 1, 0, RANGE_COUNT_MAX)
    local unkept = c:list_len(tree, "ack.unkept_count", 1, 0, RANGE_COUNT_MAX)
    read_ranges(c, tree, applied, "ack.applied", "Applied")
    read_ranges(c, tree, refused, "ack.refused", "Refused")
    read_ranges(c, tree, unkept, "ack.unkept", "Unkept")
    return contiguous and string.format("of %s, up to LSN %.0f", of, contiguous)
end

bodies[KIND.NACK] = function(c, tree)
    local of = read_peer(c, tree, "Of")
    local count = c:list_len(tree, "nack.count", 1, 0, RANGE_COUNT_MAX)
    read_ranges(c, tree, count, "nack.missing", "Missing")
    return of and "of " .. of
end

bodies[KIND.SKIP] = function(c, tree)
    read_range(c, tree, "skip.gap", "Gap")
    local to = c:lsn(tree, "skip.until")
    read_slots(c, tree, c:list_len(tree, "skip.count", 2, 0, SLOT_LIST_MAX))
    return to and string.format("until LSN %.0f", to)
end

bodies[KIND.HINT] = function(c, tree)
    read_group(c, tree)
    local hint = c:choice(tree, "hint.kind", hints, "hint")
    local tuple = read_tuple(c, tree)
    return tuple and string.format("%s, %s", hints[hint] or "?", tuple)
end

bodies[KIND.PULL] = function(c, tree)
    read_group(c, tree)
    local id = c:number(tree, "pull_id", 4)
    read_version(c, tree, "Not before")
    c:choice(tree, "pull.mode", pull_modes, "mode")
    local count = c:list_len(tree, "pull.count", 2, 1, SLOT_LIST_MAX)
    read_slots(c, tree, count)
    return count and string.format("number %d, slots: %d", id, count)
end

bodies[KIND.SLOT_BEGIN] = function(c, tree)
    local slot = read_pulled(c, tree)
    return slot and string.format("slot %d", slot)
end

bodies[KIND.SLOT_RECORDS] = function(c, tree, frame)
    local slot = read_pulled(c, tree)
    local count = 0
    while c:left() > 0 do
        read_packed(c, tree, count > 0)
        count = count + 1
    end
    if count == 0 and not c.over then
        c:bad(tree, "It has no record")
    end
    return slot and string.format("slot %d, records: %d", slot, count)
end

bodies[KIND.SLOT_END] = function(c, tree)
    local slot = read_pulled(c, tree)
    local count = c:number(tree, "slot_end.count", 4)
    read_version(c, tree, "As of")
    return count and string.format("slot %d, records: %d", slot, count)
end

bodies[KIND.SLOTS_EMPTY] = function(c, tree)
    c:number(tree, "pull_id", 4)
    read_group(c, tree)
    local count = c:list_len(tree, "slots_empty.count", 2, 1, SLOT_LIST_MAX)
    read_version(c, tree, "As of")
    return count and string.format("slots: %d", count)
end

bodies[KIND.DIGEST] = function(c, tree)
    read_group(c, tree)
    read_epoch(c, tree)
    local last = c:lsn(tree, "digest.last")
    local count = c:list_len(tree, "digest.count", 1, 1, DIGEST_SLOT_COUNT_MAX)
    for _ = 1, count or 0 do
        if c.over then
            return nil
        end
        c:part(tree, "digest", "Digest", function(t)
            local slot = read_slot(c, t)
            local sessions = c:number(t, "digest.sessions", 4)
            c:long(t, "digest.hash")
            return sessions and string.format("slot %d, sessions: %d", slot, sessions)
        end)
    end
    return count and string.format("up to LSN %.0f, slots: %d", last, count)
end

bodies[KIND.WATERMARK] = function(c, tree)
    read_group(c, tree)
    read_epoch(c, tree)
    read_epoch(c, tree, "Last epoch")
    local copy = c:choice(tree, "watermark.copy", copies, "state of a copy")
    local contiguous = c:lsn(tree, "watermark.contiguous")
    local count = c:list_len(tree, "watermark.count", 1, 0, RANGE_COUNT_MAX)
    read_ranges(c, tree, count, "watermark.applied", "Applied")
    return contiguous and string.format("%s, up to LSN %.0f", copies[copy] or "?", contiguous)
end

bodies[KIND.MERGED] = function(c, tree)
    read_group(c, tree)
    local epoch = read_epoch(c, tree)
    read_version(c, tree, "Base")
    c:choice(tree, "merged.exact", { [0] = true, true }, "truth value")
    c:lsn(tree, "merged.at")
    return epoch
end

bodies[KIND.OFFER] = function(c, tree)
    local id = c:number(tree, "offer.id", 4)
    read_group(c, tree)
    read_packed(c, tree, false)
    return id and string.format("number %d", id)
end

bodies[KIND.OFFER_SEEN] = function(c, tree)
    local id = c:number(tree, "offer.id", 4)
    read_group(c, tree)
    return id and string.format("number %d", id)
end

bodies[KIND.NODE_HEARTBEAT] = function(c, tree)
    c:long(tree, "presence.shares")
    local state, item = c:bits(tree, "presence.state", 0x07, { "presence.readiness", "presence.draining" })
    if state and not readinesses[state % 4] then
        c:bad(item, "No such readiness")
    end
    local claims = c:list_len(tree, "presence.claim_count", 1, 0, CLAIM_COUNT_MAX)
    local peers = c:list_len(tree, "presence.peer_count", 1, 0, PEER_COUNT_MAX)
    local late, late_item = c:number(tree, "presence.late", 2)
    if not late then
        return nil
    end
    if late >= 2 ^ peers then
        c:bad(late_item, "More bits than peers")
    end
    for _ = 1, claims do
        if c.over then
            return nil
        end
        c:part(tree, "claim", "Claim", function(t)
            local group = read_group(c, t)
            local epoch = read_epoch(c, t)
            local role = c:choice(t, "claim.role", roles, "role")
            return role and string.format("%s of group %s, %s", roles[role] or "?", group, epoch)
        end)
    end
    for n = 1, peers do
        if c.over then
            return nil
        end
        c:part(tree, "hears", "Hears", function(t)
            local peer = read_peer(c, t, "Peer")
            if peer then
                t:add(f["hears.late"], late_item and has(late, 2 ^ (n - 1))):set_generated()
            end
            return peer
        end)
    end
    return string.format("%s%s, claims: %d, hears: %d", readinesses[state % 4] or "?", has(state, 4) and ", draining" or "", claims, peers)
end

local function read_right(c, tree)
    local group = read_group(c, tree)
    local epoch = read_epoch(c, tree)
    return epoch and string.format("group %s, %s", group, epoch)
end

bodies[KIND.FENCED] = read_right
bodies[KIND.HANDOVER] = read_right

-- Frames -----------------------------------------------------------------------------------------------------------------

-- What a frame has said so far, for the line in the list of packets.
local Frame = {}
Frame.__index = Frame

function Frame:count(name, count)
    if not self.counts[name] then
        self.counts[name] = 0
        self.order[#self.order + 1] = name
    end
    self.counts[name] = self.counts[name] + count
end

function Frame:summary()
    local said = {}
    for n, name in ipairs(self.order) do
        said[n] = self.counts[name] > 1 and string.format("%s x %d", name, self.counts[name]) or name
    end
    return table.concat(said, ", ")
end

local function read_message(c, tree, frame)
    local begin = c.at
    local branch = tree:add(f["message"], c.tvb(begin, c.stop - begin))
    local lead = c:take(branch, 1)
    if not lead then
        return
    end
    branch:add(f["message.critical"], lead)
    branch:add(f["message.kind"], lead)
    local kind, critical = lead:uint() % 128, lead:uint() >= 128
    local name = kinds[kind] or string.format("type %d", kind)
    branch:set_text(name)
    -- An unknown one is skipped, whatever its flags are.
    local known = bodies[kind] and (kind == KIND.LIVE and 0x03 or kind > 0x40 and 0x00 or 0x01) or 0xff
    local names = { "message.flags.ack_now", kind == KIND.LIVE and "message.flags.same_group" or nil }
    local flags = c:bits(branch, "message.flags", known, names)
    local bucket, bucket_item = c:number(branch, "message.bucket", 2)
    local len = c:number(branch, "message.length", 2)
    if not len or len > c:left() then
        c:fail(branch, ef.truncated, "It ends behind its frame")
        c:rest(branch)
        return
    end
    local body = cursor(c.tvb, c.at, c.at + len)
    c.at = body.stop
    branch:set_len(c.at - begin)
    if not bodies[kind] then
        branch:add_proto_expert_info(critical and ef.unsupported or ef.skipped, "Unknown type of message")
        body:rest(branch, "unknown")
        frame:count(name, 1)
        return
    end
    if kind > 0x40 and bucket ~= 0 then
        body:bad(bucket_item, "A message to the node has bucket 0")
    elseif bucket >= BUCKET_COUNT_MAX then
        body:bad(bucket_item, "No such bucket")
    end
    if kind ~= KIND.LIVE then
        frame:count(name, 1)
    end
    local said = bodies[kind](body, branch, frame, flags)
    if body:left() > 0 then
        body:fail(branch, ef.refused, "It goes on after its last field")
    end
    body:rest(branch)
    local where = kind < 0x40 and string.format(", bucket %d", bucket) or ""
    branch:set_text(said and string.format("%s%s: %s", name, where, said) or name .. where)
end

-- Behind its header: of a frame of `length` bytes that a key seals. Returns a line about it.
local function read_sealed(c, branch, kind, length, checked)
    local clear = HEADER_LEN
    local line = "sealed"
    if kind == TYPE_HELLO then
        line = "HELLO"
        clear = HEADER_LEN + SALT_LEN + 5
        local salt = c:take(branch, SALT_LEN)
        if salt then
            branch:add(f["hello.salt"], salt)
        end
        c:number(branch, "hello.suite", 1)
        c:number(branch, "hello.capabilities", 4)
    end
    local sealed = length - clear - TAG_LEN
    if sealed < 0 then
        branch:add_proto_expert_info(ef.refused, "There is no tag")
        c:rest(branch)
        return line
    end
    for _, part in ipairs({ { "sealed", sealed }, { "tag", TAG_LEN }, { "check", checked and CHECK_LEN or 0 } }) do
        local bytes = part[2] > 0 and c:take(branch, part[2])
        if bytes then
            branch:add(f[part[1]], bytes)
        end
    end
    return line
end

-- Bytes `at` to `stop` of `tvb` are a frame, and behind it its check, where there is one; in the capture are those up to
-- `captured`. Returns a line about it.
local function read_frame(tvb, at, stop, captured, branch, over_tcp)
    local c = cursor(tvb, at, math.min(stop, captured))
    c.cut = captured < stop
    if c.cut then
        branch:add_proto_expert_info(ef.not_captured)
    end
    local version, version_item = c:number(branch, "version", 1)
    if not version then
        return "Cut"
    end
    if version ~= FORMAT_VERSION then
        version_item:add_proto_expert_info(ef.unsupported, string.format("Format %d, which format %d refuses", version, FORMAT_VERSION))
        c:rest(branch)
        return string.format("Format %d", version)
    end
    local kind, kind_item = c:number(branch, "type", 1)
    local flags, flags_item = c:bits(branch, "flags", 0x03, { "flags.ack_now", "flags.to_one" })
    local key, key_item = c:number(branch, "key", 1)
    if key == 0 and has(flags, 0x02) then
        c:bad(flags_item, "Only what is sealed is for one node")
    end
    c:number(branch, "cluster", 4)
    local node = c:number(branch, "node", 2)
    local stream, stream_item = c:number(branch, "stream", 2)
    local count, count_item = c:number(branch, "count", 2)
    local length, length_item = c:number(branch, "length", 2)
    c:long(branch, "incarnation")
    local number = c:long(branch, "packet_number")
    if not number then
        c:rest(branch)
        return "Cut"
    end
    stream_item:append_text(stream == STREAM_CONTROL and " (the node's own)" or stream < STREAM_BULK and " (a worker's)" or " (a worker's bulk)")
    local who = string.format("Node %d, stream %s, frame %s", node, stream == STREAM_CONTROL and "control" or stream, number)
    branch:append_text(", " .. who)
    if kind ~= TYPE_MESSAGES and kind ~= TYPE_HELLO then
        kind_item:add_proto_expert_info(ef.unsupported, "Unknown type of frame")
        c:rest(branch)
        return who
    end
    if kind == TYPE_HELLO and key == 0 then
        key_item:add_proto_expert_info(ef.refused, "A HELLO is sealed")
        c:rest(branch)
        return who
    end
    -- A datagram of the simulator ends with its frame, all others have the check.
    local whole = stop - at
    local checked = over_tcp or whole ~= length
    local len = checked and whole - CHECK_LEN or whole
    if length ~= len or length < HEADER_LEN or length > BULK_FRAME_LEN_MAX then
        length_item:add_proto_expert_info(ef.refused, string.format("The frame has %d bytes, and %d at most are possible", len, BULK_FRAME_LEN_MAX))
        c:rest(branch)
        return who
    end
    if key ~= 0 then
        return who .. ": " .. read_sealed(c, branch, kind, length, checked)
    end
    local frame = setmetatable({ counts = {}, order = {} }, Frame)
    local messages = cursor(tvb, c.at, math.min(at + length, captured))
    messages.cut = captured < at + length
    local found = 0
    while messages:left() > 0 do
        read_message(messages, branch, frame)
        found = found + 1
    end
    if (found ~= count or count == 0) and not messages.over and not messages.cut then
        count_item:add_proto_expert_info(ef.refused, string.format("There are %d", found))
    end
    c.at = messages.stop
    if checked then
        local check = c:take(branch, CHECK_LEN)
        if check then
            branch:add(f["check"], check)
        end
    end
    return who .. ": " .. frame:summary()
end

local function over_udp(tvb, pinfo, tree)
    pinfo.cols.protocol = "Evenkeel"
    local captured = tvb:captured_len()
    pinfo.cols.info = read_frame(tvb, 0, tvb:reported_len(), captured, tree:add(evenkeel, tvb(0, captured)), false)
    return captured
end

local function over_tcp(tvb, pinfo, tree)
    local captured, reported = tvb:captured_len(), tvb:reported_len()
    local lines, at = {}, 0
    -- More can come where all of this is in the capture.
    local more = pinfo.can_desegment > 0 and captured == reported
    local function wait(len)
        pinfo.desegment_offset = at
        pinfo.desegment_len = len
    end
    pinfo.cols.protocol = "Evenkeel"
    while at < captured do
        local c = cursor(tvb, at, captured)
        if captured - at < LENGTH_LEN then
            if more then
                wait(DESEGMENT_ONE_MORE_SEGMENT)
                break
            end
            tree:add(evenkeel, tvb(at, captured - at)):add_proto_expert_info(ef.not_captured)
            at = captured
            break
        end
        local len = tvb(at, LENGTH_LEN):le_uint()
        local possible = len > CHECK_LEN and len <= BULK_FRAME_LEN_MAX + CHECK_LEN
        if possible and more and captured - at < LENGTH_LEN + len then
            wait(LENGTH_LEN + len - (captured - at))
            break
        end
        local stop = possible and math.min(at + LENGTH_LEN + len, captured) or captured
        local branch = tree:add(evenkeel, tvb(at, stop - at))
        local _, item = c:number(branch, "tcp_length", LENGTH_LEN)
        if not possible then
            -- Or the capture began in the midst of a frame.
            item:add_proto_expert_info(ef.refused, "No frame is so long; the receiver ends the connection")
            c:rest(branch)
            lines[#lines + 1] = "No frame begins here"
        elseif c:left() > 0 then
            lines[#lines + 1] = read_frame(tvb, at + LENGTH_LEN, at + LENGTH_LEN + len, captured, branch, true)
        end
        at = stop
    end
    if #lines > 0 then
        pinfo.cols.info = table.concat(lines, "; ")
    end
    return captured
end

function evenkeel.dissector(tvb, pinfo, tree)
    if tvb:captured_len() == 0 then
        return 0
    end
    -- Wireshark's number of TCP; that of UDP is 3.
    if pinfo.port_type == 2 then
        return over_tcp(tvb, pinfo, tree)
    end
    return over_udp(tvb, pinfo, tree)
end

local ports = ""

-- Whenever a preference was changed, and at the start.
local function take_ports()
    for _, transport in ipairs({ "udp.port", "tcp.port" }) do
        local by_port = DissectorTable.get(transport)
        if ports ~= "" then
            by_port:remove(ports, evenkeel)
        end
        if evenkeel.prefs.ports ~= "" then
            by_port:add(evenkeel.prefs.ports, evenkeel)
        end
    end
    ports = evenkeel.prefs.ports
end

evenkeel.prefs_changed = take_ports
take_ports()
