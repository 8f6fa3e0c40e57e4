//! From a TCP connection to a peer that has proved its key.
//!
//! # Invariants
//! 1. A handshake ends in time, and none waits for another.
//! 2. Whoever is not let in costs a closed socket and a counter, no log line each: nobody fills the
//!    disk by knocking.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use keyturn_hsm::device::Certificate;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use crate::{
    clock::Clock,
    config::Limits,
    gate::{Gate, Pass},
    metrics::Metrics,
    peers::{Peer, Peers},
    tls,
};

/// Everything an accepting loop shares with the others.
#[derive(Clone)]
pub struct Porter {
    /// The handshake.
    pub tls: TlsAcceptor,
    /// The bounds.
    pub gate: Gate,
    /// Who is known.
    pub peers: Peers,
    /// The time.
    pub clock: Clock,
    /// The counters.
    pub metrics: Metrics,
    /// The deadlines.
    pub limits: Arc<Limits>,
}

/// A connection whose peer has proved its key.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    // Held for as long as the connection lives.
    _pass: Pass,
}

/// Accepts on every listener until the stream of connections is dropped.
pub fn accept(
    listeners: Vec<TcpListener>,
    porter: &Porter,
) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(16);
    for listener in listeners {
        tokio::spawn(porter.clone().run(listener, sender.clone()));
    }
    ReceiverStream::new(receiver)
}

impl Porter {
    async fn run(self, listener: TcpListener, sender: mpsc::Sender<io::Result<Connection>>) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: waiting lets others give some back.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            let pass = match self.gate.enter(address.ip(), self.clock.running()) {
                Ok(pass) => pass,
                Err(shut) => {
                    self.refused(shut.label());
                    continue;
                }
            };
            let (porter, sender) = (self.clone(), sender.clone());
            tokio::spawn(async move {
                if let Some(connection) = porter.handshake(stream, address, pass).await {
                    // Nobody listens any more: the daemon stops.
                    drop(sender.send(Ok(connection)).await);
                }
            });
        }
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        pass: Pass,
    ) -> Option<Connection> {
        // Small answers leave at once; a socket that cannot do that still works.
        drop(stream.set_nodelay(true));
        let handshake = self.tls.accept(stream);
        let stream = match timeout(self.limits.handshake_secs.secs(), handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%address, %error, "handshake failed");
                pass.strike();
                self.refused("handshake");
                return None;
            }
            Err(_) => {
                pass.strike();
                self.refused("handshake-slow");
                return None;
            }
        };
        let certificate = stream.get_ref().1.peer_certificates()?.first()?;
        let certificate = Certificate::parse(certificate).ok()?;
        let (pin, key) = tls::pinned(&certificate)?;
        if let Some(complaint) = certificate.complaint(self.clock.now().ms() / 1000) {
            tracing::warn!(%address, %pin, "a device was let in although {complaint}");
        }
        let pass = if self.peers.knows(&pin) {
            pass
        } else {
            match pass.as_stranger() {
                Ok(pass) => pass,
                Err(shut) => {
                    self.refused(shut.label());
                    return None;
                }
            }
        };
        self.metrics
            .counter(
                "keyturn_connections_total",
                "Connections whose peer proved its key.",
                &[],
            )
            .one();
        Some(Connection {
            stream,
            peer: Peer { pin, key, address },
            _pass: pass,
        })
    }

    fn refused(&self, reason: &'static str) {
        let help = "Connections that were not let in.";
        self.metrics
            .counter(
                "keyturn_connections_refused_total",
                help,
                &[("reason", reason)],
            )
            .one();
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
