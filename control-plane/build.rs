//! Builds the filter for `wasm32-wasip1` and leaves it in `OUT_DIR`, from where the control plane embeds it: one `cargo build`
//! makes both halves from the same sources, so the policy's schema cannot differ between them.

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

const TARGET: &str = "wasm32-wasip1";

fn main() -> ExitCode {
    for path in ["filter/src", "filter/core/src", "filter/Cargo.toml", "filter/core/Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed=../{path}");
    }
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            println!("cargo::error={reason}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let variable = |name: &str| env::var_os(name).map(PathBuf::from).ok_or_else(|| format!("cargo sets no {name}"));
    let out = variable("OUT_DIR")?;
    let workspace = variable("CARGO_MANIFEST_DIR")?.join("..");
    // A target directory of its own: the one of the outer cargo is locked.
    let target = out.join("filter");
    let mut cargo = Command::new(variable("CARGO")?);
    cargo.current_dir(workspace).args([
        "build",
        "--package",
        "tidegate-filter",
        "--release",
        "--target",
        TARGET,
        "--locked",
    ]);
    cargo.arg("--target-dir").arg(&target);
    // What the outer cargo tells its own compilers is not for the inner one.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        let outer =
            ["CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "RUSTC_WRAPPER", "CARGO_TARGET_DIR"];
        if outer.contains(&&*name) || name.starts_with("CARGO_FEATURE_") || name.starts_with("CARGO_CFG_") {
            cargo.env_remove(&*name);
        }
    }
    let output = cargo.output().map_err(|error| format!("cargo cannot be run for the filter: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        for line in said.lines() {
            println!("cargo::warning={line}");
        }
        return Err(format!("the filter cannot be built for {TARGET} (`make setup` adds the target by rustup)"));
    }
    let built = target.join(TARGET).join("release/tidegate_filter.wasm");
    std::fs::copy(&built, out.join("tidegate_filter.wasm")).map_err(|error| format!("{}: {error}", built.display()))?;
    Ok(())
}
