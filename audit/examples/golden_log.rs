//! Writes the golden log into `testdata`, over an empty `testdata/log`.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a tool for developers fails by panicking"
)]

#[path = "../tests/golden/make.rs"]
mod make;

fn main() {
    make::make(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata"));
}
