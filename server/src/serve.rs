//! The listeners and the life of the daemon's network side, in one call that tests make too.

use std::{io, net::SocketAddr, sync::Arc};

use keyturn_hsm::device::DeviceKey;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::{service::Routes, transport::Server};
use tonic_health::pb::health_server::{Health as HealthService, HealthServer};

use crate::{
    accept::{Porter, accept},
    anteroom::Anteroom,
    config::{Config, Limits},
    gate::Gate,
    http,
    shell::Shell,
    tls,
};

/// Why the daemon cannot be reached.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// An address is taken, not this host's, or not allowed.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The node's key does not make a TLS server.
    #[error("the node's key cannot be used for TLS")]
    Tls(#[source] rustls::Error),
    /// The description of the services is broken.
    #[error("reflection cannot be served")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// HTTP/2 failed as a whole.
    #[error("the gRPC server stopped")]
    Transport(#[source] tonic::transport::Error),
}

/// Sockets that listen already; nobody is answered yet.
#[derive(Debug)]
pub struct Bound {
    grpc: Vec<TcpListener>,
    metrics: Option<TcpListener>,
    limits: Limits,
}

impl Bound {
    /// Takes the addresses of a configuration; a port 0 becomes a free one.
    pub async fn new(config: &Config) -> Result<Self, ServeError> {
        let mut grpc = Vec::new();
        for address in config.listen.grpc.all() {
            grpc.push(listen(*address).await?);
        }
        let metrics = match config.listen.metrics {
            Some(address) => Some(listen(address.address()).await?),
            None => None,
        };
        Ok(Self {
            grpc,
            metrics,
            limits: config.limits.clone(),
        })
    }

    /// Where gRPC is served.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.grpc
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect()
    }

    /// Where metrics and health are served.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
            .as_ref()
            .and_then(|listener| listener.local_addr().ok())
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Listen { address, source })
}

/// Serves `routes`, health and reflection until `stop` ends, then gives calls under way some time.
///
/// Streams do not end by themselves: services end theirs when `stop` does.
pub async fn serve(
    bound: Bound,
    key: &DeviceKey,
    shell: Shell,
    (routes, health): (Routes, HealthServer<impl HealthService>),
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let limits = Arc::new(bound.limits);
    let strangers = limits.stranger_connections.value() > 0;
    let tls = tls::server(key, shell.peers.clone(), strangers).map_err(ServeError::Tls)?;
    let gate = Gate::new((*limits).clone());
    let porter = Porter {
        tls: TlsAcceptor::from(Arc::new(tls)),
        gate,
        peers: shell.peers.clone(),
        clock: shell.clock.clone(),
        metrics: shell.metrics.clone(),
        limits: Arc::clone(&limits),
    };
    let page = bound.metrics.map(|listener| {
        tokio::spawn(http::serve(
            listener,
            shell.metrics.clone(),
            shell.health.clone(),
        ))
    });

    let routes = routes.add_service(health).add_service(reflection()?);
    let routes = Anteroom::new(routes, &shell);
    let (stopped, begun) = tokio::sync::oneshot::channel();
    let serving = builder(&limits).serve_with_incoming_shutdown(
        routes,
        accept(bound.grpc, &porter),
        async move {
            stop.await;
            // The grace below is over when this function has returned.
            let _ = stopped.send(());
        },
    );
    let grace = async {
        // Not sent when serving ended by itself; then this is dropped with it.
        if begun.await.is_ok() {
            tokio::time::sleep(limits.stop_secs.secs()).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    let outcome = tokio::select! {
        served = serving => served.map_err(ServeError::Transport),
        () = grace => {
            tracing::warn!("calls that did not end in time were cut off");
            Ok(())
        }
    };
    if let Some(page) = page {
        page.abort();
    }
    outcome
}

fn builder(limits: &Limits) -> Server {
    Server::builder()
        .max_concurrent_streams(limits.streams_per_connection.value())
        .concurrency_limit_per_connection(limits.streams_per_connection.size())
        .timeout(limits.call_secs.secs())
        .http2_keepalive_interval(Some(limits.keep_alive_secs.secs()))
        .http2_keepalive_timeout(Some(limits.keep_alive_timeout_secs.secs()))
        .http2_max_header_list_size(limits.headers_kib.value().saturating_mul(1024))
}

fn reflection() -> Result<
    tonic_reflection::server::v1::ServerReflectionServer<
        impl tonic_reflection::server::v1::ServerReflection,
    >,
    ServeError,
> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(keyturn_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(ServeError::Reflection)
}
