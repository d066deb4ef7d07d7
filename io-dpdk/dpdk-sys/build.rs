//! Finds libdpdk and compiles the shim; without feature `dpdk` it does nothing at all.
//!
//! pkg-config is asked directly: the crate of that name keeps only `-I`, `-L`, `-l` and `-D`, and DPDK's
//! headers need `-include rte_config.h` and `-march=..` too.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(dpdk_stub)");
    #[cfg(feature = "dpdk")]
    dpdk::build();
}

#[cfg(feature = "dpdk")]
mod dpdk {
    use std::env;
    use std::process::Command;

    /// Oldest release that the shim is written for.
    const OLDEST: &str = "22.11";

    pub(super) fn build() {
        println!("cargo::rerun-if-changed=shim.c");
        for var in [
            "PKG_CONFIG",
            "PKG_CONFIG_PATH",
            "PKG_CONFIG_LIBDIR",
            "PKG_CONFIG_SYSROOT_DIR",
        ] {
            println!("cargo::rerun-if-env-changed={var}");
        }
        if let Err(why) = compile() {
            println!(
                "cargo::warning=feature `dpdk` is on, but {why}; building a stub without DPDK \
                 (Debian: apt install libdpdk-dev)"
            );
            println!("cargo::rustc-cfg=dpdk_stub");
            // Dependents read this as DEP_DPDK_STUB.
            println!("cargo::metadata=STUB=1");
        }
    }

    /// Compiles and links, or says why there is no usable libdpdk. A compiler that fails is no reason
    /// for a stub: `cc` ends the build with the compiler's message.
    fn compile() -> Result<(), String> {
        let version = pkg_config(&["--modversion", "libdpdk"])?;
        pkg_config(&[&format!("--atleast-version={OLDEST}"), "libdpdk"])
            .map_err(|_| format!("libdpdk {} is older than {OLDEST}", version.trim()))?;
        let cflags = words(&pkg_config(&["--cflags", "libdpdk"])?);
        let libs = words(&pkg_config(&["--libs", "libdpdk"])?);

        let mut build = cc::Build::new();
        build
            .file("shim.c")
            .std("gnu11")
            .warnings(true)
            .extra_warnings(true);
        for flag in &cflags {
            // As system headers, so that our warnings do not apply to them.
            match flag.strip_prefix("-I") {
                Some(dir) => build.flag("-isystem").flag(dir),
                None => build.flag(flag),
            };
        }
        build.compile("evenkeel_dpdk_shim");

        // As link-lib and link-search, since only these reach the binaries of dependents. rustc passes
        // --as-needed: what the shim does not use is not loaded. Drivers are found by EAL at run time.
        for word in &libs {
            if let Some(file) = word.strip_prefix("-l:") {
                println!("cargo::rustc-link-lib=dylib:+verbatim={file}");
            } else if let Some(lib) = word.strip_prefix("-l") {
                println!("cargo::rustc-link-lib=dylib={lib}");
            } else if let Some(dir) = word.strip_prefix("-L") {
                println!("cargo::rustc-link-search=native={dir}");
            } else if !matches!(word.as_str(), "-pthread" | "-Wl,--as-needed") {
                println!("cargo::warning=linker flag {word} of libdpdk is not passed on");
            }
        }
        Ok(())
    }

    fn pkg_config(args: &[&str]) -> Result<String, String> {
        let tool = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".to_owned());
        let out = Command::new(&tool)
            .args(args)
            .output()
            .map_err(|e| format!("{tool} cannot be run ({e})"))?;
        if !out.status.success() {
            return Err("libdpdk was not found by pkg-config".to_owned());
        }
        String::from_utf8(out.stdout).map_err(|_| format!("{tool} printed text that is not UTF-8"))
    }

    /// Splits as a shell does, as far as pkg-config's output needs: a backslash keeps the next character.
    fn words(text: &str) -> Vec<String> {
        let mut words = Vec::new();
        let mut word = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' => word.extend(chars.next()),
                c if c.is_whitespace() => {
                    if !word.is_empty() {
                        words.push(std::mem::take(&mut word));
                    }
                }
                c => word.push(c),
            }
        }
        if !word.is_empty() {
            words.push(word);
        }
        words
    }
}
