//! Values that are shown to nobody: not in what is printed, not in an error, not in a log.

/// What the names of secrets contain, librdkafka's among them.
const SECRETS: [&str; 6] = ["password", "passphrase", "secret", "key.pem", "oauthbearer.config", "jaas"];

/// What stands for a secret.
const NOT_SHOWN: &str = "(not shown)";

/// The value of that name as people may see it.
pub(super) fn shown<'t>(name: &str, text: &'t str) -> &'t str {
    let name = name.to_ascii_lowercase();
    // Where a secret is, is none.
    if name.ends_with("_file") {
        return text;
    }
    if SECRETS.iter().any(|part| name.contains(part)) { NOT_SHOWN } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_their_names() {
        for name in
            ["sasl.password", "ssl.key.pem", "sasl.oauthbearer.client.secret", "sasl.oauthbearer.config", "SSL.KEY.PASSWORD"]
        {
            assert_eq!(shown(name, "hunter2"), NOT_SHOWN, "{name}");
        }
        for name in ["sasl.username", "ssl.ca.location", "ssl.certificate.pem", "window.size", "peer_secret_file"] {
            assert_eq!(shown(name, "seen"), "seen", "{name}");
        }
    }
}
