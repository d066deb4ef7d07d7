//! The primitives of sealed frames by [ring](https://docs.rs/ring): AES-256-GCM, ChaCha20-Poly1305 and HKDF-SHA256.
//!
//! Which key seals what, under which nonce, is the core's ([`evenkeel_core::sync::seal`]).

use evenkeel_core::sync::codec::TAG_LEN;
use evenkeel_core::sync::seal::{AeadKey, Crypto, Salt, Secret, Suite};
use ring::aead::{self, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{self, HKDF_SHA256, KeyType};

/// Bytes of a key of both.
const KEY_LEN: usize = 32;

/// The primitives by ring.
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    suite: Suite,
}

impl Ring {
    /// With the suite that is faster on this machine.
    pub fn detect() -> Self {
        let suite = if has_aes() { Suite::AesGcm } else { Suite::ChaCha };
        Ring { suite }
    }

    /// With this suite.
    pub const fn with(suite: Suite) -> Self {
        Ring { suite }
    }
}

/// Whether the processor does AES and the multiplications of GCM. Without them ring's AES is several times slower than ChaCha20.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

struct Len;

impl KeyType for Len {
    fn len(&self) -> usize {
        KEY_LEN
    }
}

impl Crypto for Ring {
    fn suite(&self) -> Suite {
        self.suite
    }

    fn key(&self, suite: Suite, secret: &Secret, salt: &Salt, info: &[u8]) -> Box<dyn AeadKey> {
        Box::new(Key(LessSafeKey::new(key(suite, &secret.0, salt, info))))
    }
}

fn key(suite: Suite, secret: &[u8], salt: &[u8], info: &[u8]) -> UnboundKey {
    let algorithm = match suite {
        Suite::AesGcm => &AES_256_GCM,
        Suite::ChaCha => &CHACHA20_POLY1305,
    };
    let mut bytes = [0; KEY_LEN];
    let prk = hkdf::Salt::new(HKDF_SHA256, salt).extract(secret);
    prk.expand(&[info], Len)
        .and_then(|okm| okm.fill(&mut bytes))
        .expect("32 bytes are less than HKDF can give");
    UnboundKey::new(algorithm, &bytes).expect("both take keys of 32 bytes")
}

#[derive(Debug)]
struct Key(LessSafeKey);

impl AeadKey for Key {
    fn seal(&self, nonce: [u8; NONCE_LEN], aad: &[u8], body: &mut [u8]) -> [u8; TAG_LEN] {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), body);
        let tag: aead::Tag = tag.expect("a frame is far shorter than what either seals at a time");
        let mut out = [0; TAG_LEN];
        out.copy_from_slice(tag.as_ref());
        out
    }

    fn open(&self, nonce: [u8; NONCE_LEN], aad: &[u8], sealed: &mut [u8]) -> bool {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0.open_in_place(nonce, Aad::from(aad), sealed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        let digit = |b: u8| (b as char).to_digit(16).expect("a digit") as u8;
        digits.chunks(2).map(|d| digit(d[0]) << 4 | digit(d[1])).collect()
    }

    /// RFC 5869, A.1, cut to 32 bytes: the key by which a frame of zeros is sealed shows it.
    #[test]
    fn keys_are_those_of_rfc_5869() {
        let ikm = hex("0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b");
        let salt = hex("000102030405060708090a0b0c");
        let info = hex("f0f1f2f3f4f5f6f7f8f9");
        let okm = hex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf");
        let sealed = |key: UnboundKey| {
            let mut body = [0; 32];
            let tag = Key(LessSafeKey::new(key)).seal([7; 12], b"header", &mut body);
            (body, tag)
        };
        let of_vector = UnboundKey::new(&AES_256_GCM, &okm).expect("a key");
        assert_eq!(sealed(key(Suite::AesGcm, &ikm, &salt, &info)), sealed(of_vector));
    }

    /// RFC 8439, 2.8.2.
    #[test]
    fn chacha_is_that_of_rfc_8439() {
        let key = hex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f");
        let nonce = hex("070000004041424344454647").try_into().expect("12 bytes");
        let aad = hex("50515253c0c1c2c3c4c5c6c7");
        let text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
        let key = Key(LessSafeKey::new(
            UnboundKey::new(&CHACHA20_POLY1305, &key).expect("a key"),
        ));
        let mut body = text.to_vec();
        let tag = key.seal(nonce, &aad, &mut body);
        assert_eq!(body[..16], hex("d31a8d34648e60db7b86afbc53ef7ec2"));
        assert_eq!(tag[..], hex("1ae10b594f09e26a7e902ecbd0600691"));
        body.extend(tag);
        assert!(key.open(nonce, &aad, &mut body));
        assert_eq!(&body[..text.len()], text);
    }

    /// NIST's test case 14 of GCM: zeros by a key of zeros.
    #[test]
    fn aes_is_that_of_nist() {
        let key = Key(LessSafeKey::new(
            UnboundKey::new(&AES_256_GCM, &[0; 32]).expect("a key"),
        ));
        let mut body = [0; 16];
        let tag = key.seal([0; 12], b"", &mut body);
        assert_eq!(body[..], hex("cea7403d4d606b6e074ec5d3baf39d18"));
        assert_eq!(tag[..], hex("d0d1c8a799996bf0265b98b5d48ab919"));
    }

    #[test]
    fn what_is_chosen_is_what_the_processor_does() {
        let chosen = Ring::detect().suite();
        assert_eq!(chosen == Suite::AesGcm, has_aes());
        assert_eq!(Ring::with(Suite::ChaCha).suite(), Suite::ChaCha);
    }

    #[test]
    fn suites_do_not_open_each_other_s() {
        let secret = Secret([1; 32]);
        let key = |suite| Ring::detect().key(suite, &secret, &[2; 16], b"info");
        let mut body = b"records".to_vec();
        let tag = key(Suite::ChaCha).seal([0; 12], b"", &mut body);
        body.extend(tag);
        assert!(!key(Suite::AesGcm).open([0; 12], b"", &mut body.clone()));
        assert!(!key(Suite::ChaCha).open([1; 12], b"", &mut body.clone()));
        assert!(!key(Suite::ChaCha).open([0; 12], b"x", &mut body.clone()));
        assert!(key(Suite::ChaCha).open([0; 12], b"", &mut body));
        assert_eq!(&body[..7], b"records");
        assert!(
            !key(Suite::ChaCha).open([0; 12], b"", &mut [0; 15]),
            "shorter than a tag"
        );
    }
}
