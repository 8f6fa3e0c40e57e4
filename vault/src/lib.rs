//! The pure core of keyturn: documents, signed texts, machines, events, replay.
