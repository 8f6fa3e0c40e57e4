//! The webhook: one HTTP/1.1 POST on a connection of its own, of which only the status is looked at.
//!
//! # Invariants
//! 1. No redirect is followed, no body of an answer is read, nothing is sent before the server is known.
//! 2. A call ends by its deadline.
//! 3. The body is signed with a key that is read from its file each time: HMAC-SHA-256 (RFC 2104) over the
//!    time, a full stop, and the body.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::hmac;
use keyturn_hsm::private;
use keyturn_vault::time::Time;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::Failure;
use crate::{config::WebUrl, tls};

/// The fewest bytes of a key.
const MIN_KEY: usize = 16;
/// What is read of an answer at most: its status line.
const MAX_STATUS: u64 = 1024;
/// Where systems keep the authorities that they trust.
const SYSTEM_ROOTS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// An HTTP server that is told.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Where.
    pub url: WebUrl,
    /// The file with the key of the signature.
    pub key: PathBuf,
    /// The file with the authorities that may vouch for the server; none: the system's.
    pub roots: Option<PathBuf>,
    /// A call is over after this time.
    pub deadline: Duration,
}

/// What would keep it from working, as far as this host can tell.
pub(super) fn check(hook: &Webhook) -> Result<(), String> {
    key(&hook.key)?;
    if hook.url.tls {
        roots(hook.roots.as_deref())?;
    }
    Ok(())
}

/// Posts a notice.
pub(super) async fn post(hook: &Webhook, id: &str, time: Time, body: &[u8]) -> Result<(), Failure> {
    let call = call(hook, id, time, body);
    let status = timeout(hook.deadline, call).await;
    let late = || format!("no answer within {} s", hook.deadline.as_secs());
    let status = status
        .map_err(|_| Failure::Later(late()))?
        .map_err(Failure::Later)?;
    match status {
        200..=299 => Ok(()),
        400 | 413 | 415 | 422 => Err(Failure::Never(format!(
            "the server does not take this notice ({status})"
        ))),
        300..=399 => Err(Failure::Later(format!(
            "the server answers {status}; redirects are not followed"
        ))),
        _ => Err(Failure::Later(format!("the server answers {status}"))),
    }
}

async fn call(hook: &Webhook, id: &str, time: Time, body: &[u8]) -> Result<u16, String> {
    let key = key(&hook.key)?;
    let url = &hook.url;
    let stream = TcpStream::connect((url.host.as_str(), url.port)).await;
    let stream = stream.map_err(|error| format!("cannot connect to {}: {error}", url.host))?;
    let request = request(url, id, &signature(&key, time, body), body);
    let talked = if url.tls {
        let provider = Arc::new(tls::provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots(hook.roots.as_deref())?)
            .with_no_client_auth();
        let name = ServerName::try_from(url.host.clone()).map_err(|error| error.to_string())?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, stream).await;
        let stream = stream.map_err(|error| format!("no TLS with {}: {error}", url.host))?;
        talk(stream, &request).await
    } else {
        talk(stream, &request).await
    };
    let line = talked.map_err(|error| format!("the server broke off: {error}"))?;
    status(&line).ok_or_else(|| "the server does not answer in HTTP".to_owned())
}

/// Sends the request and reads the first line of the answer.
async fn talk(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &[u8],
) -> io::Result<Vec<u8>> {
    stream.write_all(request).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    let mut bounded = stream.take(MAX_STATUS);
    while !answer.contains(&b'\n') && bounded.read_buf(&mut answer).await? > 0 {}
    Ok(answer)
}

/// RFC 9112 §3 and §4: the status of an answer that begins like this.
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.strip_prefix("HTTP/1.")?.split([' ', '\r']);
    let (_, status) = (words.next()?, words.next()?);
    (status.len() == 3).then(|| status.parse().ok()).flatten()
}

fn request(url: &WebUrl, id: &str, signature: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: keyturnd/{}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nIdempotency-Key: \"{id}\"\r\nKeyturn-Signature: {signature}\r\n\
         Connection: close\r\n\r\n",
        url.path,
        url.authority,
        env!("CARGO_PKG_VERSION"),
        body.len(),
    );
    [head.as_bytes(), body].concat()
}

/// `t=SECONDS,v1=HEX`.
fn signature(key: &[u8], time: Time, body: &[u8]) -> String {
    let seconds = (time.ms() / 1000).to_string();
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let mut over = hmac::Context::with_key(&key);
    over.update(seconds.as_bytes());
    over.update(b".");
    over.update(body);
    format!("t={seconds},v1={}", hex::encode(over.sign()))
}

fn key(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, String> {
    let shown = path.display();
    let mut key = private::read(path).map_err(|error| format!("the key {shown}: {error}"))?;
    let end = key.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r'));
    key.truncate(end.map_or(0, |end| end.saturating_add(1)));
    if key.len() < MIN_KEY {
        return Err(format!("the key {shown} has fewer than {MIN_KEY} bytes"));
    }
    Ok(key)
}

fn roots(path: Option<&Path>) -> Result<RootCertStore, String> {
    let system = || {
        SYSTEM_ROOTS
            .iter()
            .map(Path::new)
            .find(|path| path.exists())
    };
    let path = path.or_else(system).ok_or(
        "this system has no list of authorities where they usually are; name one with `roots`",
    )?;
    let shown = path.display();
    let found = CertificateDer::pem_file_iter(path)
        .map_err(|error| format!("the roots {shown}: {error}"))?;
    let (added, _) = {
        let mut store = RootCertStore::empty();
        let counts = store.add_parsable_certificates(found.filter_map(Result::ok));
        (store, counts)
    };
    if added.is_empty() {
        return Err(format!("the roots {shown} hold no certificate"));
    }
    Ok(added)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _, os::unix::fs::OpenOptionsExt as _};

    use rustls::ServerConfig;
    use tokio::net::TcpListener;

    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn file(folder: &Path, name: &str, content: &str) -> PathBuf {
        let path = folder.join(name);
        let mut options = File::options();
        let file = options.create(true).truncate(true).write(true).mode(0o600);
        file.open(&path)
            .unwrap()
            .write_all(content.as_bytes())
            .unwrap();
        path
    }

    /// Answers one connection after the other with this, and gives what it was sent.
    async fn server(
        answer: &'static str,
        tls: Option<ServerConfig>,
    ) -> (u16, tokio::sync::mpsc::Receiver<String>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, receiver) = tokio::sync::mpsc::channel(8);
        tokio::spawn(async move {
            let tls = tls.map(|config| tokio_rustls::TlsAcceptor::from(Arc::new(config)));
            while let Ok((stream, _)) = listener.accept().await {
                let sender = sender.clone();
                match &tls {
                    None => serve(stream, answer, sender).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            serve(stream, answer, sender).await;
                        }
                    }
                }
            }
        });
        (port, receiver)
    }

    async fn serve(
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        answer: &str,
        sender: tokio::sync::mpsc::Sender<String>,
    ) {
        let mut request = String::new();
        let mut part = [0; 4096];
        while !request.contains('}') {
            let read = stream.read(&mut part).await.unwrap();
            request.push_str(std::str::from_utf8(&part[..read]).unwrap());
        }
        sender.send(request).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        let _ = stream.shutdown().await;
    }

    fn hook(folder: &Path, url: &str, roots: Option<PathBuf>) -> Webhook {
        Webhook {
            url: url.to_owned().try_into().unwrap(),
            key: file(folder, "key", &format!("{KEY}\n")),
            roots,
            deadline: Duration::from_secs(5),
        }
    }

    #[tokio::test]
    async fn the_status_decides_and_the_body_is_signed() {
        let folder = tempfile::tempdir().unwrap();
        for (answer, want) in [
            ("HTTP/1.1 204 No Content\r\n\r\n", "taken"),
            ("HTTP/1.0 200 OK\r\n\r\n", "taken"),
            (
                "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n",
                "later",
            ),
            ("HTTP/1.1 503 Busy\r\n\r\n", "later"),
            ("HTTP/1.1 404 Not Found\r\n\r\n", "later"),
            ("HTTP/1.1 422 No\r\n\r\n", "never"),
            ("SSH-2.0-OpenSSH\r\n", "later"),
            ("", "later"),
        ] {
            let (port, mut seen) = server(answer, None).await;
            let hook = hook(
                folder.path(),
                &format!("http://127.0.0.1:{port}/hook?a=b"),
                None,
            );
            let time = Time::from_ms(1_700_000_000_123);
            let got = match post(&hook, "v/1-2", time, b"{\"a\":1}").await {
                Ok(()) => "taken",
                Err(Failure::Later(_)) => "later",
                Err(Failure::Never(_)) => "never",
            };
            assert_eq!(got, want, "{answer:?}");
            let request = seen.recv().await.unwrap();
            // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
            for part in [
                "POST /hook?a=b HTTP/1.1\r\n".to_owned(),
                format!("Host: 127.0.0.1:{port}\r\n"),
                "Idempotency-Key: \"v/1-2\"\r\n".to_owned(),
                "Content-Length: 7\r\n".to_owned(),
                "Keyturn-Signature: t=1700000000,v1=f05f2539e3ae1c49aec5f8cfdad75ef6b06480b133973ffbb7ec9e18827af177\r\n".to_owned(),
                "\r\n\r\n{\"a\":1}".to_owned(),
            ] {
                assert!(request.contains(&part), "{part} is not in {request}");
            }
        }
    }

    #[tokio::test]
    async fn only_a_server_that_the_roots_vouch_for_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let made = |name: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
            (certificate.self_signed(&key).unwrap(), key)
        };
        let (good, key) = made("localhost");
        let (other, _) = made("localhost");
        for (name, roots, want) in [
            ("vouched for", good.pem(), true),
            ("another authority", other.pem(), false),
        ] {
            let private = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
            let config = ServerConfig::builder_with_provider(Arc::new(tls::provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![good.der().clone()], private.into())
                .unwrap();
            let (port, mut seen) = server("HTTP/1.1 200 OK\r\n\r\n", Some(config)).await;
            let roots = file(folder.path(), "roots.pem", &roots);
            let hook = hook(
                folder.path(),
                &format!("https://localhost:{port}/"),
                Some(roots),
            );
            let sent = post(&hook, "v/1-2", Time::from_ms(1), b"{}").await;
            assert_eq!(sent.is_ok(), want, "{name}: {sent:?}");
            assert_eq!(seen.try_recv().is_ok(), want, "{name}");
        }
    }

    #[tokio::test]
    async fn what_cannot_work_is_told_beforehand() {
        let folder = tempfile::tempdir().unwrap();
        let good = hook(folder.path(), "http://127.0.0.1:1/", None);
        assert_eq!(check(&good), Ok(()));
        let sent = post(&good, "v/1-2", Time::from_ms(1), b"{}").await;
        assert!(
            matches!(sent, Err(Failure::Later(_))),
            "nobody listens: {sent:?}"
        );
        let short = file(folder.path(), "short", "0123456789\n");
        let empty = file(folder.path(), "empty.pem", "");
        for (name, hook, want) in [
            (
                "no key",
                Webhook {
                    key: "/nonexistent".into(),
                    ..good.clone()
                },
                "the key /nonexistent",
            ),
            (
                "short key",
                Webhook {
                    key: short,
                    ..good.clone()
                },
                "fewer than 16 bytes",
            ),
            (
                "no roots",
                Webhook {
                    url: "https://localhost/".to_owned().try_into().unwrap(),
                    roots: Some(empty),
                    ..good.clone()
                },
                "hold no certificate",
            ),
        ] {
            let problem = check(&hook).unwrap_err();
            assert!(problem.contains(want), "{name}: {problem}");
        }
    }
}
