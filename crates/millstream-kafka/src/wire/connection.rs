//! One connection to one broker: its handshakes, then one request after the other.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader, SaslAuthenticateRequest, SaslHandshakeRequest,
};
use kafka_protocol::protocol::{
    Decodable as _, Encodable as _, HeaderVersion as _, Message as _, Request, StrBytes, VersionRange,
};
use openssl::rand;
use rdkafka::error::RDKafkaErrorCode as Code;

use super::address::Address;
use super::codes;
use super::sasl::Credentials;
use super::settings::WireSettings;
use super::stream::{Abort, Stream, transport};
use super::tls::Tls;
use crate::ffi::Failure;

/// How long an answer to what is not held back by the broker may take.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// What brokers answer since Apache Kafka 2.5. The data path needs the last three: a fence in the commit of offsets, and stable offsets.
const NEEDED: &[(ApiKey, i16)] = &[
    (ApiKey::JoinGroup, 5),
    (ApiKey::SyncGroup, 3),
    (ApiKey::Heartbeat, 3),
    (ApiKey::LeaveGroup, 3),
    (ApiKey::InitProducerId, 3),
    (ApiKey::TxnOffsetCommit, 3),
    (ApiKey::OffsetFetch, 7),
];

/// From version 4 on many keys are asked for in one request, for which other fields are used. Every broker knows version 3.
const FIND_COORDINATOR: i16 = 3;

/// What is needed to connect to any broker.
pub(super) struct Dial<'a> {
    pub(super) settings: &'a WireSettings,
    pub(super) tls: Option<&'a Tls>,
    pub(super) client_id: &'a str,
    pub(super) abort: &'a Abort,
}

/// A connection that is ready for requests.
pub(super) struct Connection {
    stream: Stream,
    address: Address,
    client_id: StrBytes,
    credentials: Option<Credentials>,
    /// The versions that the broker knows of each request.
    versions: BTreeMap<i16, VersionRange>,
    max_response_bytes: usize,
    correlation: i32,
    /// When the broker has to be told again who we are (KIP-368).
    authenticate_at: Option<Instant>,
    /// A request was answered that brokers answer only to whom they know.
    is_let_in: bool,
}

impl Connection {
    /// Connects, and says who we are.
    pub(super) fn open(dial: &Dial<'_>, address: &Address, within: Duration) -> Result<Self, Failure> {
        let deadline = Instant::now() + within.min(dial.settings.setup_timeout);
        let mut correlation = [0; 4];
        // Nothing that is no answer looks like one then.
        rand::rand_bytes(&mut correlation).map_err(|error| Failure::new(Code::SSL, error.to_string()))?;
        let mut connection = Self {
            stream: Stream::open(dial.settings, dial.tls, address, dial.abort, deadline)?,
            address: address.clone(),
            client_id: StrBytes::from_string(dial.client_id.to_owned()),
            credentials: dial.settings.sasl.clone(),
            versions: BTreeMap::new(),
            max_response_bytes: dial.settings.max_response_bytes,
            correlation: i32::from_be_bytes(correlation),
            authenticate_at: None,
            is_let_in: false,
        };
        connection.learn_versions(deadline)?;
        connection.authenticate(deadline)?;
        Ok(connection)
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Sends a request and waits for its answer. After a failure the connection is of no use any more.
    pub(super) fn call<R: Request>(&mut self, request: &R, within: Duration) -> Result<R::Response, Failure> {
        if self.authenticate_at.is_some_and(|time| time <= Instant::now()) {
            self.authenticate(Instant::now() + REQUEST_TIMEOUT)?;
        }
        let answer = self.exchange(request, self.version::<R>()?, Instant::now() + within);
        let answer = answer.map_err(|failure| if self.is_let_in { failure } else { with_hint(failure) })?;
        self.is_let_in = true;
        Ok(answer)
    }

    /// The newest version that both sides know.
    fn version<R: Request>(&self) -> Result<i16, Failure> {
        let ours = if R::KEY == ApiKey::FindCoordinator as i16 { FIND_COORDINATOR } else { R::VERSIONS.max };
        let ours = VersionRange { min: R::VERSIONS.min, max: ours };
        let both = self.versions.get(&R::KEY).map(|theirs| theirs.intersect(&ours)).filter(|both| !both.is_empty());
        both.map(|both| both.max).ok_or_else(|| {
            let name = ApiKey::try_from(R::KEY).map_or_else(|()| R::KEY.to_string(), |key| format!("{key:?}"));
            Failure::new(
                Code::UnsupportedVersion,
                format!("{}: the broker knows no version of {name} that is known here", self.address),
            )
        })
    }

    fn learn_versions(&mut self, deadline: Instant) -> Result<(), Failure> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("millstream"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let version = ApiVersionsRequest::VERSIONS.max.min(3);
        let answer = self.exchange_bytes(&request, version, deadline).map_err(with_hint)?;
        // A broker that does not know the version says so in the words of an older one, which begin with the same code.
        if answer.first_chunk() == Some(&codes::UNSUPPORTED_VERSION.to_be_bytes()) {
            return Err(self.too_old("it does not know ApiVersions of version 3"));
        }
        let answer: ApiVersionsResponse = self.decode::<ApiVersionsRequest>(answer, version)?;
        self.check(answer.error_code, "ApiVersions")?;
        let range = |api: &ApiVersion| (api.api_key, VersionRange { min: api.min_version, max: api.max_version });
        self.versions = answer.api_keys.iter().map(range).collect();
        for (key, needed) in NEEDED {
            if self.versions.get(&(*key as i16)).is_none_or(|range| range.max < *needed) {
                return Err(self.too_old(&format!("it does not know {key:?} of version {needed}")));
            }
        }
        Ok(())
    }

    fn too_old(&self, what: &str) -> Failure {
        Failure::new(Code::UnsupportedVersion, format!("{}: the broker is older than Apache Kafka 2.5: {what}", self.address))
    }

    fn check(&self, code: i16, request: &str) -> Result<(), Failure> {
        Failure::check_with(code.into(), || format!("{}: the broker refuses {request}", self.address))
    }

    fn authenticate(&mut self, deadline: Instant) -> Result<(), Failure> {
        let Some(credentials) = self.credentials.clone() else { return Ok(()) };
        let mechanism = credentials.mechanism();
        let request = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism));
        let answer = self.exchange(&request, 1, deadline)?;
        if answer.error_code != codes::NONE {
            let known = answer.mechanisms.iter().map(|name| name.to_string()).collect::<Vec<_>>().join(", ");
            let reason = format!("{}: the broker refuses sasl.mechanism {mechanism}: it takes {known}", self.address);
            return Err(Failure::with_text(answer.error_code.into(), reason));
        }
        let failed = |address: &Address, reason: &str| {
            Failure::new(Code::Authentication, format!("{address}: SASL authentication error: {reason}"))
        };
        let mut dialogue = credentials.begin().map_err(|reason| failed(&self.address, &reason))?;
        let mut message = dialogue.first();
        loop {
            let request = SaslAuthenticateRequest::default().with_auth_bytes(message.into());
            let version = self.version::<SaslAuthenticateRequest>()?;
            let answer = self.exchange(&request, version, deadline)?;
            if answer.error_code != codes::NONE {
                let reason = answer.error_message.as_deref().unwrap_or("the broker gives no reason");
                return Err(failed(&self.address, reason));
            }
            match dialogue.reply(&answer.auth_bytes).map_err(|reason| failed(&self.address, &reason))? {
                Some(next) => message = next,
                None => {
                    self.authenticate_at = authenticate_at(answer.session_lifetime_ms);
                    return Ok(());
                }
            }
        }
    }

    fn exchange<R: Request>(&mut self, request: &R, version: i16, deadline: Instant) -> Result<R::Response, Failure> {
        let answer = self.exchange_bytes(request, version, deadline)?;
        self.decode::<R>(answer, version)
    }

    /// The bytes of the answer behind its header.
    fn exchange_bytes<R: Request>(&mut self, request: &R, version: i16, deadline: Instant) -> Result<Bytes, Failure> {
        self.stream.set_deadline(deadline);
        self.correlation = self.correlation.wrapping_add(1);
        let frame = self.frame(request, version)?;
        let sent = self.stream.write_all(&frame).and_then(|()| self.stream.flush());
        sent.map_err(|error| transport(&self.address, "sending", &error))?;
        let mut answer = self.receive()?;
        let correlation = answer.first_chunk().map(|bytes| i32::from_be_bytes(*bytes));
        if correlation != Some(self.correlation) {
            return Err(self.garbage("it is no answer to the request"));
        }
        ResponseHeader::decode(&mut answer, R::Response::header_version(version))
            .map_err(|error| self.garbage(&error.to_string()))?;
        Ok(answer)
    }

    fn frame<R: Request>(&self, request: &R, version: i16) -> Result<BytesMut, Failure> {
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(self.client_id.clone()));
        let mut frame = BytesMut::from([0; 4].as_slice());
        let encoded = header.encode(&mut frame, R::header_version(version)).and_then(|()| request.encode(&mut frame, version));
        encoded.map_err(|error| Failure::new(Code::InvalidArgument, format!("the request cannot be written: {error}")))?;
        let length =
            i32::try_from(frame.len() - 4).map_err(|_| Failure::new(Code::InvalidArgument, "the request is too large"))?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        Ok(frame)
    }

    fn receive(&mut self) -> Result<Bytes, Failure> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).map_err(|error| transport(&self.address, "receiving", &error))?;
        if matches!(length, [0x14..=0x17, 3, 0..=4, _]) && matches!(self.stream, Stream::Plain(_)) {
            let reason = format!("{}: the broker speaks TLS: set security.protocol to ssl or sasl_ssl", self.address);
            return Err(Failure::new(Code::SSL, reason));
        }
        let length = usize::try_from(i32::from_be_bytes(length)).ok().filter(|length| *length <= self.max_response_bytes);
        let length = length.ok_or_else(|| self.garbage("its length is negative or above receive.message.max.bytes"))?;
        let mut answer = Vec::with_capacity(length.min(64 << 10));
        let read = (&mut self.stream).take(length as u64).read_to_end(&mut answer);
        read.map_err(|error| transport(&self.address, "receiving", &error))?;
        if answer.len() < length {
            let reason = format!("{}: the broker has closed the connection within an answer", self.address);
            return Err(Failure::new(Code::BrokerTransportFailure, reason));
        }
        Ok(answer.into())
    }

    fn decode<R: Request>(&self, mut answer: Bytes, version: i16) -> Result<R::Response, Failure> {
        let decoded = R::Response::decode(&mut answer, version).map_err(|error| self.garbage(&error.to_string()))?;
        if answer.is_empty() { Ok(decoded) } else { Err(self.garbage("there is something behind it")) }
    }

    fn garbage(&self, what: &str) -> Failure {
        Failure::new(Code::BadMessage, format!("{}: the answer cannot be read: {what}", self.address))
    }
}

/// A broker that expects something else at first closes the connection, or waits for more.
fn with_hint(failure: Failure) -> Failure {
    match failure.code {
        Code::BrokerTransportFailure | Code::OperationTimedOut => {
            let reason = format!("{failure}: where this stays so, check security.protocol: the broker may speak another one");
            Failure { reason, ..failure }
        }
        _ => failure,
    }
}

/// When to authenticate again, if the broker ends sessions: somewhat earlier.
fn authenticate_at(session_lifetime_ms: i64) -> Option<Instant> {
    let lifetime = u64::try_from(session_lifetime_ms).ok().filter(|lifetime| *lifetime > 0)?;
    Some(Instant::now() + Duration::from_millis(lifetime).mul_f64(0.85))
}

#[cfg(test)]
mod tests;
