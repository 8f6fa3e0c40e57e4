//! Compiles `keyturn/v1/*.proto` in this process: no `protoc` is needed.
#![expect(
    clippy::disallowed_methods,
    reason = "a build script reads cargo's environment and writes into OUT_DIR"
)]

use std::{error::Error, fs, path::PathBuf};

const FILES: [&str; 7] = [
    "keyturn/v1/common.proto",
    "keyturn/v1/ceremony.proto",
    "keyturn/v1/credential.proto",
    "keyturn/v1/charter.proto",
    "keyturn/v1/rotation.proto",
    "keyturn/v1/audit.proto",
    "keyturn/v1/status.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=keyturn");
    let mut compiler = protox::Compiler::new(["."])?;
    compiler
        .include_source_info(true)
        .include_imports(true)
        .open_files(FILES)?;

    let descriptors = PathBuf::from(std::env::var("OUT_DIR")?).join("keyturn.v1.bin");
    fs::write(descriptors, compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure().compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
