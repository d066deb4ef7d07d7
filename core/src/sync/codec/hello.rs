//! HELLO: by what the frames of a life are opened, and where its streams are.

use alloc::vec::Vec;

use super::pack::{Bytes, take_lsn};
use super::{FORMAT_VERSION, FrameError, FrameHeader, HEADER_LEN, TAG_LEN, TO_ONE, at, flag};
use crate::sync::seal::{Life, SALT_LEN, Salt, Suite};

/// What a node understands beyond what its format has, as bits. None so far: those that are not known mean nothing.
pub const CAPABILITIES: u32 = 0;

/// Header, salt, suite, capabilities: what is read before the frame is opened.
pub(crate) const HELLO_CLEAR_LEN: usize = HEADER_LEN + SALT_LEN + 1 + 4;
/// Workers of a node whose numbers a HELLO tells, at most.
pub const HELLO_WORKER_COUNT_MAX: usize = 64;

/// The numbers that the frames of a worker's two streams have next: those below were sent before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamNumbers {
    /// Of live records and all else.
    pub live: u64,
    /// Of bulk.
    pub bulk: u64,
}

/// A node's greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The sender's salt, in this life.
    pub salt: Salt,
    /// How it seals.
    pub suite: Suite,
    /// See [`CAPABILITIES`].
    pub capabilities: u32,
    /// An answer repeats the salt of whom it answers, and proves so that it was made in that one's life; zeros: it is none.
    pub echo: Salt,
    /// Of an answer: by worker, as they were after the salt had come. What a receiver has not seen of lower ones it never will.
    pub numbers: Vec<StreamNumbers>,
}

/// As it is before it is sealed.
pub(crate) fn write_hello(buf: &mut Vec<u8>, header: &FrameHeader, hello: &Hello) {
    header.put(buf, super::TYPE_HELLO);
    buf.extend(hello.salt);
    buf.push(hello.suite as u8);
    buf.extend(hello.capabilities.to_le_bytes());
    buf.extend(hello.echo);
    let numbers = hello.numbers.iter().take(HELLO_WORKER_COUNT_MAX);
    buf.push(numbers.len() as u8);
    for n in numbers {
        for number in [n.live, n.bulk] {
            buf.extend_from_slice(&number.to_le_bytes()[..6]);
        }
    }
    let len = buf.len() as u16;
    buf[at::COUNT].copy_from_slice(&1u16.to_le_bytes());
    buf[at::LENGTH].copy_from_slice(&len.to_le_bytes());
}

/// What the clear part of a HELLO says of its keys, and how long that part is.
pub(crate) fn hello_life(frame: &[u8]) -> Option<(Life, usize)> {
    let clear = frame.get(HEADER_LEN..HELLO_CLEAR_LEN)?;
    let (salt, rest) = clear.split_first_chunk::<SALT_LEN>()?;
    let suite = Suite::from_u8(*rest.first()?)?;
    Some((Life { salt: *salt, suite }, HELLO_CLEAR_LEN))
}

/// Reads an opened one. What follows the numbers is left to later formats.
pub fn read_hello(frame: &[u8]) -> Result<Hello, FrameError> {
    let (life, _) = hello_life(frame).ok_or(FrameError::Truncated)?;
    let mut bytes = Bytes(frame.get(HEADER_LEN + SALT_LEN + 1..).unwrap_or_default());
    let capabilities = bytes.u32()?;
    let echo: Salt = bytes.array()?;
    let count = usize::from(bytes.u8()?);
    if count > HELLO_WORKER_COUNT_MAX {
        return Err(FrameError::Bad(super::Field::Count));
    }
    let mut numbers = Vec::with_capacity(count);
    for _ in 0..count {
        let live = take_lsn(&mut bytes)?;
        let bulk = take_lsn(&mut bytes)?;
        numbers.push(StreamNumbers { live, bulk });
    }
    Ok(Hello {
        salt: life.salt,
        suite: life.suite,
        capabilities,
        echo,
        numbers,
    })
}

/// The number of the key that seals a frame; 0: none.
pub(crate) fn key_of(frame: &[u8]) -> u8 {
    frame.get(at::KEY).copied().unwrap_or(0)
}

fn change_len(frame: &mut [u8], change: impl Fn(u16) -> u16) {
    let len = u16::from_le_bytes([frame[at::LENGTH.start], frame[at::LENGTH.start + 1]]);
    frame[at::LENGTH].copy_from_slice(&change(len).to_le_bytes());
}

/// Whether a sealed frame is for one node.
pub(crate) fn is_to_one(frame: &[u8]) -> bool {
    frame.get(at::FLAGS).is_some_and(|flags| flags & TO_ONE != 0)
}

/// Says in the header of a whole frame that a key seals it, for one node or for all, and that a tag follows.
pub(crate) fn set_sealed(frame: &mut [u8], key: u8, to_one: bool) {
    debug_assert!(frame[at::VERSION] == FORMAT_VERSION && frame[at::FLAGS] & !flag::ACK_NOW == 0);
    frame[at::KEY] = key;
    if to_one {
        frame[at::FLAGS] |= TO_ONE;
    }
    change_len(frame, |len| len.saturating_add(TAG_LEN as u16));
}

/// Makes of an opened frame what it was before it was sealed: without a key, and without the tag.
pub(crate) fn set_open(frame: &mut Vec<u8>) {
    frame.truncate(frame.len().saturating_sub(TAG_LEN));
    frame[at::KEY] = 0;
    frame[at::FLAGS] &= !TO_ONE;
    change_len(frame, |len| len.saturating_sub(TAG_LEN as u16));
}

const _: () = assert!(
    HELLO_CLEAR_LEN + SALT_LEN + 1 + 12 * HELLO_WORKER_COUNT_MAX + TAG_LEN < super::NODE_FRAME_LEN_MAX
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Incarnation, NodeId, PeerId};
    use crate::sync::codec::{Field, FrameType, NODE_FRAME_LEN_MAX, STREAM_CONTROL, decode};

    fn header() -> FrameHeader {
        FrameHeader {
            cluster: 7,
            from: PeerId {
                node: NodeId(2),
                incarnation: Incarnation(9),
            },
            stream: STREAM_CONTROL,
            packet_number: 5,
        }
    }

    fn hello(workers: usize) -> Hello {
        let number = |n: usize| StreamNumbers {
            live: n as u64,
            bulk: (1 << 48) - 1 - n as u64,
        };
        Hello {
            salt: [0xa1; SALT_LEN],
            suite: Suite::ChaCha,
            capabilities: 0x8000_0001,
            echo: [0xe5; SALT_LEN],
            numbers: (0..workers).map(number).collect(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for workers in [0, 1, HELLO_WORKER_COUNT_MAX] {
            let mut frame = Vec::new();
            write_hello(&mut frame, &header(), &hello(workers));
            assert!(frame.len() + TAG_LEN <= NODE_FRAME_LEN_MAX);
            assert_eq!(FrameHeader::peek(&frame), Ok((header(), FrameType::Hello)));
            assert_eq!(read_hello(&frame), Ok(hello(workers)));
            assert_eq!(decode(&frame), Err(FrameError::Type(2)), "it has no messages");
            let life = Life {
                salt: [0xa1; SALT_LEN],
                suite: Suite::ChaCha,
            };
            assert_eq!(hello_life(&frame), Some((life, HELLO_CLEAR_LEN)));
            // A later format may say more.
            frame.push(9);
            assert_eq!(read_hello(&frame), Ok(hello(workers)));
        }
        // What the frame of HELLO looks like: the page of docs has the same offsets.
        let mut frame = Vec::new();
        write_hello(&mut frame, &header(), &hello(1));
        assert_eq!((frame[48], frame[69], frame.len()), (2, 1, 82));
        assert_eq!(frame[53..69], [0xe5; SALT_LEN]);
    }

    #[test]
    fn what_is_cut_or_cannot_be_is_refused() {
        let mut frame = Vec::new();
        write_hello(&mut frame, &header(), &hello(3));
        for len in HEADER_LEN..frame.len() {
            assert_eq!(read_hello(&frame[..len]), Err(FrameError::Truncated), "{len}");
        }
        assert_eq!(hello_life(&frame[..HELLO_CLEAR_LEN - 1]), None);
        let mut many = frame.clone();
        many[69] = HELLO_WORKER_COUNT_MAX as u8 + 1;
        assert_eq!(read_hello(&many), Err(FrameError::Bad(Field::Count)));
        for suite in [0, 3, 255] {
            frame[48] = suite;
            assert_eq!(hello_life(&frame), None);
        }
    }

    #[test]
    fn a_sealed_frame_is_as_long_as_it_says_and_an_opened_one_is_as_before() {
        let mut frame = Vec::new();
        write_hello(&mut frame, &header(), &hello(2));
        let before = frame.clone();
        set_sealed(&mut frame, 200, true);
        assert!(is_to_one(&frame));
        frame.extend([0x7a; TAG_LEN]);
        assert_eq!(key_of(&frame), 200);
        assert!(FrameHeader::peek(&frame).is_ok());
        assert!(FrameHeader::peek(&frame[..frame.len() - 1]).is_err());
        set_open(&mut frame);
        assert_eq!(frame, before);
        assert!(!is_to_one(&frame) && !is_to_one(&[]));
        // Nobody who does not seal says for whom a frame is.
        frame[at::FLAGS] |= TO_ONE;
        assert!(FrameHeader::peek(&frame).is_ok() && FrameHeader::read(&frame).is_err());
        assert_eq!(key_of(&[]), 0);
    }
}
