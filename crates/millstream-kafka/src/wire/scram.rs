//! SCRAM (RFC 5802, RFC 7677) without channel binding, as Kafka has it: neither names nor passwords are prepared by SASLprep, for neither brokers nor
//! librdkafka do that.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::error::ErrorStack;
use openssl::hash::{MessageDigest, hash};
use openssl::pkcs5::pbkdf2_hmac;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use openssl::{memcmp, rand};

/// What no broker may go below, as for Kafka's own clients: few rounds would make a password easy to guess for who asks for them.
const MIN_ROUNDS: usize = 4096;

/// More would take a second and longer.
const MAX_ROUNDS: usize = 1_000_000;

/// No channel binding, and no name to act for.
const GS2_HEADER: &str = "n,,";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    pub(super) fn mechanism(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    fn digest(self) -> MessageDigest {
        match self {
            Self::Sha256 => MessageDigest::sha256(),
            Self::Sha512 => MessageDigest::sha512(),
        }
    }

    fn hmac(self, key: &[u8], text: &[u8]) -> Result<Vec<u8>, ErrorStack> {
        let key = PKey::hmac(key)?;
        Signer::new(self.digest(), &key)?.sign_oneshot_to_vec(text)
    }
}

/// One authentication.
pub(super) struct Scram {
    hash: Hash,
    password: String,
    nonce: String,
    /// The first message without its header, which the proof is made of.
    first_bare: String,
    /// What the server has to prove that it knows; none before its first message.
    server_signature: Option<Vec<u8>>,
}

impl Scram {
    pub(super) fn new(hash: Hash, user: &str, password: &str) -> Result<Self, String> {
        let mut nonce = [0; 24];
        rand::rand_bytes(&mut nonce).map_err(in_words)?;
        Ok(Self::with_nonce(hash, user, password, STANDARD.encode(nonce)))
    }

    fn with_nonce(hash: Hash, user: &str, password: &str, nonce: String) -> Self {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        let first_bare = format!("n={user},r={nonce}");
        Self { hash, password: password.to_owned(), nonce, first_bare, server_signature: None }
    }

    pub(super) fn first(&self) -> Vec<u8> {
        format!("{GS2_HEADER}{}", self.first_bare).into_bytes()
    }

    /// The second message for the server's first one; nothing for its second, which proves that it knows the password too.
    pub(super) fn reply(&mut self, answer: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let answer = std::str::from_utf8(answer).map_err(|_| "SCRAM: the broker's message is no text".to_owned())?;
        if let Some(error) = attribute(answer, 'e') {
            return Err(format!("SCRAM: the broker refuses: {error}"));
        }
        match &self.server_signature {
            None => self.prove(answer).map(Some),
            Some(expected) => {
                let signature = attribute(answer, 'v').and_then(|value| STANDARD.decode(value).ok()).unwrap_or_default();
                let is_right = signature.len() == expected.len() && memcmp::eq(&signature, expected);
                if is_right { Ok(None) } else { Err("SCRAM: the broker does not know the password itself".to_owned()) }
            }
        }
    }

    fn prove(&mut self, server_first: &str) -> Result<Vec<u8>, String> {
        let missing = |what: &str| format!("SCRAM: the broker's message has no {what}");
        let nonce = attribute(server_first, 'r').ok_or_else(|| missing("nonce"))?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("SCRAM: the broker answers to somebody else".to_owned());
        }
        let salt = attribute(server_first, 's').and_then(|salt| STANDARD.decode(salt).ok()).ok_or_else(|| missing("salt"))?;
        let rounds = attribute(server_first, 'i').and_then(|rounds| rounds.parse().ok()).ok_or_else(|| missing("iterations"))?;
        if !(MIN_ROUNDS..=MAX_ROUNDS).contains(&rounds) {
            return Err(format!("SCRAM: the broker asks for {rounds} iterations, not {MIN_ROUNDS} to {MAX_ROUNDS}"));
        }
        let bare = format!("c={},r={nonce}", STANDARD.encode(GS2_HEADER));
        let said = format!("{},{server_first},{bare}", self.first_bare);
        let proof = self.sign(&said, &salt, rounds).map_err(in_words)?;
        Ok(format!("{bare},p={}", STANDARD.encode(proof)).into_bytes())
    }

    /// The proof for the server; keeps what the server has to answer.
    fn sign(&mut self, said: &str, salt: &[u8], rounds: usize) -> Result<Vec<u8>, ErrorStack> {
        let digest = self.hash.digest();
        let mut salted = vec![0; digest.size()];
        pbkdf2_hmac(self.password.as_bytes(), salt, rounds, digest, &mut salted)?;
        let client_key = self.hash.hmac(&salted, b"Client Key")?;
        let signature = self.hash.hmac(&hash(digest, &client_key)?, said.as_bytes())?;
        let server_key = self.hash.hmac(&salted, b"Server Key")?;
        self.server_signature = Some(self.hash.hmac(&server_key, said.as_bytes())?);
        Ok(client_key.iter().zip(&signature).map(|(key, signature)| key ^ signature).collect())
    }
}

fn in_words(error: ErrorStack) -> String {
    format!("SCRAM: {}", super::tls::reasons(&error))
}

/// The value of an attribute of a message `a=...,b=...`.
fn attribute(message: &str, name: char) -> Option<&str> {
    message.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exchange of RFC 7677.
    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const CLIENT_FINAL: &str =
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn client() -> Scram {
        Scram::with_nonce(Hash::Sha256, "user", "pencil", NONCE.to_owned())
    }

    #[test]
    fn the_exchange_of_the_rfc_is_spoken() {
        let mut client = client();
        assert_eq!(client.first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        assert_eq!(client.reply(SERVER_FIRST.as_bytes()).unwrap().unwrap(), CLIENT_FINAL.as_bytes());
        assert_eq!(client.reply(SERVER_FINAL.as_bytes()), Ok(None));
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_refused() {
        for answer in ["v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5=", "v=", "", "e=invalid-proof"] {
            let mut client = client();
            client.reply(SERVER_FIRST.as_bytes()).unwrap();
            assert!(client.reply(answer.as_bytes()).is_err(), "{answer}");
        }
    }

    #[test]
    fn a_first_answer_that_is_not_as_it_should_be_is_refused() {
        let salt = "s=W22ZaJ0SNY7soEsUEjb6gQ==";
        for answer in [
            format!("r={NONCE},{salt},i=4096"),
            format!("r=another-nonce,{salt},i=4096"),
            format!("r={NONCE}more,{salt},i=1"),
            format!("r={NONCE}more,{salt},i=4096000"),
            format!("r={NONCE}more,s=?,i=4096"),
            format!("r={NONCE}more,{salt}"),
            String::new(),
        ] {
            assert!(client().reply(answer.as_bytes()).is_err(), "{answer}");
        }
        assert!(client().reply(&[0xFF, 0xFE]).is_err());
    }

    #[test]
    fn a_name_with_signs_of_the_protocol_is_escaped_and_every_nonce_is_another() {
        let client = Scram::with_nonce(Hash::Sha512, "a=b,c", "p", "n".to_owned());
        assert_eq!(client.first(), b"n,,n=a=3Db=2Cc,r=n");
        let nonce = || Scram::new(Hash::Sha512, "a", "p").unwrap().nonce;
        assert_ne!(nonce(), nonce());
    }
}
