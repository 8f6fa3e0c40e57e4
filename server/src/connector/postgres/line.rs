//! A connection to a server of PostgreSQL: by its socket, or by TCP and always TLS.

use std::{
    error::Error as _,
    future::Future,
    io,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use aws_lc_rs::digest::{SHA256, SHA384, SHA512, digest};
use der::Decode as _;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    task::JoinHandle,
};
use tokio_postgres::{
    Client, Config, Connection, NoTls,
    config::SslMode,
    error::SqlState,
    tls::{ChannelBinding, TlsConnect, TlsStream},
};

/// What the client says without a password when the server asks for one.
const ASKED: &str = "password missing";
/// Longest message that is kept, in characters.
const MAX_MESSAGE: usize = 300;

/// Where a server is.
pub(super) enum Way {
    /// Its socket on this host.
    Socket(PathBuf),
    /// A host and a port, and who is believed about it.
    Net(String, u16, Arc<ClientConfig>),
}

/// What went wrong.
#[derive(Debug)]
pub(super) struct Fault {
    /// The server's own word, where it gave one.
    pub(super) code: Option<SqlState>,
    /// For operators.
    pub(super) text: String,
    /// The server asked for a password, and there was none to give.
    pub(super) asked: bool,
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        let source = error.source().map(ToString::to_string);
        let text = match (error.as_db_error(), &source) {
            (Some(said), _) => format!("{} ({})", said.message(), said.code().code()),
            (None, Some(source)) => format!("{error}: {source}"),
            (None, None) => error.to_string(),
        };
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        Self {
            code: error.code().cloned(),
            text: text.chars().map(plain).take(MAX_MESSAGE).collect(),
            asked: source.as_deref() == Some(ASKED),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self {
            code: None,
            text: error.to_string(),
            asked: false,
        }
    }
}

/// A connection; dropped, it is closed at once, and what was not committed never is.
pub(super) struct Line {
    client: Client,
    task: JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::ops::Deref for Line {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Line {
    /// Signs in.
    pub(super) async fn open(way: &Way, config: &mut Config) -> Result<Self, Fault> {
        config.application_name("keyturn");
        match way {
            Way::Socket(path) => {
                let stream = UnixStream::connect(path).await?;
                config.ssl_mode(SslMode::Disable);
                Ok(Self::of(config.connect_raw(stream, NoTls).await?))
            }
            Way::Net(host, port, tls) => {
                let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                config.ssl_mode(SslMode::Require);
                let tls = Tls(Arc::clone(tls), name);
                Ok(Self::of(config.connect_raw(stream, tls).await?))
            }
        }
    }

    fn of<S, T>((client, connection): (Client, Connection<S, T>)) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let task = tokio::spawn(async move {
            // How it ends is told to the call that waits.
            let _ = connection.await;
        });
        Self { client, task }
    }
}

/// TLS by the stack of the whole daemon.
struct Tls(Arc<ClientConfig>, ServerName<'static>);

impl TlsConnect<TcpStream> for Tls {
    type Stream = Encrypted;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted>> + Send>>;

    fn connect(self, stream: TcpStream) -> Self::Future {
        let Self(config, name) = self;
        let connector = tokio_rustls::TlsConnector::from(config);
        Box::pin(async move { Ok(Encrypted(connector.connect(name, stream).await?)) })
    }
}

/// A stream under TLS.
struct Encrypted(tokio_rustls::client::TlsStream<TcpStream>);

impl TlsStream for Encrypted {
    /// `tls-server-end-point` (RFC 5929): the server proves that the password is for this very connection.
    fn channel_binding(&self) -> ChannelBinding {
        let chain = self.0.get_ref().1.peer_certificates();
        let bound = chain.and_then(|chain| end_point(chain.first()?));
        bound.map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

/// The hash of a certificate by the hash of its own signature, where that is known.
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let parsed = x509_cert::Certificate::from_der(certificate).ok()?;
    let algorithm = match parsed.signature_algorithm().oid.to_string().as_str() {
        "1.2.840.113549.1.1.11" | "1.2.840.10045.4.3.2" => &SHA256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => &SHA384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => &SHA512,
        _ => return None,
    };
    Some(digest(algorithm, certificate).as_ref().to_vec())
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
