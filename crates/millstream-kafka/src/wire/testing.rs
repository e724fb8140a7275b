//! A broker that answers as a test tells it to.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, BrokerId, FindCoordinatorResponse, MetadataResponse, RequestHeader, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes, decode_request_header_from_buffer};

use crate::KafkaConfig;
use crate::context::lock;

/// A request as the fake broker gets it.
pub(crate) struct Received {
    pub(crate) key: ApiKey,
    pub(crate) version: i16,
    /// The bytes behind the header.
    pub(crate) body: Bytes,
    correlation: i32,
    address: (String, u16),
}

/// What the fake broker does with a request.
pub(crate) enum Reaction {
    /// Sends these bytes as they are.
    Bytes(Vec<u8>),
    /// Sends these bytes, one every so many milliseconds.
    Slowly(Vec<u8>, u64),
    /// Sends these bytes, and closes its side of the connection.
    LastBytes(Vec<u8>),
    /// Closes the connection.
    Close,
    /// Says nothing.
    Silence,
}

/// The script: what is done with a request, and none where it is answered as a broker would.
type Script = dyn Fn(&Received) -> Option<Reaction> + Send + Sync;

/// See the module. It ends with the test's process.
pub(crate) struct FakeBroker {
    address: (String, u16),
    keys: Arc<Mutex<Vec<ApiKey>>>,
}

impl FakeBroker {
    pub(crate) fn start(script: impl Fn(&Received) -> Option<Reaction> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = ("127.0.0.1".to_owned(), listener.local_addr().expect("it is bound").port());
        let (script, keys): (Arc<Script>, _) = (Arc::new(script), Arc::new(Mutex::new(Vec::new())));
        let broker = Self { address: address.clone(), keys: keys.clone() };
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (script, keys, address) = (script.clone(), keys.clone(), address.clone());
                std::thread::spawn(move || serve(connection, &address, &*script, &keys));
            }
        });
        broker
    }

    pub(crate) fn config(&self, properties: &[(&str, &str)]) -> KafkaConfig {
        let properties = properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        KafkaConfig::new(format!("{}:{}", self.address.0, self.address.1), properties).expect("a configuration")
    }

    /// How often such a request has come.
    pub(crate) fn count(&self, key: ApiKey) -> usize {
        lock(&self.keys).iter().filter(|known| **known == key).count()
    }
}

impl Received {
    /// The same, as if it had been asked in another version.
    pub(crate) fn of_version(&self, version: i16) -> Self {
        let Self { key, correlation, .. } = *self;
        Self { key, version, correlation, body: self.body.clone(), address: self.address.clone() }
    }

    /// An answer to this request.
    pub(crate) fn answer<T: Encodable + HeaderVersion>(&self, answer: &T) -> Reaction {
        Reaction::Bytes(self.frame(answer))
    }

    /// The bytes of an answer to this request.
    pub(crate) fn frame<T: Encodable + HeaderVersion>(&self, answer: &T) -> Vec<u8> {
        let mut frame = BytesMut::from([0; 4].as_slice());
        let header = ResponseHeader::default().with_correlation_id(self.correlation);
        header.encode(&mut frame, T::header_version(self.version)).expect("a header");
        answer.encode(&mut frame, self.version).expect("an answer");
        let length = i32::try_from(frame.len() - 4).expect("it is small");
        frame[..4].copy_from_slice(&length.to_be_bytes());
        frame.to_vec()
    }

    /// What any broker would answer to what is asked of any broker.
    fn usual(&self) -> Option<Reaction> {
        let (host, port) = (StrBytes::from_string(self.address.0.clone()), i32::from(self.address.1));
        match self.key {
            ApiKey::ApiVersions => Some(self.answer(&versions(9))),
            ApiKey::Metadata => Some(self.answer(&MetadataResponse::default())),
            ApiKey::FindCoordinator => {
                let found = FindCoordinatorResponse::default().with_node_id(BrokerId(1)).with_host(host).with_port(port);
                Some(self.answer(&found))
            }
            _ => None,
        }
    }
}

/// The versions of a broker that knows no version above that of anything.
pub(crate) fn versions(newest: i16) -> ApiVersionsResponse {
    let of = |key: i16| ApiKey::try_from(key).ok().map(|key| (key as i16, key.valid_versions()));
    let keys = (0..=65).filter_map(of).map(|(key, range)| {
        ApiVersion::default().with_api_key(key).with_min_version(range.min).with_max_version(range.max.min(newest))
    });
    ApiVersionsResponse::default().with_api_keys(keys.collect())
}

fn receive(connection: &mut TcpStream, address: &(String, u16)) -> Option<Received> {
    let mut length = [0; 4];
    connection.read_exact(&mut length).ok()?;
    let mut body = vec![0; usize::try_from(i32::from_be_bytes(length)).expect("a length")];
    connection.read_exact(&mut body).ok()?;
    let mut body = Bytes::from(body);
    let header: RequestHeader = decode_request_header_from_buffer(&mut body).expect("a header");
    let key = ApiKey::try_from(header.request_api_key).expect("a request that is known");
    let (version, correlation) = (header.request_api_version, header.correlation_id);
    Some(Received { key, version, body, correlation, address: address.clone() })
}

fn serve(mut connection: TcpStream, address: &(String, u16), script: &Script, keys: &Mutex<Vec<ApiKey>>) {
    while let Some(received) = receive(&mut connection, address) {
        lock(keys).push(received.key);
        let reaction = script(&received).or_else(|| received.usual()).unwrap_or(Reaction::Silence);
        // Whether anybody listens makes no difference.
        match reaction {
            Reaction::Bytes(bytes) => drop(connection.write_all(&bytes)),
            Reaction::Slowly(bytes, millis) => {
                for byte in bytes {
                    drop(connection.write_all(&[byte]));
                    std::thread::park_timeout(std::time::Duration::from_millis(millis));
                }
            }
            Reaction::LastBytes(bytes) => {
                drop(connection.write_all(&bytes));
                drop(connection.shutdown(Shutdown::Write));
            }
            Reaction::Close => return,
            Reaction::Silence => {}
        }
    }
}

/// Reads the request.
pub(crate) fn read<T: Decodable>(received: &Received) -> T {
    T::decode(&mut received.body.clone(), received.version).expect("a request of that kind")
}
