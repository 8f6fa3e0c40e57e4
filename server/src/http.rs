//! Metrics and health for programs on this host: `GET /metrics` and `GET /health`, HTTP/1.1, one
//! answer a connection.
//!
//! # Invariants
//! 1. A request is read up to 4 KiB and for 2 seconds; at most 16 are served at once.
//! 2. Nothing here tells who may do what, or of any credential.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

use crate::{
    health::{Health, State},
    metrics::Metrics,
};

const MAX_REQUEST: usize = 4096;
const MAX_AT_ONCE: usize = 16;
const DEADLINE: Duration = Duration::from_secs(2);

/// Serves until dropped.
pub async fn serve(listener: TcpListener, metrics: Metrics, health: Health) {
    let room = Arc::new(Semaphore::new(MAX_AT_ONCE));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: others give some back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        if let Ok(permit) = Arc::clone(&room).try_acquire_owned() {
            let (metrics, health) = (metrics.clone(), health.clone());
            tokio::spawn(async move {
                // A peer that goes away or dawdles is no concern of anybody.
                drop(timeout(DEADLINE, answer(stream, &metrics, &health)).await);
                drop(permit);
            });
        }
    }
}

async fn answer(mut stream: TcpStream, metrics: &Metrics, health: &Health) -> std::io::Result<()> {
    let mut request = Vec::with_capacity(512);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < MAX_REQUEST {
        if (&mut stream).take(512).read_buf(&mut request).await? == 0 {
            break;
        }
    }
    let (status, body) = reply(&request, metrics, health);
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

fn reply(request: &[u8], metrics: &Metrics, health: &Health) -> (&'static str, String) {
    let line = request
        .split(|byte| *byte == b'\r')
        .next()
        .unwrap_or_default();
    let line = std::str::from_utf8(line).unwrap_or_default();
    match line.split(' ').collect::<Vec<_>>().as_slice() {
        ["GET", "/metrics", "HTTP/1.1" | "HTTP/1.0"] => ("200 OK", metrics.render()),
        ["GET", "/health", "HTTP/1.1" | "HTTP/1.0"] => match health.state() {
            State::Serving => {
                let note = health.noted().map(|note| format!("{note}\n"));
                ("200 OK", format!("serving\n{}", note.unwrap_or_default()))
            }
            State::NotServing(reason) => ("503 Service Unavailable", format!("{reason}\n")),
        },
        ["GET", _, "HTTP/1.1" | "HTTP/1.0"] => {
            ("404 Not Found", "try /metrics or /health\n".to_owned())
        }
        _ => ("400 Bad Request", "only GET is served here\n".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(address: std::net::SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // What is larger than the bound is cut off: writing the rest may fail.
        drop(stream.write_all(request).await);
        let mut reply = String::new();
        drop(stream.read_to_string(&mut reply).await);
        reply
    }

    #[tokio::test]
    async fn metrics_and_health_are_told_and_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Metrics::new();
        metrics.counter("k_total", "Some.", &[]).add(3);
        let (health, _) = Health::starting().await;
        tokio::spawn(serve(listener, metrics, health.clone()));

        let sick = ask(address, b"GET /health HTTP/1.1\r\n\r\n").await;
        assert!(
            sick.starts_with("HTTP/1.1 503 ") && sick.ends_with("the daemon is starting\n"),
            "{sick}"
        );
        health.serving().await;
        for (name, request, want) in [
            (
                "metrics",
                "GET /metrics HTTP/1.1\r\nHost: k\r\n\r\n",
                "HTTP/1.1 200 ",
            ),
            ("health", "GET /health HTTP/1.0\r\n\r\n", "HTTP/1.1 200 "),
            (
                "another page",
                "GET /../etc/passwd HTTP/1.1\r\n\r\n",
                "HTTP/1.1 404 ",
            ),
            (
                "another method",
                "POST /metrics HTTP/1.1\r\n\r\n",
                "HTTP/1.1 400 ",
            ),
            ("no HTTP", "\u{1}\u{2}\r\n\r\n", "HTTP/1.1 400 "),
        ] {
            let reply = ask(address, request.as_bytes()).await;
            assert!(reply.starts_with(want), "{name}: {reply}");
        }
        let long = [
            b"GET /metrics HTTP/1.1\r\nA: ".as_slice(),
            &[b'a'; 3 * MAX_REQUEST],
        ]
        .concat();
        let begun = Duration::from_secs(10);
        timeout(begun, ask(address, &long))
            .await
            .expect("invariant 1: an endless head ends");
    }
}
