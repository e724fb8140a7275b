//! What is checked of each request before anything else: the version of the protocol and the shared secret.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use super::PROTOCOL_VERSION;

const PROTOCOL: &str = "clickmill-peer-protocol";
const AUTHORIZATION: &str = "authorization";

/// A secret that all instances of an application share.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerSecret(MetadataValue<Ascii>);

/// It is not shown.
impl fmt::Debug for PeerSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerSecret")
    }
}

impl PeerSecret {
    /// The secret in that text, without the white space around it; none where it is empty or has characters other than visible ASCII.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let mut value: MetadataValue<Ascii> = format!("Bearer {text}").parse().ok().filter(|_| is_plain)?;
        value.set_sensitive(true);
        Some(Self(value))
    }

    /// Takes the same time whatever was sent.
    fn is(&self, sent: &[u8]) -> bool {
        Sha256::digest(self.0.as_bytes()).ct_eq(&Sha256::digest(sent)).into()
    }
}

/// Writes what every request has to bring.
#[derive(Debug, Clone)]
pub(super) struct Sign(pub(super) Option<PeerSecret>);

impl Interceptor for Sign {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert(PROTOCOL, PROTOCOL_VERSION.into());
        if let Some(PeerSecret(secret)) = &self.0 {
            metadata.insert(AUTHORIZATION, secret.clone());
        }
        Ok(request)
    }
}

/// Refuses what does not bring it.
#[derive(Debug, Clone)]
pub(super) struct Check(pub(super) Option<PeerSecret>);

impl Interceptor for Check {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata();
        if let Some(secret) = &self.0
            && !metadata.get(AUTHORIZATION).is_some_and(|sent| secret.is(sent.as_bytes()))
        {
            return Err(Status::unauthenticated("the secret of server.peer_secret_file is another here, or was not sent"));
        }
        let version = metadata.get(PROTOCOL).and_then(|version| version.to_str().ok());
        if version.and_then(|version| version.parse().ok()) != Some(PROTOCOL_VERSION) {
            let other = version.unwrap_or("none");
            return Err(Status::failed_precondition(format!(
                "the peer protocol is version {other} there and {PROTOCOL_VERSION} here: run versions of Clickmill that speak the same"
            )));
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(ours: Option<&str>, theirs: Option<&str>) -> Result<(), tonic::Code> {
        let secret = |text: Option<&str>| text.map(|text| PeerSecret::new(text).expect("a secret"));
        let sent = Sign(secret(theirs)).call(Request::new(())).expect("it is signed");
        Check(secret(ours)).call(sent).map(drop).map_err(|status| status.code())
    }

    #[test]
    fn the_secret_has_to_be_the_same_where_there_is_one() {
        assert_eq!(outcome(None, None), Ok(()));
        assert_eq!(outcome(None, Some("abc")), Ok(()));
        assert_eq!(outcome(Some("abc"), Some("abc")), Ok(()));
        assert_eq!(outcome(Some("abc\n"), Some(" abc")), Ok(()));
        for wrong in [None, Some("abd"), Some("ab"), Some("abcd")] {
            assert_eq!(outcome(Some("abc"), wrong), Err(tonic::Code::Unauthenticated), "{wrong:?}");
        }
        assert!(["", " \n", "a b", "ä"].into_iter().all(|text| PeerSecret::new(text).is_none()));
        assert!(!format!("{:?}", Check(PeerSecret::new("hunter2"))).contains("hunter2"));
    }

    #[test]
    fn another_version_is_refused_by_name() {
        for other in [None, Some("0"), Some("2")] {
            let mut request = Request::new(());
            if let Some(other) = other {
                request.metadata_mut().insert(PROTOCOL, other.parse().expect("ascii"));
            }
            let refused = Check(None).call(request).expect_err("another version");
            assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
            assert!(refused.message().contains(&format!("version {}", other.unwrap_or("none"))), "{refused}");
        }
    }
}
