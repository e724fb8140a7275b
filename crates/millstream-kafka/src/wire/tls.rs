//! TLS, set up as librdkafka does it with the same OpenSSL.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use openssl::error::ErrorStack;
use openssl::pkcs12::Pkcs12;
use openssl::pkey::PKey;
use openssl::ssl::{Ssl, SslContext, SslContextBuilder, SslMethod, SslOptions, SslVerifyMode};
use openssl::x509::X509;
use openssl::x509::verify::X509VerifyFlags;

use super::settings::Properties;

/// What of librdkafka's `ssl.*` properties is set.
#[derive(Clone)]
pub(super) struct TlsSettings {
    ca_location: Option<String>,
    ca_pem: Option<String>,
    crl_location: Option<String>,
    certificate_location: Option<String>,
    certificate_pem: Option<String>,
    key_location: Option<String>,
    key_pem: Option<String>,
    key_password: Option<String>,
    keystore_location: Option<String>,
    keystore_password: Option<String>,
    cipher_suites: Option<String>,
    curves: Option<String>,
    signature_algorithms: Option<String>,
    verifies_certificate: bool,
    verifies_name: bool,
}

impl TlsSettings {
    pub(super) fn read(properties: &Properties<'_>) -> Self {
        Self {
            // librdkafka looks for the system's certificates itself where it is told to probe; the system's OpenSSL knows where they are.
            ca_location: properties.get("ssl.ca.location").filter(|location| location != "probe"),
            ca_pem: properties.get("ssl.ca.pem"),
            crl_location: properties.get("ssl.crl.location"),
            certificate_location: properties.get("ssl.certificate.location"),
            certificate_pem: properties.get("ssl.certificate.pem"),
            key_location: properties.get("ssl.key.location"),
            key_pem: properties.get("ssl.key.pem"),
            key_password: properties.get("ssl.key.password"),
            keystore_location: properties.get("ssl.keystore.location"),
            keystore_password: properties.get("ssl.keystore.password"),
            cipher_suites: properties.get("ssl.cipher.suites"),
            curves: properties.get("ssl.curves.list"),
            signature_algorithms: properties.get("ssl.sigalgs.list"),
            verifies_certificate: properties.is_true("enable.ssl.certificate.verification"),
            verifies_name: properties.get("ssl.endpoint.identification.algorithm").as_deref() != Some("none"),
        }
    }

    /// Reads the files.
    ///
    /// # Errors
    /// In words that name the property.
    pub(super) fn load(&self) -> Result<Tls, String> {
        let mut context = SslContextBuilder::new(SslMethod::tls_client()).map_err(|error| in_words("TLS", &error))?;
        context.set_options(SslOptions::NO_SSLV2 | SslOptions::NO_SSLV3);
        self.choose_algorithms(&mut context)?;
        self.trust(&mut context)?;
        self.identify(&mut context)?;
        context.set_verify(if self.verifies_certificate { SslVerifyMode::PEER } else { SslVerifyMode::NONE });
        Ok(Tls { context: context.build(), verifies_name: self.verifies_certificate && self.verifies_name })
    }

    fn choose_algorithms(&self, context: &mut SslContextBuilder) -> Result<(), String> {
        if let Some(list) = &self.cipher_suites {
            context.set_cipher_list(list).map_err(|error| in_words("ssl.cipher.suites", &error))?;
        }
        if let Some(list) = &self.curves {
            context.set_groups_list(list).map_err(|error| in_words("ssl.curves.list", &error))?;
        }
        if let Some(list) = &self.signature_algorithms {
            context.set_sigalgs_list(list).map_err(|error| in_words("ssl.sigalgs.list", &error))?;
        }
        Ok(())
    }

    /// Whose certificates are believed.
    fn trust(&self, context: &mut SslContextBuilder) -> Result<(), String> {
        if let Some(location) = &self.ca_location {
            let path = Path::new(location);
            let (file, directory) = if path.is_dir() { (None, Some(path)) } else { (Some(path), None) };
            context.load_verify_locations(file, directory).map_err(|error| in_file("ssl.ca.location", location, &error))?;
        }
        if let Some(pem) = &self.ca_pem {
            let certificates = X509::stack_from_pem(pem.as_bytes()).map_err(|error| in_words("ssl.ca.pem", &error))?;
            if certificates.is_empty() {
                return Err("ssl.ca.pem holds no certificate".to_owned());
            }
            for certificate in certificates {
                context.cert_store_mut().add_cert(certificate).map_err(|error| in_words("ssl.ca.pem", &error))?;
            }
        }
        if self.ca_location.is_none() && self.ca_pem.is_none() {
            context.set_default_verify_paths().map_err(|error| in_words("ssl.ca.location", &error))?;
        }
        if let Some(location) = &self.crl_location {
            let failed = |error| in_file("ssl.crl.location", location, &error);
            context.load_verify_locations(Some(Path::new(location)), None).map_err(failed)?;
            context.cert_store_mut().set_flags(X509VerifyFlags::CRL_CHECK).map_err(failed)?;
        }
        Ok(())
    }

    /// Who we are.
    fn identify(&self, context: &mut SslContextBuilder) -> Result<(), String> {
        if let Some(location) = &self.certificate_location {
            let failed = |error| in_file("ssl.certificate.location", location, &error);
            context.set_certificate_chain_file(location).map_err(failed)?;
        }
        if let Some(pem) = &self.certificate_pem {
            use_chain(context, pem.as_bytes()).map_err(|error| in_words("ssl.certificate.pem", &error))?;
        }
        let password = self.key_password.as_deref().unwrap_or_default();
        if let Some(location) = &self.key_location {
            use_key(context, &read("ssl.key.location", location)?, password)
                .map_err(|error| in_file("ssl.key.location (and ssl.key.password)", location, &error))?;
        }
        if let Some(pem) = &self.key_pem {
            use_key(context, pem.as_bytes(), password).map_err(|error| in_words("ssl.key.pem (and ssl.key.password)", &error))?;
        }
        if let Some(location) = &self.keystore_location {
            let password = self.keystore_password.as_deref().unwrap_or_default();
            use_keystore(context, &read("ssl.keystore.location", location)?, password)
                .map_err(|error| in_file("ssl.keystore.location (and ssl.keystore.password)", location, &error))?;
        }
        Ok(())
    }
}

/// TLS that is ready to be spoken.
pub(super) struct Tls {
    context: SslContext,
    verifies_name: bool,
}

impl Tls {
    /// One side of a connection to a host, whose certificate has to bear that name.
    pub(super) fn session(&self, host: &str) -> Result<Ssl, ErrorStack> {
        let mut session = Ssl::new(&self.context)?;
        let address: Option<IpAddr> = host.parse().ok();
        // An address may not be asked for by name (RFC 6066).
        if address.is_none() {
            session.set_hostname(host)?;
        }
        if self.verifies_name {
            match address {
                Some(address) => session.param_mut().set_ip(address)?,
                None => session.param_mut().set_host(host)?,
            }
        }
        Ok(session)
    }
}

fn read(property: &str, location: &str) -> Result<Vec<u8>, String> {
    fs::read(location).map_err(|error| format!("{property}: {location} could not be read: {error}"))
}

/// OpenSSL's reasons, without the places in its source.
pub(super) fn reasons(error: &ErrorStack) -> String {
    let reasons: Vec<_> = error.errors().iter().filter_map(|error| error.reason()).collect();
    if reasons.is_empty() { "no reason is given".to_owned() } else { reasons.join(", ") }
}

fn in_words(property: &str, error: &ErrorStack) -> String {
    format!("{property} could not be used: {}", reasons(error))
}

fn in_file(property: &str, location: &str, error: &ErrorStack) -> String {
    format!("{property}: {location} could not be used: {}", reasons(error))
}

/// A certificate, and those between it and one that brokers trust.
fn use_chain(context: &mut SslContextBuilder, pem: &[u8]) -> Result<(), ErrorStack> {
    let mut chain = X509::stack_from_pem(pem)?.into_iter();
    if let Some(own) = chain.next() {
        context.set_certificate(&own)?;
    }
    chain.try_for_each(|between| context.add_extra_chain_cert(between))
}

fn use_key(context: &mut SslContextBuilder, pem: &[u8], password: &str) -> Result<(), ErrorStack> {
    // With a password given, OpenSSL never asks for one at the terminal.
    let key = PKey::private_key_from_pem_passphrase(pem, password.as_bytes())?;
    context.set_private_key(&key)?;
    context.check_private_key()
}

fn use_keystore(context: &mut SslContextBuilder, bytes: &[u8], password: &str) -> Result<(), ErrorStack> {
    let store = Pkcs12::from_der(bytes)?.parse2(password)?;
    if let Some(certificate) = &store.cert {
        context.set_certificate(certificate)?;
    }
    if let Some(key) = &store.pkey {
        context.set_private_key(key)?;
        context.check_private_key()?;
    }
    store.ca.into_iter().flatten().try_for_each(|between| context.add_extra_chain_cert(between))
}
