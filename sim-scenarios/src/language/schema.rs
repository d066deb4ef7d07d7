//! The tables of the language and their keys.

use evenkeel_control::reading::{Key, Schema};

pub(crate) static ROOT: Schema = Schema {
    title: "",
    keys: &[
        Key("name", "\"active-backup-crash\""),
        Key("number", "1"),
        Key("description", "\"what happens, and what must come out\""),
        Key("waits_for", "\"digests\""),
        Key("seed", "\"7\""),
        Key("ties", "\"7\""),
        Key("duration", "\"60s\""),
        Key("quiet", "\"5s\""),
        Key("may_hang", "\"on\""),
        Key("events_max", "100000000"),
        Key("memory_mib", "1024"),
        Key("base", "\"active-backup-crash.toml\""),
        Key("cluster", "[cluster]"),
        Key("router", "[router]"),
        Key("links", "[links]"),
        Key("hosts", "[hosts]"),
        Key("service", "[[service]]"),
        Key("load", "[[load]]"),
        Key("fault", "[[fault]]"),
        Key("expect", "[[expect]]"),
        Key("off", "[off]"),
    ],
};

/// A counter-proof: what else it is stands in its base.
pub(crate) static COUNTER_PROOF: Schema = Schema {
    title: "",
    keys: &[
        Key("name", "\"active-backup-crash.off\""),
        Key("number", "2"),
        Key("description", "\"what must go wrong without the mechanism\""),
        Key("base", "\"active-backup-crash.toml\""),
        Key("off", "[off]"),
        Key("expect", "[[expect]]"),
    ],
};

pub(crate) static CLUSTER: Schema = Schema {
    title: "[cluster]",
    keys: &[
        Key("nodes", "2"),
        Key("workers", "2"),
        Key("table", "65536"),
        Key("buckets", "64"),
        Key("local_addresses", "2"),
        Key("local_port_min", "60000"),
        Key("heartbeat", "\"100ms\""),
        Key("advertisement", "\"100ms\""),
        Key("join_time", "\"1s\""),
        Key("bulk_delay", "\"20ms\""),
        Key("preempt", "\"on\""),
        Key("sealed", "\"on\""),
        Key("digests", "\"on\""),
        Key("lsn_ring", "256"),
        Key("ring", "1024"),
        Key("frame_cost", "\"200ns\""),
        Key("drift", "\"-50ppm..50ppm\""),
        Key("node", "[[cluster.node]]"),
    ],
};

pub(crate) static NODE: Schema = Schema {
    title: "[[cluster.node]]",
    keys: &[
        Key("id", "2"),
        Key("workers", "12"),
        Key("priority", "200"),
        Key("table", "1024"),
        Key("frame_cost", "\"2us\""),
        Key("drift", "\"200ppm\""),
        Key("format", "2"),
        Key("absent", "\"on\""),
    ],
};

pub(crate) static ROUTER: Schema = Schema {
    title: "[router]",
    keys: &[
        Key("ecmp", "\"modulo\""),
        Key("buckets", "128"),
        Key("detect", "\"on\""),
        Key("interval", "\"50ms\""),
        Key("multiplier", "3"),
    ],
};

pub(crate) static LINKS: Schema = Schema {
    title: "[links]",
    keys: &[
        Key("clients", "[links.clients]"),
        Key("servers", "[links.servers]"),
        Key("sync", "[links.sync]"),
        Key("delays", "[\"client0 50us\"]"),
    ],
};

pub(crate) static LINK: Schema = Schema {
    title: "[links.NAME]",
    keys: &[
        Key("delay", "\"50us..2ms\""),
        Key("loss", "\"1%\""),
        Key("burst", "10"),
        Key("duplicate", "\"1%\""),
        Key("reorder", "\"1%\""),
        Key("corrupt", "\"0.1%\""),
        Key("bandwidth", "\"10Gbit\""),
        Key("mtu", "1500"),
        Key("vlan", "10"),
    ],
};

pub(crate) static HOSTS: Schema = Schema {
    title: "[hosts]",
    keys: &[
        Key("clients", "\"flyweight\""),
        Key("servers", "\"flyweight\""),
        Key("sampled", "20"),
        Key("keepalive", "\"10s\""),
        Key("keepalive_interval", "\"1s\""),
        Key("keepalive_probes", "3"),
    ],
};

pub(crate) static SERVICE: Schema = Schema {
    title: "[[service]]",
    keys: &[
        Key("name", "\"web\""),
        Key("vip", "\"192.0.2.80:80\""),
        Key("protocol", "\"tcp\""),
        Key("servers", "3"),
        Key("served", "\"off\""),
        Key("replicate", "\"synack\""),
        Key("established_timeout", "\"90s\""),
    ],
};

pub(crate) static LOAD: Schema = Schema {
    title: "[[load]]",
    keys: &[
        Key("name", "\"long\""),
        Key("services", "[\"web\"]"),
        Key("flows", "1000"),
        Key("start", "\"1s..5s\""),
        Key("rate", "200"),
        Key("plan", "\"0 web 1 2500ms\""),
        Key("requests", "10"),
        Key("request_bytes", "200"),
        Key("reply_bytes", "2000"),
        Key("every", "\"200ms..2s\""),
        Key("until", "\"50s\""),
        Key("end", "\"close\""),
        Key("give_up", "\"30s\""),
    ],
};

pub(crate) static FAULT: Schema = Schema {
    title: "[[fault]]",
    keys: &[
        Key("name", "\"crash\""),
        Key("do", "\"crash\""),
        Key("at", "\"20s..30s\""),
        Key("after", "\"crash\""),
        Key("for", "\"500ms\""),
        Key("node", "\"master\""),
        Key("clock", "\"off\""),
        Key("network", "\"sync\""),
        Key("way", "\"both\""),
        Key("loss", "\"100%\""),
        Key("burst", "10"),
        Key("arp", "\"50%\""),
        Key("duplicate", "\"100%\""),
        Key("copies", "2"),
        Key("reorder", "\"50%\""),
        Key("reorder_by", "\"5ms\""),
        Key("corrupt", "\"1%\""),
        Key("delay", "\"20ms\""),
        Key("bandwidth", "\"100Mbit\""),
        Key("bucket", "7"),
        Key("kinds", "[\"close\"]"),
        Key("to", "\"2\""),
        Key("frames", "1"),
        Key("entries", "4"),
        Key("optional", "\"on\""),
        Key("state", "\"off\""),
        Key("worker", "0"),
        Key("factor", "100"),
        Key("share", "\"95%\""),
        Key("drift", "\"200ppm\""),
        Key("by", "\"5s\""),
        Key("wall", "\"on\""),
        Key("service", "\"web\""),
        Key("server", "1"),
        Key("servers", "4"),
        Key("weight", "0"),
        Key("served", "\"on\""),
    ],
};

pub(crate) static EXPECT: Schema = Schema {
    title: "[[expect]]",
    keys: &[
        Key("that", "\"broken == 0\""),
        Key("name", "\"nothing-breaks\""),
        Key("of", "\"long\""),
    ],
};

pub(crate) static OFF: Schema = Schema {
    title: "[off]",
    keys: &[
        Key("mechanism", "\"replication\""),
        Key("fails", "[\"broken == 0\"]"),
        Key("follows", "[\"server-stays\"]"),
        Key("base", "\"active-backup-crash.toml\""),
    ],
};

/// Every table, for keys that stand in the wrong one.
pub(crate) static ALL: &[&Schema] = &[
    &ROOT, &CLUSTER, &NODE, &ROUTER, &LINKS, &LINK, &HOSTS, &SERVICE, &LOAD, &FAULT, &EXPECT, &OFF,
];
