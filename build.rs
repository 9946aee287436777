//! Says what is missing where the client of etcd cannot be built. The client's own build runs protoc; in a clone `.cargo/config.toml`
//! names one, but `cargo install` of a published crate does not read that file.

use std::env;
use std::process::{Command, Stdio};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=PROTOC");
    if env::var_os("CARGO_FEATURE_ETCD").is_none() {
        return;
    }
    let protoc = env::var_os("PROTOC").unwrap_or_else(|| "protoc".into());
    let version = Command::new(&protoc).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if version.is_ok_and(|status| status.success()) {
        return;
    }
    println!("cargo::error=the feature `etcd` needs protoc, and {} cannot be run", protoc.display());
    println!(
        "cargo::error=hint: install it (Debian, Ubuntu: apt-get install protobuf-compiler; Fedora: dnf install protobuf-compiler)"
    );
    println!("cargo::error=hint: or name yours: PROTOC=/path/of/protoc cargo install runner");
    println!(
        "cargo::error=hint: or build in a clone of the repository, which brings one: cargo install --locked --path ."
    );
    println!("cargo::error=hint: or leave etcd out: cargo install runner --no-default-features --features s3");
}
