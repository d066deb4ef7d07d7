//! Puts the committed scenarios into the crate, so that an installed binary knows them.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("scenarios");
    println!("cargo:rerun-if-changed={}", folder.display());
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder)
        .expect("the folder of scenarios")
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "toml"))
        .collect();
    paths.sort();
    let mut code = String::from("&[\n");
    for path in paths {
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .expect("a name in UTF-8")
            .to_owned();
        let _ = writeln!(
            code,
            "({name:?}, include_str!({:?})),",
            path.display().to_string()
        );
    }
    code += "]";
    let out = Path::new(&env::var("OUT_DIR").expect("set by cargo")).join("scenarios.rs");
    fs::write(out, code).expect("the list can be written");
}
