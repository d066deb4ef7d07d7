//! What numbers and spans of the language may be. Docs are compared with it.

use std::time::Duration;

use crate::scenario::{DURATION_MAX, FAULT_COUNT_MAX, FLOW_COUNT_MAX, NODE_COUNT_MAX};

/// The range of an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The table, as the docs head it: `[[load]]`.
    pub table: &'static str,
    /// The key.
    pub key: &'static str,
    /// At least.
    pub min: u32,
    /// At most.
    pub max: u32,
}

macro_rules! limits {
    ($($name:ident = $table:literal, $key:literal, $min:expr, $max:expr;)*) => {
        $(pub(crate) const $name: Limit = Limit { table: $table, key: $key, min: $min, max: $max };)*

        /// Every integer of the language.
        pub const LIMITS: &[Limit] = &[$($name),*];
    };
}

limits! {
    NUMBER = "Top level", "number", 1, 999;
    EVENTS_MAX = "Top level", "events_max", 1_000, 4_000_000_000;
    MEMORY_MIB = "Top level", "memory_mib", 1, 65_536;
    NODES = "[cluster]", "nodes", 1, NODE_COUNT_MAX;
    WORKERS = "[cluster]", "workers", 1, 64;
    TABLE = "[cluster]", "table", 64, 16_777_216;
    BUCKETS = "[cluster]", "buckets", 1, 256;
    LOCAL_ADDRESSES = "[cluster]", "local_addresses", 1, 32;
    LOCAL_PORT_MIN = "[cluster]", "local_port_min", 1, 65_535;
    RING = "[cluster]", "ring", 1, 65_536;
    LSN_RING = "[cluster]", "lsn_ring", 1, 65_536;
    PRIORITY = "[cluster]", "priority", 1, 254;
    ECMP_BUCKETS = "[router]", "buckets", NODE_COUNT_MAX, 65_536;
    MULTIPLIER = "[router]", "multiplier", 1, 50;
    MTU = "[links.clients]", "mtu", 576, 9_000;
    VLAN = "[links.clients]", "vlan", 1, 4_094;
    LINK_BURST = "[links.clients]", "burst", 1, 10_000;
    SAMPLED = "[hosts]", "sampled", 2, 1_000_000;
    KEEPALIVE_PROBES = "[hosts]", "keepalive_probes", 1, 100;
    SERVERS = "[[service]]", "servers", 1, 64;
    FLOWS = "[[load]]", "flows", 1, 200_000;
    RATE = "[[load]]", "rate", 1, 100_000;
    REQUESTS = "[[load]]", "requests", 1, 1_000_000;
    REQUEST_BYTES = "[[load]]", "request_bytes", 1, 1_000_000;
    REPLY_BYTES = "[[load]]", "reply_bytes", 16, 1_000_000;
    BURST = "[[fault]]", "burst", 1, 10_000;
    BUCKET = "[[fault]]", "bucket", 0, 255;
    COPIES = "[[fault]]", "copies", 1, 16;
    FRAMES = "[[fault]]", "frames", 1, 1_000_000;
    ENTRIES = "[[fault]]", "entries", 0, 65_536;
    WORKER = "[[fault]]", "worker", 0, 63;
    FACTOR = "[[fault]]", "factor", 2, evenkeel_io_sim::SLOWNESS_MAX;
    SERVER = "[[fault]]", "server", 1, 64;
    WEIGHT = "[[fault]]", "weight", 0, evenkeel_core::service::WEIGHT_MAX as u32;
    PUSHED_SERVERS = "[[fault]]", "servers", 1, 64;
    FORMAT = "[[cluster.node]]", "format", 1, 255;
}

/// Bytes of a request and of a reply in one datagram.
pub(crate) const DATAGRAM_MIN: u32 = 32;
pub(crate) const DATAGRAM_MAX: u32 = 1_400;

/// Times of the cluster, in milliseconds.
pub(crate) const HEARTBEAT_MS: (u64, u64) = (10, 10_000);
pub(crate) const ADVERTISEMENT_MS: (u64, u64) = (10, 40_950);
pub(crate) const JOIN_TIME_MS: (u64, u64) = (40, 600_000);
/// So much later bulk may come.
pub(crate) const BULK_DELAY_MS: (u64, u64) = (0, 10_000);

/// Between two hellos of a router.
pub(crate) const HELLO_MS: (u64, u64) = (10, 10_000);
/// The delay of a link at most, and what a fault adds to it.
pub(crate) const ADDED_DELAY_MAX: Duration = Duration::from_secs(10);
/// Expectations at most: each is compared with others.
pub(crate) const EXPECT_COUNT_MAX: usize = 1_024;

/// So far a clock jumps at most, by each fault: all of them together do not reach the end of a clock of 64 bits.
pub(crate) const STEP_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
const _: () = assert!(STEP_MAX.as_nanos() * FAULT_COUNT_MAX as u128 <= i64::MAX as u128);
/// What a frame costs a worker, in nanoseconds.
pub(crate) const FRAME_COST_NS: (u64, u64) = (0, 10_000_000);

/// Conns of each family that a node whose tables a fault fills has room for at most: each of them is made anew.
pub(crate) const FILLED_TABLE_MAX: u32 = 262_144;

/// The shortest join time, in heartbeats.
pub(crate) const JOIN_TIME_HEARTBEATS: u32 = 4;

/// VIPs of a family that nodes share: those of one virtual router.
pub(crate) const VIP_COUNT_MAX: usize = evenkeel_core::cluster::VIRTUAL_ADDR_COUNT_MAX;

/// Of other values, what the docs must say: table, key and the words.
pub fn limit_words() -> Vec<(&'static str, &'static str, String)> {
    let span = |d: Duration| super::value::show_span(d);
    let ms = |(min, max): (u64, u64)| {
        let ms = Duration::from_millis;
        format!("`\"{}\"` to `\"{}\"`", span(ms(min)), span(ms(max)))
    };
    let datagram = format!("{DATAGRAM_MIN} to {DATAGRAM_MAX}");
    vec![
        ("Top level", "duration", format!("`\"{}\"`", span(DURATION_MAX))),
        ("[cluster]", "heartbeat", ms(HEARTBEAT_MS)),
        ("[cluster]", "advertisement", ms(ADVERTISEMENT_MS)),
        ("[cluster]", "join_time", ms(JOIN_TIME_MS)),
        ("[cluster]", "bulk_delay", ms(BULK_DELAY_MS)),
        ("[router]", "interval", ms(HELLO_MS)),
        ("[[fault]]", "delay", format!("`\"{}\"`", span(ADDED_DELAY_MAX))),
        (
            "[links.clients]",
            "delay",
            format!("`\"{}\"`", span(ADDED_DELAY_MAX)),
        ),
        (
            "[cluster]",
            "join_time",
            format!("{JOIN_TIME_HEARTBEATS} heartbeats"),
        ),
        (
            "[cluster]",
            "frame_cost",
            format!("`\"{}\"`", span(Duration::from_nanos(FRAME_COST_NS.1))),
        ),
        (
            "[cluster]",
            "drift",
            format!("`\"{}ppm\"`", evenkeel_io_sim::DRIFT_PPM_MAX),
        ),
        ("[[fault]]", "by", format!("`\"{}\"`", span(STEP_MAX))),
        ("[[fault]]", "share", format!("{FILLED_TABLE_MAX} conns")),
        ("[[service]]", "vip", format!("{VIP_COUNT_MAX} of a family")),
        (
            "[[service]]",
            "established_timeout",
            format!("`\"{}\"`", span(evenkeel_core::proto::TIMEOUT_MAX)),
        ),
        ("[[load]]", "flows", format!("{FLOW_COUNT_MAX} in all")),
        ("[[load]]", "request_bytes", datagram.clone()),
        ("[[load]]", "reply_bytes", datagram),
        ("[[fault]]", "do", format!("{FAULT_COUNT_MAX} faults")),
        ("[[expect]]", "that", format!("{EXPECT_COUNT_MAX} expectations")),
        (
            "[[expect]]",
            "that",
            format!("{} bytes", crate::expect::TEXT_LEN_MAX),
        ),
    ]
}
