//! The way to a vault: gRPC over TLS 1.3, this device's key on one side, a pinned key on the other.
//!
//! # Invariants
//! 1. Nothing is sent to a server that has not proved the private key of a pin.
//! 2. All endpoints are tried, each a little after the one before, and the first that proves itself is
//!    used; what was wrong with each of the others is told.
//! 3. Names, validity and whoever signed the server's certificate decide nothing; an odd validity is told.

mod address;
mod tls;

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use http::Uri;
use hyper_util::rt::TokioIo;
use keyturn_hsm::device::{Certificate, DeviceKey};
use keyturn_vault::digest::Digest;
use rustls::{
    CertificateError, NamedGroup,
    crypto::SupportedKxGroup,
    pki_types::{ServerName, UnixTime},
};
use thiserror::Error;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

pub use self::address::{Address, AddressError, DEFAULT_PORT};
use self::tls::WrongKey;

/// The most endpoints of one vault.
pub const MAX_ENDPOINTS: usize = 16;

/// One endpoint is given up after this time.
const PER_ENDPOINT: Duration = Duration::from_secs(5);

/// The next endpoint is tried this much later.
const STAGGER: Duration = Duration::from_millis(250);

/// A call without a deadline of its own; the daemon's own bound is below.
const PER_CALL: Duration = Duration::from_secs(75);

const KEEP_ALIVE: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How to reach a vault and how to know it.
#[derive(Clone, Debug)]
pub struct Route {
    /// Where to try, in this order.
    pub addresses: Vec<Address>,
    /// The pins of the vault's nodes: SHA-256 of their public keys.
    pub pins: Vec<Digest>,
}

/// What went wrong with one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Its name is unknown, nobody listens, or the network is down.
    Unreachable(String),
    /// No answer in time.
    Slow,
    /// It proved another key.
    WrongKey(Digest),
    /// It closed the door during the handshake.
    NotLetIn,
    /// It speaks another TLS, or none.
    Tls(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) | Self::Tls(why) => f.write_str(why),
            Self::Slow => write!(f, "no answer within {} seconds", PER_ENDPOINT.as_secs()),
            Self::WrongKey(pin) => write!(f, "its key is {pin}, which is not the vault's"),
            Self::NotLetIn => f.write_str("it does not know this device"),
        }
    }
}

/// Why there is no way to the vault.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectError {
    /// The profile names none, or too many.
    #[error(
        "the profile must name 1 to {MAX_ENDPOINTS} addresses of the vault, and at least one pin"
    )]
    NoRoute,
    /// This device's key cannot be used.
    #[error("this device's key cannot be used for TLS: {0}")]
    Key(String),
    /// None of them worked.
    #[error("cannot reach the vault: {}", tell(.0))]
    Failed(Vec<(Address, Failure)>),
}

fn tell(failures: &[(Address, Failure)]) -> String {
    let one = |(address, failure): &(Address, Failure)| format!("{address}: {failure}");
    failures.iter().map(one).collect::<Vec<_>>().join("; ")
}

impl ConnectError {
    /// Stable.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoRoute | Self::Key(_) => "malformed",
            Self::Failed(failures) => {
                let any =
                    |test: fn(&Failure) -> bool| failures.iter().any(|(_, failure)| test(failure));
                if any(|failure| matches!(failure, Failure::WrongKey(_))) {
                    "wrong-server-key"
                } else if any(|failure| matches!(failure, Failure::NotLetIn)) {
                    "not-let-in"
                } else {
                    "unreachable"
                }
            }
        }
    }

    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match (self, self.code()) {
            (Self::NoRoute, _) => "join the vault again with its welcome file",
            (Self::Key(_), _) => "see `keyturn doctor`",
            (_, "wrong-server-key") => {
                "do not go on: ask the vault's operator on another way whether its key was replaced; after a restore, `keyturn accept-restore` takes the new one"
            }
            (_, "not-let-in") => {
                "use the home with which you joined; your token signs in another computer: keyturn join --device"
            }
            _ => {
                "see whether the daemon runs and the network leads there; `keyturn doctor` looks at the whole way"
            }
        }
    }
}

/// The server that proved itself last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where.
    pub address: Address,
    /// Which node: the pin of its key.
    pub pin: Digest,
    /// Its certificate is not valid now; the pin counts.
    pub complaint: Option<&'static str>,
    /// What is recorded on the way stays shut when quantum computers come.
    pub post_quantum: bool,
}

/// A way to a vault that heals itself: a broken connection is made anew with the next call.
#[derive(Clone)]
pub struct Link {
    channel: Channel,
    dialer: Dialer,
}

impl Link {
    /// For the generated clients.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Who is at the other end.
    pub fn server(&self) -> Option<Server> {
        self.dialer
            .0
            .server
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Connects, so that what is wrong is known before anything else is done.
pub async fn connect(route: &Route, device: &DeviceKey) -> Result<Link, ConnectError> {
    let dialer = Dialer::new(route, device)?;
    // The first connection is made here, for its errors, and handed to the channel.
    let first = dialer.dial().await?;
    dialer
        .0
        .ready
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .replace(first);
    // The authority is the same for every endpoint; pins, not names, tell who answers.
    let channel = Endpoint::from_static("https://keyturn")
        .timeout(PER_CALL)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .user_agent(concat!("keyturn/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| ConnectError::Key(error.to_string()))?
        .connect_with_connector_lazy(dialer.clone());
    Ok(Link { channel, dialer })
}

type Stream = TokioIo<TlsStream<TcpStream>>;

/// Makes connections, each time anew.
#[derive(Clone)]
struct Dialer(Arc<Dialing>);

struct Dialing {
    addresses: Vec<Address>,
    tls: TlsConnector,
    server: Mutex<Option<Server>>,
    ready: Mutex<Option<Stream>>,
}

impl Dialer {
    fn new(route: &Route, device: &DeviceKey) -> Result<Self, ConnectError> {
        if route.pins.is_empty() || !(1..=MAX_ENDPOINTS).contains(&route.addresses.len()) {
            return Err(ConnectError::NoRoute);
        }
        let tls = tls::config(route.pins.clone(), device)
            .map_err(|error| ConnectError::Key(error.to_string()))?;
        Ok(Self(Arc::new(Dialing {
            addresses: route.addresses.clone(),
            tls: TlsConnector::from(Arc::new(tls)),
            server: Mutex::default(),
            ready: Mutex::default(),
        })))
    }

    /// The first endpoint that proves itself (invariant 2).
    async fn dial(&self) -> Result<Stream, ConnectError> {
        let mut trying: FuturesUnordered<_> = (0_u32..)
            .zip(&self.0.addresses)
            .map(|(turn, address)| async move {
                tokio::time::sleep(STAGGER.saturating_mul(turn)).await;
                (turn, address, self.try_one(address).await)
            })
            .collect();
        let mut failures = Vec::new();
        while let Some((turn, address, outcome)) = trying.next().await {
            match outcome {
                Ok((stream, server)) => {
                    *self.0.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
                    return Ok(TokioIo::new(stream));
                }
                Err(failure) => failures.push((turn, (address.clone(), failure))),
            }
        }
        failures.sort_by_key(|(turn, _)| *turn);
        Err(ConnectError::Failed(
            failures.into_iter().map(|(_, failure)| failure).collect(),
        ))
    }

    async fn try_one(&self, address: &Address) -> Result<(TlsStream<TcpStream>, Server), Failure> {
        let attempt = async {
            let stream = TcpStream::connect((address.host(), address.port())).await;
            let stream = stream.map_err(|error| Failure::Unreachable(error.to_string()))?;
            // Small requests leave at once; a socket that cannot do that still works.
            drop(stream.set_nodelay(true));
            let name =
                ServerName::try_from("keyturn").map_err(|error| Failure::Tls(error.to_string()))?;
            self.0
                .tls
                .connect(name, stream)
                .await
                .map_err(|error| failure(&error))
        };
        let stream = timeout(PER_ENDPOINT, attempt)
            .await
            .map_err(|_| Failure::Slow)??;
        let odd = || Failure::Tls("it showed no certificate".to_owned());
        let group = stream
            .get_ref()
            .1
            .negotiated_key_exchange_group()
            .map(SupportedKxGroup::name);
        let shown = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(<[_]>::first)
            .ok_or_else(odd)?;
        let certificate =
            Certificate::parse(shown).map_err(|error| Failure::Tls(error.to_string()))?;
        let server = Server {
            address: address.clone(),
            pin: Digest(certificate.pin),
            complaint: certificate.complaint(UnixTime::now().as_secs()),
            post_quantum: group == Some(NamedGroup::X25519MLKEM768),
        };
        Ok((stream, server))
    }
}

/// What a failed handshake tells.
fn failure(error: &io::Error) -> Failure {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(other))) => {
            match other.0.downcast_ref::<WrongKey>() {
                Some(WrongKey(pin)) => Failure::WrongKey(*pin),
                None => Failure::Tls(error.to_string()),
            }
        }
        Some(rustls::Error::AlertReceived(alert)) if tells_unknown(*alert) => Failure::NotLetIn,
        Some(_) => Failure::Tls(error.to_string()),
        None => Failure::Unreachable(error.to_string()),
    }
}

fn tells_unknown(alert: rustls::AlertDescription) -> bool {
    use rustls::AlertDescription as Alert;
    [
        Alert::AccessDenied,
        Alert::BadCertificate,
        Alert::CertificateUnknown,
        Alert::UnknownCA,
    ]
    .contains(&alert)
}

impl Service<Uri> for Dialer {
    type Response = Stream;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<Stream, ConnectError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move {
            let ready = dialer
                .0
                .ready
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            match ready {
                Some(stream) => Ok(stream),
                None => dialer.dial().await,
            }
        })
    }
}
