//! The id in the affinity cookie: random, so that nobody's can be guessed or met twice, and a key like any other. It carries no
//! bucket and no version, so it needs no signature: who wants another id could as well drop the cookie.

use crate::policy::ClientCookie;

/// The longest id that is taken for one.
const LONGEST: usize = 64;

/// An id of these random bytes: 32 lower-case hexadecimal digits.
pub fn client_id(random: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(random))
}

/// Whether a cookie's value may be an id: ours, or one of the same letters that was there before. What is longer or of other
/// letters is none, and its client is given one.
pub fn is_client_id(value: &[u8]) -> bool {
    (1..=LONGEST).contains(&value.len()) && value.iter().all(|&b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

impl ClientCookie {
    /// The value of the `set-cookie` header that gives this id.
    pub fn set(&self, id: &str) -> String {
        let Self { name, max_age_s } = self;
        format!("{name}={id}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Lax")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_32_digits_and_is_known_again() {
        let mut bytes = [0; 16];
        bytes[15] = 0xa7;
        assert_eq!(client_id(bytes), "000000000000000000000000000000a7");
        assert!(is_client_id(client_id([0xff; 16]).as_bytes()));
        let cookie = ClientCookie { name: "tg_id".to_owned(), max_age_s: 60 };
        assert_eq!(cookie.set("a7"), "tg_id=a7; Path=/; Max-Age=60; HttpOnly; SameSite=Lax");
    }

    #[test]
    fn what_is_no_id_is_told() {
        let (longest, longer) = ("a".repeat(64), "a".repeat(65));
        for id in ["a", "Alice_7-b", &longest] {
            assert!(is_client_id(id.as_bytes()), "{id}");
        }
        for other in ["", " ", "a b", "a;b", "a=b", "ä", "a\n", "a.b", "../x", "\0", &longer] {
            assert!(!is_client_id(other.as_bytes()), "{other:?}");
        }
    }
}
