//! Passes on whether dpdk-sys is a stub, so that tests can be skipped by name.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(dpdk_stub)");
    if std::env::var_os("DEP_DPDK_STUB").is_some() {
        println!("cargo::rustc-cfg=dpdk_stub");
    }
}
