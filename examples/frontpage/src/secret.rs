//! Random tokens, what is derived from them, and passwords.
//!
//! A visitor's cookie holds a token. The database only holds its hash, so a stolen copy of the database opens no
//! session. The token that guards forms is derived from the same secret: every instance can check it, and none has
//! to remember it.

use std::fmt::Write as _;

use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use sha2::{Digest, Sha256};

use crate::error::SecretError;

const TOKEN_BYTES: usize = 32;

/// 12 MiB and three passes, one of the equally strong pairs that are commonly recommended as the least for Argon2id.
/// It takes some 20 ms on a small server, and touches less memory than 19 MiB and two passes.
const MEMORY_KIB: u32 = 12 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 1;

/// A secret that only one visitor's browser knows.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A new token of 256 random bits.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn random() -> Result<Self, SecretError> {
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes).map_err(|_| SecretError("the system gave no randomness"))?;
        Ok(Self(hex(&bytes)))
    }

    /// Reads a cookie's value; anything that we cannot have issued is no token.
    pub fn parse(value: &str) -> Option<Self> {
        let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (value.len() == TOKEN_BYTES * 2 && value.bytes().all(lower_hex)).then(|| Self(value.to_owned()))
    }

    /// The value for the cookie.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the database knows of this token.
    pub fn stored(&self) -> Vec<u8> {
        Sha256::digest(self.0.as_bytes()).to_vec()
    }

    /// The value that every form of this visitor carries.
    pub fn form_token(&self) -> String {
        hex(&Sha256::new().chain_update(b"form:").chain_update(self.0.as_bytes()).finalize())
    }

    /// Whether a form was made for this visitor.
    pub fn matches_form(&self, given: &str) -> bool {
        let expected = self.form_token();
        // Every byte is looked at, so that the time taken tells nothing about the first difference.
        let difference =
            expected.bytes().zip(given.bytes()).fold(0, |seen, (left, right)| seen | (left ^ right));
        expected.len() == given.len() && difference == 0
    }
}

/// Hashes a password for storage. Takes some 20 ms and 12 MiB.
///
/// # Errors
/// When the system gives no randomness for the salt.
pub fn hash_password(password: &str) -> Result<String, SecretError> {
    let hash = hasher()?.hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string()).map_err(|_| SecretError("the password could not be hashed"))
}

/// Whether the password is the stored one; an unreadable hash matches nothing. Takes as long as hashing.
pub fn password_matches(password: &str, stored: &str) -> bool {
    hasher().is_ok_and(|hasher| hasher.verify_password(password.as_bytes(), stored).is_ok())
}

fn hasher() -> Result<Argon2<'static>, SecretError> {
    let parameters = Params::new(MEMORY_KIB, PASSES, LANES, None)
        .map_err(|_| SecretError("the parameters of the password hash are invalid"))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_token_fits_one_visitor_and_does_not_give_the_cookie_away() {
        let mine = Token::random().unwrap();
        let yours = Token::random().unwrap();
        assert!(mine.matches_form(&mine.form_token()));
        assert!(!mine.matches_form(&yours.form_token()));
        assert!(!mine.matches_form(""));
        assert!(!mine.matches_form(&mine.form_token()[..63]));
        assert!(!mine.matches_form(mine.as_str()));
        assert_ne!(hex(&mine.stored()), mine.form_token());
    }

    #[test]
    fn only_what_we_issue_is_a_token() {
        let token = Token::random().unwrap();
        assert!(Token::parse(token.as_str()) == Some(token.clone()));
        assert!(Token::parse("").is_none());
        assert!(Token::parse(&token.as_str().replacen(|_| true, "g", 1)).is_none());
        assert!(Token::parse(&format!("{}0", token.as_str())).is_none());
    }

    #[test]
    fn a_password_matches_its_own_hash_only() {
        let stored = hash_password("correct horse").unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=12288,t=3,p=1$"));
        assert!(password_matches("correct horse", &stored));
        assert!(!password_matches("correct horsf", &stored));
        assert!(!password_matches("correct horse", "not a hash"));
    }
}
