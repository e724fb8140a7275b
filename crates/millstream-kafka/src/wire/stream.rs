//! Bytes to and from a broker, until a deadline, and a way for other threads to end the wait.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use openssl::ssl::{HandshakeError, SslStream};
use openssl::x509::X509VerifyResult;
use rdkafka::error::RDKafkaErrorCode as Code;
use socket2::SockRef;

use super::address::Address;
use super::settings::WireSettings;
use super::tls::{Tls, reasons};
use crate::context::lock;
use crate::ffi::Failure;

/// Ends what another thread waits for on a connection.
#[derive(Default)]
pub(crate) struct Abort(Mutex<Aborted>);

#[derive(Default)]
struct Aborted {
    for_good: bool,
    socket: Option<TcpStream>,
}

impl Abort {
    /// Closes the connection that is open now, if any. The next one is as good as ever.
    pub(crate) fn cut(&self) {
        if let Some(socket) = lock(&self.0).socket.take() {
            // A connection that is closed already needs no more.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Closes the connection that is open now, and every later one.
    pub(crate) fn end(&self) {
        lock(&self.0).for_good = true;
        self.cut();
    }

    fn watch(&self, socket: &TcpStream) -> io::Result<()> {
        let mut aborted = lock(&self.0);
        if aborted.for_good {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "this client is being closed"));
        }
        aborted.socket = Some(socket.try_clone()?);
        Ok(())
    }
}

/// A socket whose reads and writes fail when the deadline has passed, however many bytes come one by one until then.
#[derive(Debug)]
pub(super) struct Timed {
    socket: TcpStream,
    deadline: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

/// A socket's time limit ends as if it did not block.
fn as_timeout(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

impl Read for Timed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(self.left()?))?;
        self.socket.read(into).map_err(as_timeout)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(self.left()?))?;
        self.socket.write(bytes).map_err(as_timeout)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

/// A connection, with TLS or without.
pub(super) enum Stream {
    Plain(Timed),
    Tls(Box<SslStream<Timed>>),
}

impl Stream {
    /// Connects to the first address of the name that answers.
    pub(super) fn open(
        settings: &WireSettings,
        tls: Option<&Tls>,
        address: &Address,
        abort: &Abort,
        deadline: Instant,
    ) -> Result<Self, Failure> {
        let socket = connect(settings, address, deadline)?;
        let prepared = socket
            .set_nodelay(true)
            .and_then(|()| SockRef::from(&socket).set_keepalive(settings.keepalive))
            .and_then(|()| abort.watch(&socket));
        prepared.map_err(|error| transport(address, "connecting", &error))?;
        let timed = Timed { socket, deadline };
        match tls {
            None => Ok(Self::Plain(timed)),
            Some(tls) => shake_hands(tls, address, timed).map(|stream| Self::Tls(Box::new(stream))),
        }
    }

    /// Until when whatever is read or written next has to be there.
    pub(super) fn set_deadline(&mut self, deadline: Instant) {
        match self {
            Self::Plain(timed) => timed.deadline = deadline,
            Self::Tls(stream) => stream.get_mut().deadline = deadline,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(timed) => timed.read(into),
            Self::Tls(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(timed) => timed.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(timed) => timed.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// The failure of an exchange with a broker.
pub(super) fn transport(address: &Address, what: &str, error: &io::Error) -> Failure {
    let failed = |code, reason: &str| Failure::new(code, format!("{address}: {what} failed: {reason}"));
    if error.kind() == io::ErrorKind::TimedOut {
        return failed(Code::OperationTimedOut, "no answer in time");
    }
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return failed(Code::BrokerTransportFailure, "the broker has closed the connection");
    }
    let of_tls =
        error.get_ref().and_then(|inner| inner.downcast_ref::<openssl::ssl::Error>()).and_then(openssl::ssl::Error::ssl_error);
    match of_tls.map(reasons) {
        // A connection that has ended, as without TLS.
        Some(reason) if reason.contains("unexpected eof") => failed(Code::BrokerTransportFailure, &reason),
        // In TLS 1.3 a certificate of ours is refused when the handshake is over for us.
        Some(reason) => failed(Code::SSL, &format!("SSL: {reason}")),
        None => failed(Code::BrokerTransportFailure, &error.to_string()),
    }
}

fn connect(settings: &WireSettings, address: &Address, deadline: Instant) -> Result<TcpStream, Failure> {
    let unknown = |reason: &str| Failure::new(Code::Resolve, format!("{address}: the name could not be resolved: {reason}"));
    let found: Vec<SocketAddr> = address.resolve(settings.family).map_err(|error| unknown(&error.to_string()))?;
    let mut failure = unknown("it has no address of the family that broker.address.family asks for");
    for (tried, socket_address) in found.iter().enumerate() {
        // None of them may take the time of those behind it.
        let left = deadline.saturating_duration_since(Instant::now()) / u32::try_from(found.len() - tried).unwrap_or(1);
        match TcpStream::connect_timeout(socket_address, left.max(Duration::from_millis(1))) {
            Ok(socket) => return Ok(socket),
            Err(error) => failure = transport(address, &format!("connecting to {}", socket_address.ip()), &error),
        }
    }
    Err(failure)
}

fn shake_hands(tls: &Tls, address: &Address, timed: Timed) -> Result<SslStream<Timed>, Failure> {
    let failed = |reason: String| Failure::new(Code::SSL, format!("{address}: SSL handshake failed: {reason}"));
    let session = tls.session(&address.host).map_err(|error| failed(reasons(&error)))?;
    session.connect(timed).map_err(|error| {
        let (HandshakeError::Failure(stream) | HandshakeError::WouldBlock(stream)) = &error else {
            return failed(error.to_string());
        };
        let (verified, error) = (stream.ssl().verify_result(), stream.error());
        if verified != X509VerifyResult::OK {
            return failed(format!("certificate verify failed: {}", verified.error_string()));
        }
        match (error.io_error(), error.ssl_error()) {
            (Some(error), _) if error.kind() == io::ErrorKind::TimedOut => transport(address, "the SSL handshake", error),
            (_, Some(error)) => failed(reasons(error)),
            _ => {
                failed("the broker has closed the connection: it may not speak TLS, or ask for a certificate of ours".to_owned())
            }
        }
    })
}
