//! Frames that only members can make and read: an AEAD over each, its keys, and what greets a new life of a node.
//!
//! The primitive is behind [`Crypto`]; which key seals which frame, under which nonce, is settled here:
//!
//! ```text
//! key   = HKDF-SHA256(secret, salt = the sender's salt, info = what and who, key, stream, number / 2^22)
//! nonce = 0 (4 bytes), packet number (8)
//! ```
//!
//! The salt is drawn anew at each start, so no key serves two lives, even of one incarnation; and within a life no number of a
//! stream is used twice. So no key and nonce are (I14), whatever secrets are changed for others and back.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::codec::{self, FORMAT_VERSION, FrameHeader, TAG_LEN};
use crate::cluster::{NodeId, PeerId};

/// Bytes of a secret.
pub const SECRET_LEN: usize = 32;
/// Bytes of a salt.
pub const SALT_LEN: usize = 16;
/// Secrets that are accepted at a time, so that they can be changed node by node.
pub const SECRET_COUNT_MAX: usize = 2;
/// A stream has another key after so many frames, as a power of two.
pub const REKEY_SHIFT: u32 = 22;
/// Bytes of [`info`].
const INFO_LEN: usize = 43;

/// 128 bits drawn at the start of a node: no two lives have the same one. It also is what an answer must repeat to be one.
pub type Salt = [u8; SALT_LEN];

/// What only the members of a cluster know.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; SECRET_LEN]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// How frames are sealed. Each sender chooses, and everybody can open both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Suite {
    /// AES-256-GCM: where the processor does it.
    AesGcm = 1,
    /// ChaCha20-Poly1305 (RFC 8439): where it does not.
    ChaCha = 2,
}

impl Suite {
    /// As in a HELLO.
    pub const fn from_u8(n: u8) -> Option<Self> {
        match n {
            1 => Some(Suite::AesGcm),
            2 => Some(Suite::ChaCha),
            _ => None,
        }
    }
}

/// The primitives.
pub trait Crypto: fmt::Debug + Send + core::marker::Sync {
    /// What is faster on this machine.
    fn suite(&self) -> Suite;
    /// The key that HKDF-SHA256 (RFC 5869) makes of a secret.
    fn key(&self, suite: Suite, secret: &Secret, salt: &Salt, info: &[u8]) -> Box<dyn AeadKey>;
}

/// A key of an AEAD with nonces of 12 bytes and tags of 16.
pub trait AeadKey: fmt::Debug + Send + core::marker::Sync {
    /// Encrypts `body` in its place, and returns the tag over it and `aad`.
    fn seal(&self, nonce: [u8; 12], aad: &[u8], body: &mut [u8]) -> [u8; TAG_LEN];
    /// Decrypts `sealed`, whose last bytes are the tag, in its place. `false`: it is not as it was sealed, and what is there now
    /// means nothing.
    fn open(&self, nonce: [u8; 12], aad: &[u8], sealed: &mut [u8]) -> bool;
}

/// The secrets of a cluster, each with its number in frames. The first one seals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secrets(Arc<[(u8, Secret)]>);

/// Why secrets were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretsError {
    /// None, or more than [`SECRET_COUNT_MAX`].
    Count(usize),
    /// A number is 0, which means that there is no key.
    Zero,
    /// Two have the same number.
    Twice(u8),
}

impl fmt::Display for SecretsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretsError::Count(n) => {
                write!(
                    f,
                    "{n} secrets; a cluster has 1, and {SECRET_COUNT_MAX} while one is changed"
                )
            }
            SecretsError::Zero => f.write_str("a secret's number is 1 to 255"),
            SecretsError::Twice(n) => write!(f, "two secrets have the number {n}"),
        }
    }
}

impl core::error::Error for SecretsError {}

impl Secrets {
    /// Of these, in this order.
    pub fn new(secrets: Vec<(u8, Secret)>) -> Result<Self, SecretsError> {
        if secrets.is_empty() || secrets.len() > SECRET_COUNT_MAX {
            return Err(SecretsError::Count(secrets.len()));
        }
        for (at, (id, _)) in secrets.iter().enumerate() {
            if *id == 0 {
                return Err(SecretsError::Zero);
            }
            if secrets[..at].iter().any(|(other, _)| other == id) {
                return Err(SecretsError::Twice(*id));
            }
        }
        Ok(Secrets(secrets.into()))
    }

    /// Their numbers; the first one seals.
    pub fn ids(&self) -> impl Iterator<Item = u8> + '_ {
        self.0.iter().map(|(id, _)| *id)
    }

    fn get(&self, id: u8) -> Option<&Secret> {
        self.0.iter().find(|(n, _)| *n == id).map(|(_, secret)| secret)
    }

    fn first(&self) -> &(u8, Secret) {
        &self.0[0]
    }
}

/// With what a node seals and opens, in one life.
#[derive(Clone, Debug)]
pub struct Sealing {
    /// The primitives.
    pub crypto: Arc<dyn Crypto>,
    /// The cluster's secrets.
    pub secrets: Secrets,
    /// This life's.
    pub salt: Salt,
}

impl PartialEq for Sealing {
    fn eq(&self, other: &Self) -> bool {
        self.secrets == other.secrets && self.salt == other.salt
    }
}

impl Eq for Sealing {}

/// What a key is for.
fn info(suite: Suite, cluster: u32, from: PeerId, key: u8, stream: u16, generation: u64) -> [u8; INFO_LEN] {
    let mut out = [0; INFO_LEN];
    let mut rest: &mut [u8] = &mut out;
    let mut put = |bytes: &[u8]| {
        let (here, after) = core::mem::take(&mut rest).split_at_mut(bytes.len());
        here.copy_from_slice(bytes);
        rest = after;
    };
    put(b"evenkeel sync");
    put(&[FORMAT_VERSION, suite as u8, key]);
    put(&cluster.to_le_bytes());
    put(&from.node.0.to_le_bytes());
    put(&from.incarnation.0.to_le_bytes());
    put(&stream.to_le_bytes());
    put(&generation.to_le_bytes());
    out
}

pub(crate) const fn generation(number: u64) -> u64 {
    number >> REKEY_SHIFT
}

fn nonce(number: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_le_bytes());
    nonce
}

/// Seals the frames of one stream.
#[derive(Debug)]
pub(crate) struct Sealer {
    sealing: Sealing,
    key: Option<(u64, Box<dyn AeadKey>)>,
}

impl Sealer {
    pub(crate) fn new(sealing: Sealing) -> Self {
        Sealer { sealing, key: None }
    }

    /// From the next frame on.
    pub(crate) fn set_secrets(&mut self, secrets: Secrets) {
        if self.sealing.secrets != secrets {
            self.sealing.secrets = secrets;
            self.key = None;
        }
    }

    /// Seals what follows the first `clear` bytes, for a node or for all, and adds the tag. `header` is the frame's, and no frame of it was
    /// sealed before.
    pub(crate) fn seal(
        &mut self,
        header: &FrameHeader,
        clear: usize,
        to: Option<NodeId>,
        frame: &mut Vec<u8>,
    ) {
        let Sealing {
            crypto,
            secrets,
            salt,
        } = &self.sealing;
        let (id, secret) = secrets.first();
        let now = generation(header.packet_number);
        let key = match &mut self.key {
            Some((of, key)) if *of == now => key,
            place => {
                let suite = crypto.suite();
                let info = info(suite, header.cluster, header.from, *id, header.stream, now);
                &mut place.insert((now, crypto.key(suite, secret, salt, &info))).1
            }
        };
        seal_by(&**key, *id, header.packet_number, clear, to, frame);
    }
}

fn seal_by(key: &dyn AeadKey, id: u8, number: u64, clear: usize, to: Option<NodeId>, frame: &mut Vec<u8>) {
    codec::set_sealed(frame, id, to.is_some());
    let (clear, body) = frame.split_at_mut(clear);
    let tag = Aad::of(clear, to).with(|aad| key.seal(nonce(number), aad, body));
    frame.extend_from_slice(&tag);
}

/// What is in clear of a frame, and the node that it is for, if it is for one: no other one opens it.
struct Aad {
    bytes: [u8; codec::HELLO_CLEAR_LEN + 2],
    len: usize,
}

impl Aad {
    fn of(clear: &[u8], to: Option<NodeId>) -> Self {
        let mut aad = Aad {
            bytes: [0; codec::HELLO_CLEAR_LEN + 2],
            len: 0,
        };
        let to = to.map(|to| to.0.to_le_bytes());
        for byte in clear.iter().chain(to.iter().flatten()) {
            if let Some(place) = aad.bytes.get_mut(aad.len) {
                *place = *byte;
                aad.len += 1;
            }
        }
        aad
    }

    fn with<T>(&self, done: impl FnOnce(&[u8]) -> T) -> T {
        done(&self.bytes[..self.len])
    }
}

/// Who seals: all that its keys are made of but the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) salt: Salt,
    pub(crate) suite: Suite,
}

/// Keys by which frames of a stream were opened: the two that were used last.
#[derive(Debug, Default)]
pub(crate) struct StreamKeys([Option<OpenKey>; 2]);

#[derive(Debug)]
pub(crate) struct OpenKey {
    id: u8,
    generation: u64,
    secret: Secret,
    key: Box<dyn AeadKey>,
}

/// Opens frames.
#[derive(Debug)]
pub(crate) struct Opener {
    crypto: Arc<dyn Crypto>,
    pub(crate) secrets: Secrets,
    /// The frame that is being opened.
    plain: Vec<u8>,
}

/// Why a frame was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotOpened {
    /// No secret has that number.
    NoSecret,
    /// It was not sealed by who it says, or not as it is.
    Forged,
}

impl Opener {
    pub(crate) fn new(sealing: &Sealing) -> Self {
        Opener {
            crypto: sealing.crypto.clone(),
            secrets: sealing.secrets.clone(),
            plain: Vec::new(),
        }
    }

    /// For `me` the frame as it was before it was sealed, behind its first `clear` bytes; and the key, if it is not among `keys`: it belongs
    /// there once the whole frame is found to be good.
    pub(crate) fn open(
        &mut self,
        frame: &[u8],
        header: &FrameHeader,
        clear: usize,
        life: Life,
        keys: Option<&StreamKeys>,
        me: Option<NodeId>,
    ) -> Result<(&[u8], Option<OpenKey>), NotOpened> {
        let to = me.filter(|_| codec::is_to_one(frame));
        let id = codec::key_of(frame);
        let secret = self.secrets.get(id).ok_or(NotOpened::NoSecret)?;
        let generation = generation(header.packet_number);
        let of = |k: &&OpenKey| k.id == id && k.generation == generation && k.secret == *secret;
        let known = keys.and_then(|keys| keys.0.iter().flatten().find(of));
        let mut made = None;
        let key = match known {
            Some(known) => known,
            None => {
                let info = info(
                    life.suite,
                    header.cluster,
                    header.from,
                    id,
                    header.stream,
                    generation,
                );
                made.insert(OpenKey {
                    id,
                    generation,
                    secret: secret.clone(),
                    key: self.crypto.key(life.suite, secret, &life.salt, &info),
                })
            }
        };
        self.plain.clear();
        self.plain.extend_from_slice(frame);
        let (aad, sealed) = self.plain.split_at_mut_checked(clear).ok_or(NotOpened::Forged)?;
        let nonce = nonce(header.packet_number);
        if sealed.len() < TAG_LEN || !Aad::of(aad, to).with(|aad| key.key.open(nonce, aad, sealed)) {
            return Err(NotOpened::Forged);
        }
        codec::set_open(&mut self.plain);
        Ok((&self.plain, made))
    }
}

impl StreamKeys {
    /// A frame was opened by a new one: it takes the place of the older of the two.
    pub(crate) fn insert(&mut self, key: OpenKey) {
        self.0.swap(0, 1);
        self.0[0] = Some(key);
    }
}

/// Opens frames that were seen on the way, whoever they are for and however late: for who looks at a captured exchange and knows
/// the secrets. The HELLOs of a sender must have been seen before its other frames.
#[derive(Debug)]
pub struct Lens {
    opener: Opener,
    /// By peer; the newest are kept.
    lives: Vec<(PeerId, Life)>,
    keys: Vec<(PeerId, u16, StreamKeys)>,
}

/// Lives that a lens remembers, at most.
const LENS_LIVES_MAX: usize = 1024;

impl Lens {
    /// With these secrets.
    pub fn new(crypto: Arc<dyn Crypto>, secrets: Secrets) -> Self {
        let sealing = Sealing {
            crypto,
            secrets,
            salt: Salt::default(),
        };
        Lens {
            opener: Opener::new(&sealing),
            lives: Vec::new(),
            keys: Vec::new(),
        }
    }

    /// The frame as it was before it was sealed, with key 0: it can be decoded. As it is if it was not sealed; `None`: it is no frame,
    /// or cannot be opened. `to`: for whom it was on the way.
    pub fn open<'a>(&'a mut self, frame: &'a [u8], to: Option<NodeId>) -> Option<&'a [u8]> {
        let (header, kind) = FrameHeader::peek(frame).ok()?;
        if codec::key_of(frame) == 0 {
            return Some(frame);
        }
        let from = header.from;
        let mut clear = codec::HEADER_LEN;
        if kind == codec::FrameType::Hello {
            let (life, len) = codec::hello_life(frame)?;
            clear = len;
            if !self.lives.contains(&(from, life)) {
                self.opener.open(frame, &header, clear, life, None, to).ok()?;
                self.lives.retain(|(of, _)| *of != from);
                self.keys.retain(|(of, ..)| *of != from);
                if self.lives.len() == LENS_LIVES_MAX {
                    let (gone, _) = self.lives.remove(0);
                    self.keys.retain(|(of, ..)| *of != gone);
                }
                self.lives.push((from, life));
            }
        }
        let (_, life) = *self.lives.iter().find(|(of, _)| *of == from)?;
        let place = |(of, stream, _): &(PeerId, u16, StreamKeys)| (*of, *stream);
        let at = self.keys.binary_search_by_key(&(from, header.stream), place);
        let keys = at.ok().and_then(|at| self.keys.get(at)).map(|(.., keys)| keys);
        let (plain, made) = self.opener.open(frame, &header, clear, life, keys, to).ok()?;
        if let Some(key) = made {
            let at = at.unwrap_or_else(|at| {
                self.keys.insert(at, (from, header.stream, StreamKeys::default()));
                at
            });
            self.keys[at].2.insert(key);
        }
        Some(plain)
    }

    /// A frame of messages as its sender seals it, by the first secret, for one node or all: for who changes frames on purpose. `None`: no HELLO of the sender was
    /// seen.
    pub fn seal(&mut self, mut plain: Vec<u8>, to: Option<NodeId>) -> Option<Vec<u8>> {
        let (header, _) = FrameHeader::peek(&plain).ok()?;
        let (_, life) = *self.lives.iter().find(|(of, _)| *of == header.from)?;
        let (id, secret) = self.opener.secrets.first();
        let now = generation(header.packet_number);
        let info = info(life.suite, header.cluster, header.from, *id, header.stream, now);
        let key = self.opener.crypto.key(life.suite, secret, &life.salt, &info);
        seal_by(
            &*key,
            *id,
            header.packet_number,
            codec::HEADER_LEN,
            to,
            &mut plain,
        );
        Some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Incarnation;
    use crate::sync::codec::{FrameWriter, HEADER_LEN, LIVE_FRAME_LEN_MAX};
    use crate::sync::{SyncBody, codec::decode};
    use alloc::vec;

    /// Adds the number of its key to each byte: enough to see which one it was.
    #[derive(Debug)]
    struct Sum(u8);

    #[derive(Debug)]
    struct Sums;

    impl Crypto for Sums {
        fn suite(&self) -> Suite {
            Suite::AesGcm
        }
        fn key(&self, _: Suite, secret: &Secret, salt: &Salt, info: &[u8]) -> Box<dyn AeadKey> {
            let all = secret.0.iter().chain(salt).chain(info);
            Box::new(Sum(
                all.fold(1, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte))
            ))
        }
    }

    impl AeadKey for Sum {
        fn seal(&self, nonce: [u8; 12], aad: &[u8], body: &mut [u8]) -> [u8; TAG_LEN] {
            let tag = |body: &[u8]| {
                aad.iter()
                    .chain(&nonce)
                    .chain(body)
                    .fold(self.0, |t, b| t.rotate_left(1) ^ b)
            };
            let tag = tag(body);
            body.iter_mut().for_each(|b| *b = b.wrapping_add(self.0));
            [tag; TAG_LEN]
        }
        fn open(&self, nonce: [u8; 12], aad: &[u8], sealed: &mut [u8]) -> bool {
            let Some((body, tag)) = sealed.split_last_chunk_mut::<TAG_LEN>() else {
                return false;
            };
            body.iter_mut().for_each(|b| *b = b.wrapping_sub(self.0));
            let mut again = body.to_vec();
            self.seal(nonce, aad, &mut again) == *tag
        }
    }

    const LIFE: Life = Life {
        salt: [3; SALT_LEN],
        suite: Suite::AesGcm,
    };

    fn sealing(ids: &[u8]) -> Sealing {
        let secrets = ids.iter().map(|id| (*id, Secret([*id; SECRET_LEN]))).collect();
        Sealing {
            crypto: Arc::new(Sums),
            secrets: Secrets::new(secrets).expect("numbers are right"),
            salt: LIFE.salt,
        }
    }

    fn header(packet_number: u64) -> FrameHeader {
        FrameHeader {
            cluster: 7,
            from: PeerId {
                node: NodeId(2),
                incarnation: Incarnation(9),
            },
            stream: 5,
            packet_number,
        }
    }

    fn frame(sealer: &mut Sealer, number: u64, to: Option<NodeId>) -> Vec<u8> {
        let mut frame = Vec::new();
        let mut writer = FrameWriter::new(&mut frame, &header(number), LIVE_FRAME_LEN_MAX - TAG_LEN);
        writer
            .push(1, false, &SyncBody::Heartbeat { last: 4 })
            .expect("it fits");
        writer.finish();
        sealer.seal(&header(number), HEADER_LEN, to, &mut frame);
        frame
    }

    #[test]
    fn a_sealer_has_another_key_after_so_many_frames_and_an_opener_follows() {
        let mut sealer = Sealer::new(sealing(&[1]));
        let mut opener = Opener::new(&sealing(&[1]));
        let mut keys = StreamKeys::default();
        let last = (1 << REKEY_SHIFT) - 1;
        let frames: Vec<_> = (last - 1..=last + 2)
            .map(|n| (n, frame(&mut sealer, n, None)))
            .collect();
        let body = |n: usize| frames[n].1[HEADER_LEN..frames[n].1.len() - TAG_LEN].to_vec();
        assert_eq!(body(0), body(1), "one key");
        assert_eq!(body(2), body(3), "and another one");
        assert_ne!(body(1), body(2));
        let mut made = 0;
        for at in [0, 2, 1, 3] {
            let (n, frame) = &frames[at];
            let opened = opener.open(frame, &header(*n), HEADER_LEN, LIFE, Some(&keys), None);
            let (plain, key) = opened.expect("the key is right");
            assert_eq!(decode(plain).expect("it is open").items.len(), 1);
            if let Some(key) = key {
                made += 1;
                keys.insert(key);
            }
        }
        assert_eq!(made, 2, "both are kept while frames of both come");
    }

    #[test]
    fn what_is_for_one_node_is_opened_by_no_other() {
        let mut sealer = Sealer::new(sealing(&[1]));
        let mut opener = Opener::new(&sealing(&[1]));
        let for_3 = frame(&mut sealer, 1, Some(NodeId(3)));
        let for_all = frame(&mut sealer, 2, None);
        let mut open = |frame: &[u8], n, me| {
            let done = opener.open(frame, &header(n), HEADER_LEN, LIFE, None, me);
            done.map(|_| ())
        };
        assert_eq!(open(&for_3, 1, Some(NodeId(3))), Ok(()));
        assert_eq!(open(&for_3, 1, Some(NodeId(4))), Err(NotOpened::Forged));
        assert_eq!(open(&for_3, 1, None), Err(NotOpened::Forged));
        for me in [Some(NodeId(3)), Some(NodeId(4)), None] {
            assert_eq!(open(&for_all, 2, me), Ok(()));
        }
        // Nor if it says that it is for all.
        let mut said = for_3.clone();
        said[2] = 0;
        assert_eq!(open(&said, 1, Some(NodeId(4))), Err(NotOpened::Forged));
    }

    #[test]
    fn secrets_are_taken_from_the_next_frame_on_and_again() {
        let mut sealer = Sealer::new(sealing(&[1]));
        let mut seen = vec![];
        for (n, ids) in [(1, &[1, 2][..]), (2, &[2, 1]), (3, &[1]), (4, &[3])] {
            sealer.set_secrets(sealing(ids).secrets);
            let frame = frame(&mut sealer, n, None);
            seen.push(codec::key_of(&frame));
            let known = |ids: &[u8]| {
                let mut opener = Opener::new(&sealing(ids));
                let done = opener.open(&frame, &header(n), HEADER_LEN, LIFE, None, None);
                done.map(|_| ())
            };
            assert_eq!(known(ids), Ok(()));
            assert_eq!(known(&[9]), Err(NotOpened::NoSecret));
        }
        assert_eq!(seen, [1, 2, 1, 3]);
    }
}
