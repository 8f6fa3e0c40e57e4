//! The gRPC interface of keyturn; generated code only.
//!
//! The `.proto` files beside this crate are the reference: shapes, units, errors and what happens when a
//! call is sent again. Start with `keyturn/v1/common.proto`.
#![forbid(unsafe_code)]

/// `keyturn.v1`: one module per service, one struct per message.
#[expect(
    clippy::large_enum_variant,
    reason = "generated; a stream's events are moved once"
)]
pub mod v1 {
    tonic::include_proto!("keyturn.v1");
}

/// The encoded `FileDescriptorSet` of the interface, comments included, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("keyturn.v1");

/// The largest message either side sends or accepts, in bytes.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// Trailer with the stable code of a refusal, like `same-custodian`.
pub const CODE_TRAILER: &str = "keyturn-code";

/// Binary trailer with a UTF-8 sentence: what to do next.
pub const HINT_TRAILER: &str = "keyturn-hint-bin";
