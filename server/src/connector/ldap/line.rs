//! A connection to a directory: always TLS, one request at a time.

use std::{io, sync::Arc};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    ber::{Framed, framed},
    message::{Answer, Attributes, Heard, Request, START_TLS},
};

/// The most messages that are read before an answer.
const MAX_MESSAGES: u32 = 100;

/// Where a directory is, and who is believed about it.
pub(super) struct Way {
    pub(super) host: String,
    pub(super) port: u16,
    /// TLS begins after a request for it, instead of at once.
    pub(super) start_tls: bool,
    pub(super) tls: Arc<ClientConfig>,
}

/// What was asked, and came of it.
pub(super) struct Reply {
    pub(super) answer: Answer,
    /// The last entry that was found.
    pub(super) entry: Option<Attributes>,
}

/// A connection; dropped, it is closed at once.
pub(super) struct Line {
    stream: TlsStream<TcpStream>,
    asked: u32,
}

impl Line {
    /// Connects.
    pub(super) async fn open(way: &Way) -> io::Result<Self> {
        let name = ServerName::try_from(way.host.clone()).map_err(io::Error::other)?;
        let mut plain = TcpStream::connect((way.host.as_str(), way.port)).await?;
        plain.set_nodelay(true)?;
        let mut asked = 0;
        if way.start_tls {
            // One byte more than the answer would be somebody's who is not yet known: `exchange` refuses it.
            let begin = Request::extended(START_TLS, None);
            let reply = exchange(&mut plain, &mut asked, &begin).await?;
            if reply.answer.code != 0 {
                let why = format!("StartTLS was refused: {}", said(&reply.answer));
                return Err(io::Error::other(why));
            }
        }
        let connector = TlsConnector::from(Arc::clone(&way.tls));
        let stream = connector.connect(name, plain).await?;
        Ok(Self { stream, asked })
    }

    /// Asks.
    pub(super) async fn ask(&mut self, request: &Request) -> io::Result<Reply> {
        exchange(&mut self.stream, &mut self.asked, request).await
    }
}

/// An answer for operators.
pub(super) fn said(answer: &Answer) -> String {
    if answer.text.is_empty() {
        format!("result code {}", answer.code)
    } else {
        format!("{} (result code {})", answer.text, answer.code)
    }
}

async fn exchange<S>(stream: &mut S, asked: &mut u32, request: &Request) -> io::Result<Reply>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    *asked = asked.saturating_add(1);
    stream.write_all(&request.envelope(*asked)).await?;
    stream.flush().await?;
    let malformed = || io::Error::other("the server does not speak LDAP");
    let (mut read, mut entry) = (Vec::new(), None);
    for _ in 0..MAX_MESSAGES {
        let length = loop {
            match framed(&read) {
                Framed::Whole(length) if length <= read.len() => break length,
                Framed::Whole(_) | Framed::More => {}
                Framed::Bad => return Err(malformed()),
            }
            if stream.read_buf(&mut read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let rest = read.split_off(length);
        match Heard::read(&read, request, *asked).ok_or_else(malformed)? {
            Heard::Answer(answer) if rest.is_empty() => return Ok(Reply { answer, entry }),
            Heard::Answer(_) => return Err(malformed()),
            Heard::Entry(found) => entry = Some(found),
            Heard::Other => {}
            Heard::Goodbye(why) => return Err(io::Error::other(why)),
        }
        read = rest;
    }
    Err(malformed())
}
