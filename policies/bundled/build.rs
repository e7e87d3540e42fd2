//! Builds the bundled policies for `wasm32-unknown-unknown` and wraps each into a component.
//!
//! A nested cargo does it with the profile `policy` of the workspace, so that a change of a policy's source is picked up by an ordinary
//! `cargo build`. It has a target directory of its own: the outer build holds the lock of its own one.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use wit_component::ComponentEncoder;

/// Each is the folder below `policies/`, the package `partita-policy-<name>`, and the file `<name>.wasm` in `OUT_DIR`.
const POLICIES: [&str; 8] = ["first-fit", "fragmentation", "spread", "best-fit", "dot-product", "packing", "clustering", "random"];
/// An example of the sdk: not bundled, built along so that a test sees what the macro for the world `quota` makes.
const EXAMPLE: &str = "lend";
const TARGET: &str = "wasm32-unknown-unknown";

fn main() -> Result<()> {
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let root = manifest.ancestors().nth(2).context("policies/bundled lies two folders below the workspace")?.to_owned();
    let out = PathBuf::from(variable("OUT_DIR")?);
    watch(&root);
    let target_dir = target_dir(&out);
    compile(&root, &target_dir)?;
    let built = target_dir.join(TARGET).join("policy");
    for policy in POLICIES {
        componentise(&built.join(format!("partita_policy_{}.wasm", policy.replace('-', "_"))), &out.join(policy))?;
    }
    componentise(&built.join("examples").join(EXAMPLE).with_extension("wasm"), &out.join(EXAMPLE))
}

fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("cargo sets {name} for build scripts"))
}

/// Everything that the components are made of.
fn watch(root: &Path) {
    let policies = root.join("policies");
    for path in ["build.rs", "../sdk/src", "../sdk/examples", "../sdk/Cargo.toml", "../../wit", "../../Cargo.toml", "../../Cargo.lock"] {
        println!("cargo::rerun-if-changed={path}");
    }
    for policy in POLICIES {
        let folder = policies.join(policy);
        println!("cargo::rerun-if-changed={}", folder.join("src").display());
        println!("cargo::rerun-if-changed={}", folder.join("Cargo.toml").display());
    }
}

/// A folder beside the outer build's profiles (cargo marks the root of its target directory), so that debug, release and clippy builds
/// share one set of components; `OUT_DIR` itself where there is no such mark.
fn target_dir(out: &Path) -> PathBuf {
    let root = out.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file()).unwrap_or(out);
    root.join("policies")
}

fn compile(root: &Path, target_dir: &Path) -> Result<()> {
    let mut cargo = Command::new(variable("CARGO")?);
    cargo.current_dir(root).args(["build", "--profile", "policy", "--target", TARGET, "--target-dir"]).arg(target_dir);
    cargo.args(["--lib", "--example", EXAMPLE, "--package", "partita-sdk"]);
    for policy in POLICIES {
        cargo.args(["--package", &format!("partita-policy-{policy}")]);
    }
    // Wrappers, profiles, targets and folders of the outer build are about the host, not about policies.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let prefixes = ["RUSTFLAGS", "RUSTC_W", "CARGO_PROFILE_", "CARGO_BUILD_", "CARGO_TARGET_", "CARGO_UNSTABLE_"];
        if prefixes.iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(name);
        }
    }
    // Flags given here win over those of configuration files. Vector instructions make scans over columns cheaper, and every engine has
    // them. Paths of this machine would make the bytes differ from another machine's.
    let mut flags = vec!["-Ctarget-feature=+simd128".to_owned()];
    if let Some(home) = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| env::home_dir().map(|home| home.join(".cargo"))) {
        flags.push(format!("--remap-path-prefix={}=/cargo", home.display()));
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    let output = cargo.output().context("cannot run cargo for the policies")?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("target may not be installed") {
        bail!("policies are built for {TARGET}, which is not installed. Remedy: rustup target add {TARGET} --toolchain 1.95.0\n{errors}");
    }
    bail!("the policies do not build for {TARGET}:\n{errors}");
}

/// Wraps the core module `module` into the component `<out>.wasm`; its imports and exports are checked against the interfaces that it was
/// built for.
fn componentise(module: &Path, out: &Path) -> Result<()> {
    let component = || ComponentEncoder::default().module(&fs::read(module)?)?.validate(true).encode();
    let component = component().with_context(|| format!("{} does not make a component", module.display()))?;
    fs::write(out.with_extension("wasm"), component).with_context(|| format!("cannot write {}.wasm", out.display()))
}
