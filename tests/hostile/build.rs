//! Builds the hostile guest for `wasm32-unknown-unknown` and wraps it into a component.
//!
//! A nested cargo does it, with a target directory of its own since the outer build holds the lock of its own one; the same one that the
//! bundled policies use, so that what they share is built once.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use wit_component::ComponentEncoder;

const TARGET: &str = "wasm32-unknown-unknown";

fn main() -> Result<()> {
    for path in ["build.rs", "guest", "../../wit", "../../Cargo.lock"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let out = PathBuf::from(variable("OUT_DIR")?);
    let target_dir = out.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file()).unwrap_or(&out).join("policies");
    compile(&target_dir)?;
    let module = fs::read(target_dir.join(TARGET).join("policy/partita_hostile_guest.wasm")).context("cargo built no guest")?;
    let component = ComponentEncoder::default().module(&module)?.validate(true).encode()?;
    fs::write(out.join("hostile.wasm"), component)?;
    Ok(())
}

fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("cargo sets {name} for build scripts"))
}

fn compile(target_dir: &Path) -> Result<()> {
    let mut cargo = Command::new(variable("CARGO")?);
    cargo.args(["build", "--profile", "policy", "--target", TARGET, "--package", "partita-hostile-guest", "--target-dir"]).arg(target_dir);
    // Wrappers, flags and folders of the outer build are about the host.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let prefixes = ["RUSTFLAGS", "RUSTC_W", "CARGO_ENCODED", "CARGO_PROFILE_", "CARGO_BUILD_", "CARGO_TARGET_"];
        if prefixes.iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(name);
        }
    }
    let output = cargo.output().context("cannot run cargo for the hostile guest")?;
    if !output.status.success() {
        bail!("the hostile guest does not build for {TARGET}:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
