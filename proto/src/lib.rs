//! The gRPC interface of keyturn; generated code only.
