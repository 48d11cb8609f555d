//! SCRAM-SHA-256 as the server speaks it (RFC 5802, RFC 7677), without channel binding.
//!
//! Nobody must be able to tell a role that does not exist from a wrong password: for any name there is a verifier, made
//! up from a secret of this process where there is none, and the exchange fails at its last step either way.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

pub(crate) const MECHANISM: &str = "SCRAM-SHA-256";
/// PostgreSQL's own.
const ITERATIONS: u32 = 4096;
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 18;
/// A client's nonce may have any length; an honest one has 24 characters.
const MAX_CLIENT_NONCE_CHARS: usize = 256;

type Key = [u8; 32];

/// What a proof of the password is checked against. The password does not follow from it.
pub(crate) struct Verifier {
    salt: Vec<u8>,
    iterations: u32,
    stored_key: Key,
    server_key: Key,
}

/// Makes up verifiers for roles that do not exist. The same role gets the same salt, as an existing one does.
pub(crate) struct Pretender(Key);

/// The client broke the protocol, or does not know the password. Which of both is for the log only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failed {
    Protocol,
    Proof,
}

impl Verifier {
    /// # Errors
    /// When the system gives no random numbers.
    pub fn derive(password: &str) -> Result<Verifier, getrandom::Error> {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt)?;
        Ok(Verifier::derive_with(password, &salt))
    }

    fn derive_with(password: &str, salt: &[u8]) -> Verifier {
        let prepared = saslprep(password);
        let mut block = hmac(prepared.as_bytes(), &[salt, &1u32.to_be_bytes()]);
        let mut salted = block;
        for _ in 1..ITERATIONS {
            block = hmac(prepared.as_bytes(), &[&block]);
            salted.iter_mut().zip(block).for_each(|(sum, byte)| *sum ^= byte);
        }
        Verifier {
            salt: salt.to_vec(),
            iterations: ITERATIONS,
            stored_key: Sha256::digest(hmac(&salted, &[b"Client Key"])).into(),
            server_key: hmac(&salted, &[b"Server Key"]),
        }
    }
}

impl Pretender {
    /// # Errors
    /// When the system gives no random numbers.
    pub fn new() -> Result<Pretender, getrandom::Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        Ok(Pretender(secret))
    }

    fn verifier(&self, role: &str) -> Verifier {
        let made_up = hmac(&self.0, &[role.as_bytes()]);
        Verifier {
            salt: made_up[..SALT_BYTES].to_vec(),
            iterations: ITERATIONS,
            stored_key: hmac(&self.0, &[b"stored", &made_up]),
            server_key: hmac(&self.0, &[b"server", &made_up]),
        }
    }
}

/// An exchange after the client's first message.
pub(crate) struct Exchange {
    gs2_header: String,
    nonce: String,
    /// Client's first message without its header, a comma, and our first message.
    auth_message: String,
    stored_key: Key,
    server_key: Key,
    is_known: bool,
}

impl Exchange {
    /// From the client's first message to ours. `verifier`: of the role, where there is one of that name.
    ///
    /// # Errors
    /// When the message is not one, or demands channel binding.
    pub fn begin(
        client_first: &[u8],
        role: &str,
        verifier: Option<&Verifier>,
        pretender: &Pretender,
    ) -> Result<(Exchange, String), Failed> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| Failed::Protocol)?;
        Exchange::begin_with(client_first, role, verifier, pretender, &STANDARD.encode(nonce))
    }

    fn begin_with(
        client_first: &[u8],
        role: &str,
        verifier: Option<&Verifier>,
        pretender: &Pretender,
        our_nonce: &str,
    ) -> Result<(Exchange, String), Failed> {
        let text = std::str::from_utf8(client_first).map_err(|_| Failed::Protocol)?;
        let bare_at = text.match_indices(',').nth(1).ok_or(Failed::Protocol)?.0 + 1;
        let (gs2_header, bare) = text.split_at(bare_at);
        // `n`: does not bind. `y`: would, and saw that we do not offer it. `p=`: insists.
        if !(gs2_header.starts_with("n,") || gs2_header.starts_with("y,")) {
            return Err(Failed::Protocol);
        }
        let mut attributes = bare.split(',');
        attributes.next().and_then(|name| name.strip_prefix("n=")).ok_or(Failed::Protocol)?;
        let client_nonce =
            attributes.next().and_then(|nonce| nonce.strip_prefix("r=")).ok_or(Failed::Protocol)?;
        if client_nonce.is_empty() || client_nonce.len() > MAX_CLIENT_NONCE_CHARS {
            return Err(Failed::Protocol);
        }
        let made_up = pretender.verifier(role);
        let is_known = verifier.is_some();
        let verifier = verifier.unwrap_or(&made_up);
        let nonce = format!("{client_nonce}{our_nonce}");
        let server_first =
            format!("r={nonce},s={},i={}", STANDARD.encode(&verifier.salt), verifier.iterations);
        let exchange = Exchange {
            gs2_header: gs2_header.to_owned(),
            auth_message: format!("{bare},{server_first}"),
            nonce,
            stored_key: verifier.stored_key,
            server_key: verifier.server_key,
            is_known,
        };
        Ok((exchange, server_first))
    }

    /// From the client's last message to ours.
    ///
    /// # Errors
    /// When the proof does not hold.
    pub fn finish(self, client_final: &[u8]) -> Result<String, Failed> {
        let text = std::str::from_utf8(client_final).map_err(|_| Failed::Protocol)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(Failed::Protocol)?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next().and_then(|text| text.strip_prefix("c=")).ok_or(Failed::Protocol)?;
        let nonce = attributes.next().and_then(|text| text.strip_prefix("r=")).ok_or(Failed::Protocol)?;
        if binding != STANDARD.encode(&self.gs2_header) || nonce != self.nonce {
            return Err(Failed::Protocol);
        }
        let proof: Key =
            STANDARD.decode(proof).ok().and_then(|proof| proof.try_into().ok()).ok_or(Failed::Protocol)?;
        let auth_message = format!("{},{without_proof}", self.auth_message);
        let mut client_key = hmac(&self.stored_key, &[auth_message.as_bytes()]);
        client_key.iter_mut().zip(proof).for_each(|(key, byte)| *key ^= byte);
        let proven = is_equal(&Sha256::digest(client_key).into(), &self.stored_key);
        if !(proven & self.is_known) {
            return Err(Failed::Proof);
        }
        Ok(format!("v={}", STANDARD.encode(hmac(&self.server_key, &[auth_message.as_bytes()]))))
    }
}

/// In a time that does not tell where they differ.
pub(crate) fn is_equal<const N: usize>(one: &[u8; N], other: &[u8; N]) -> bool {
    let difference = one.iter().zip(other).fold(0, |difference, (a, b)| difference | (a ^ b));
    std::hint::black_box(difference) == 0
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// PostgreSQL and its clients prepare a password, and take it as it is when it cannot be prepared.
fn saslprep(password: &str) -> std::borrow::Cow<'_, str> {
    stringprep::saslprep(password).unwrap_or(password.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

    fn exchange(role: &str, known: Option<&Verifier>, password: &str) -> Result<(), Failed> {
        let pretender = Pretender([7; 32]);
        let mut client = ScramSha256::new(password.as_bytes(), ChannelBinding::unrequested());
        let (exchange, first) = Exchange::begin(client.message(), role, known, &pretender)?;
        client.update(first.as_bytes()).unwrap();
        let last = exchange.finish(client.message())?;
        client.finish(last.as_bytes()).unwrap();
        Ok(())
    }

    #[test]
    fn who_knows_the_password_is_let_in_and_learns_that_we_know_it_too() {
        for password in ["secret", "pass,=word", "I\u{ad}X", "ümlaut ½"] {
            let verifier = Verifier::derive(password).unwrap();
            assert_eq!(exchange("app", Some(&verifier), password), Ok(()), "{password}");
            assert_eq!(exchange("app", Some(&verifier), "other"), Err(Failed::Proof));
        }
    }

    #[test]
    fn a_role_that_does_not_exist_fails_like_a_wrong_password_and_keeps_its_salt() {
        assert_eq!(exchange("nobody", None, "secret"), Err(Failed::Proof));
        let pretender = Pretender([7; 32]);
        let first = |role| Exchange::begin_with(b"n,,n=,r=abc", role, None, &pretender, "def").unwrap().1;
        assert_eq!(first("nobody"), first("nobody"));
        assert_ne!(first("nobody"), first("somebody"));
        let known = Verifier::derive_with("secret", &[1; SALT_BYTES]);
        let real = Exchange::begin_with(b"n,,n=,r=abc", "app", Some(&known), &pretender, "def").unwrap().1;
        assert_eq!(real.len(), first("nobody").len());
    }

    #[test]
    fn messages_that_are_none_are_refused() {
        let verifier = Verifier::derive("secret").unwrap();
        let pretender = Pretender([7; 32]);
        let begin = |message: &[u8]| {
            Exchange::begin(message, "app", Some(&verifier), &pretender).map(|(exchange, _)| exchange)
        };
        for message in
            [&b""[..], b"n", b"n,,", b"n,,n=", b"n,,n=,r=", b"p=tls-unique,,n=,r=abc", b"\xff,,n=,r=a"]
        {
            assert!(begin(message).is_err(), "{message:?} was accepted");
        }
        for message in [&b""[..], b"c=biws", b"c=biws,r=abc,p=", b"c=biws,r=abc,p=AAAA", b"\xff"] {
            assert!(begin(b"n,,n=,r=abc").unwrap().finish(message).is_err(), "{message:?} was accepted");
        }
    }
}
