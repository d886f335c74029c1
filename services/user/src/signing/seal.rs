//! Private keys at rest: sealed with AES-256-GCM where there is a key for that, and plain where there is none.
//!
//! A sealed one is `0x01`, who sealed it (8 bytes), nonce (12 bytes), ciphertext and tag; it goes with its row's id, so
//! that it is of no use in another. A plain one is DER and begins with `0x30`.

use anyhow::{Context, bail, ensure};
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

const VERSION: u8 = 1;
const DER: u8 = 0x30;
const ID: usize = 8;

/// In place of the first key: sealed keys are to be stored plain again, before a return to a version that
/// can't open them.
const PLAINLY: &str = "plain";

/// The first key seals, and all open: so that one can be changed for another while replicas run.
pub(crate) struct Seals {
    /// None seals.
    plainly: bool,
    keys: Vec<Seal>,
}

struct Seal {
    id: [u8; ID],
    key: RandomizedNonceKey,
}

/// Whether a stored key is not sealed.
pub(super) fn is_plain(stored: &[u8]) -> bool {
    stored.first() == Some(&DER)
}

impl Seals {
    /// Of keys of 32 bytes as hex or base64, with blanks or commas between; `plain` may stand first.
    pub fn parse(setting: Option<&str>) -> anyhow::Result<Self> {
        let words = setting.unwrap_or_default().split([' ', ',', '\n', '\t', '\r']);
        let mut words = words.filter(|word| !word.is_empty()).peekable();
        let plainly = words.next_if_eq(&PLAINLY).is_some();
        let keys = words.map(Seal::parse).collect::<anyhow::Result<Vec<_>>>();
        Ok(Self { plainly, keys: keys.context("SIGNING_KEY_ENCRYPTION_KEY")? })
    }

    fn sealing(&self) -> Option<&Seal> {
        self.keys.first().filter(|_| !self.plainly)
    }

    /// As it is to be stored.
    pub fn seal(&self, kid: &str, private_key: &[u8]) -> anyhow::Result<Vec<u8>> {
        let Some(Seal { id, key }) = self.sealing() else {
            return Ok(private_key.to_vec());
        };
        let mut text = private_key.to_vec();
        let nonce = key.seal_in_place_append_tag(Aad::from(bound_to(kid)), &mut text);
        let nonce = nonce.context("a signing key could not be sealed")?;
        Ok([&[VERSION][..], id, nonce.as_ref(), &text].concat())
    }

    /// The key in its plain form.
    pub fn open(&self, kid: &str, stored: &[u8]) -> anyhow::Result<Vec<u8>> {
        let Some((VERSION, rest)) = stored.split_first().map(|(first, rest)| (*first, rest)) else {
            ensure!(is_plain(stored), "the signing key {kid} is stored in a form that is not known");
            return Ok(stored.to_vec());
        };
        let parts = rest.split_first_chunk::<ID>();
        let parts = parts.and_then(|(id, rest)| Some((id, rest.split_first_chunk::<NONCE_LEN>()?)));
        let (id, (nonce, text)) = parts.with_context(|| format!("the signing key {kid} is cut short"))?;
        let Some(Seal { key, .. }) = self.keys.iter().find(|seal| seal.id == *id) else {
            bail!(
                "the signing key {kid} is encrypted with a key that SIGNING_KEY_ENCRYPTION_KEY does not name"
            );
        };
        let mut text = text.to_vec();
        let opened = key.open_in_place(Nonce::from(nonce), Aad::from(bound_to(kid)), &mut text);
        Ok(opened
            .with_context(|| format!("the signing key {kid} was changed, or is another row's"))?
            .to_vec())
    }

    /// Whether it is stored as it would be today.
    pub fn is_current(&self, stored: &[u8]) -> bool {
        match (self.sealing(), stored.split_first()) {
            (Some(seal), Some((&VERSION, rest))) => rest.starts_with(&seal.id),
            (Some(_), _) => false,
            // Without a key nothing sealed can be read, so nothing is to be stored anew.
            (None, _) => is_plain(stored),
        }
    }
}

impl Seal {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let bytes = hex::decode(text).ok().or_else(|| BASE64_STANDARD.decode(text).ok());
        let bytes = bytes.filter(|bytes| bytes.len() == AES_256_GCM.key_len());
        let sense = "is not of 32 random bytes, as of `openssl rand -hex 32`";
        let bytes = bytes.context(sense)?;
        let mut id = [0; ID];
        id.copy_from_slice(&digest(&SHA256, &bytes).as_ref()[..ID]);
        Ok(Self { id, key: RandomizedNonceKey::new(&AES_256_GCM, &bytes).context(sense)? })
    }
}

fn bound_to(kid: &str) -> Vec<u8> {
    [b"users.signing_keys/", kid.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &[u8] = b"\x30a private key";

    fn seals(setting: &str) -> Seals {
        Seals::parse(Some(setting)).unwrap()
    }

    fn key(byte: &str) -> String {
        byte.repeat(32)
    }

    #[test]
    fn a_sealed_key_opens_for_its_own_row_alone() {
        let seals = seals(&key("a1"));
        let stored = seals.seal("one", PLAIN).unwrap();
        assert!(!stored.windows(7).any(|part| part == b"private"));
        assert_ne!(stored, seals.seal("one", PLAIN).unwrap(), "the nonce is another one each time");
        assert_eq!(seals.open("one", &stored).unwrap(), PLAIN);
        assert!(seals.open("another", &stored).unwrap_err().to_string().contains("another row's"));
        for changed in 0..stored.len() {
            let mut stored = stored.clone();
            stored[changed] ^= 1;
            assert!(seals.open("one", &stored).is_err(), "byte {changed}");
        }
        for length in 0..stored.len() {
            assert!(seals.open("one", &stored[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn without_a_key_it_is_stored_as_it_is_and_a_plain_one_is_always_read() {
        let none = Seals::parse(None).unwrap();
        assert_eq!(none.seal("one", PLAIN).unwrap(), PLAIN);
        assert!(none.is_current(PLAIN));
        let seals = seals(&key("a1"));
        for seals in [&none, &seals] {
            assert_eq!(seals.open("one", PLAIN).unwrap(), PLAIN);
        }
        assert!(!seals.is_current(PLAIN));
        let stored = seals.seal("one", PLAIN).unwrap();
        assert!(seals.is_current(&stored));
        let refused = none.open("one", &stored).unwrap_err().to_string();
        assert!(refused.contains("SIGNING_KEY_ENCRYPTION_KEY does not name"), "{refused}");
    }

    #[test]
    fn one_key_is_changed_for_another_in_three_steps() {
        let (old, new) = (key("a1"), key("b2"));
        let (only_old, both) = (seals(&old), seals(&format!("{old} {new}")));
        let (turned, only_new) = (seals(&format!("{new},\n{old}")), seals(&new));
        let stored = only_old.seal("one", PLAIN).unwrap();
        assert!(both.is_current(&stored) && !turned.is_current(&stored));
        let renewed = turned.seal("one", &turned.open("one", &stored).unwrap()).unwrap();
        for seals in [&both, &turned, &only_new] {
            assert_eq!(seals.open("one", &renewed).unwrap(), PLAIN);
        }
        assert!(only_old.open("one", &renewed).is_err() && only_new.open("one", &stored).is_err());
    }

    #[test]
    fn what_is_sealed_is_stored_plain_again_for_a_way_back() {
        let (sealing, back) = (seals(&key("a1")), seals(&format!("plain {}", key("a1"))));
        let stored = sealing.seal("one", PLAIN).unwrap();
        assert!(!back.is_current(&stored) && back.is_current(PLAIN));
        assert_eq!(back.seal("one", &back.open("one", &stored).unwrap()).unwrap(), PLAIN);
    }

    #[test]
    fn what_is_no_key_is_refused_with_a_sentence() {
        for bad in ["ab".repeat(31), "ab".repeat(33), "secret".to_owned(), format!("{} plain", key("a1"))] {
            let refused =
                Seals::parse(Some(&bad)).err().map(|error| format!("{error:#}")).unwrap_or_default();
            assert!(refused.contains("SIGNING_KEY_ENCRYPTION_KEY: is not of 32 random bytes"), "{refused}");
        }
        let base64 = BASE64_STANDARD.encode([0xa1; 32]);
        assert!(seals(&base64).is_current(&seals(&key("a1")).seal("one", PLAIN).unwrap()));
    }
}
