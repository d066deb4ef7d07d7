//! ICMP over IPv4 (RFC 792): echo, which the engine answers for owned addresses, and errors, which quote
//! the packet they are about.

use crate::wire::bytes::{read_u16, read_u32, write};
use crate::wire::{WireError, checksum};

mod field {
    use crate::wire::bytes::Field;

    pub(super) const TYPE: usize = 0;
    pub(super) const CODE: usize = 1;
    pub(super) const CHECKSUM: Field = 2..4;
    /// Meaning by type: identifier and sequence number of an echo, next-hop MTU, pointer, gateway.
    pub(super) const REST: Field = 4..8;
    pub(super) const IDENT: Field = 4..6;
    pub(super) const SEQ: Field = 6..8;
}

/// Length of the header in bytes; every type has this one.
pub const HEADER_LEN: usize = field::REST.end;

/// Message types (IANA "ICMP Type Numbers").
pub mod msg {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const DEST_UNREACHABLE: u8 = 3;
    /// Source quench; obsolete (RFC 6633).
    pub const SOURCE_QUENCH: u8 = 4;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// Code of [`msg::DEST_UNREACHABLE`]: fragmentation needed, the MTU in the low half of the rest
/// (RFC 1191).
pub const CODE_FRAGMENTATION_NEEDED: u8 = 4;

/// What a message is to a balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icmpv4Class {
    /// A request to answer or to balance.
    EchoRequest,
    /// An answer to one.
    EchoReply,
    /// About another packet, which it quotes.
    Error,
    /// Anything else.
    Other,
}

/// A view of a message: the buffer is the IP payload, to the last byte of data.
#[derive(Clone, Copy, Debug)]
pub struct Icmpv4View<T> {
    buffer: T,
}

impl<T: AsRef<[u8]>> Icmpv4View<T> {
    /// A view without a check; accessors panic on a buffer shorter than [`HEADER_LEN`].
    pub const fn new_unchecked(buffer: T) -> Self {
        Icmpv4View { buffer }
    }

    /// A view of a message. [`WireError::Truncated`] below 8 bytes.
    pub fn new_checked(buffer: T) -> Result<Self, WireError> {
        match buffer.as_ref().len() {
            0..HEADER_LEN => Err(WireError::Truncated),
            _ => Ok(Icmpv4View { buffer }),
        }
    }

    /// The buffer back.
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// Type, one of [`msg`] or another.
    #[inline]
    pub fn msg_type(&self) -> u8 {
        self.buffer.as_ref()[field::TYPE]
    }

    /// Code: a type's finer kind.
    #[inline]
    pub fn code(&self) -> u8 {
        self.buffer.as_ref()[field::CODE]
    }

    /// Checksum.
    #[inline]
    pub fn checksum(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::CHECKSUM)
    }

    /// Identifier of an echo; means nothing in other types.
    #[inline]
    pub fn echo_ident(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::IDENT)
    }

    /// Sequence number of an echo; means nothing in other types.
    #[inline]
    pub fn echo_seq(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::SEQ)
    }

    /// The second word of the header, whatever the type means by it.
    #[inline]
    pub fn rest(&self) -> u32 {
        read_u32(self.buffer.as_ref(), field::REST)
    }

    /// What the message is to a balancer.
    #[inline]
    pub fn class(&self) -> Icmpv4Class {
        match self.msg_type() {
            msg::ECHO_REQUEST => Icmpv4Class::EchoRequest,
            msg::ECHO_REPLY => Icmpv4Class::EchoReply,
            msg::DEST_UNREACHABLE
            | msg::SOURCE_QUENCH
            | msg::REDIRECT
            | msg::TIME_EXCEEDED
            | msg::PARAMETER_PROBLEM => Icmpv4Class::Error,
            _ => Icmpv4Class::Other,
        }
    }

    /// What follows the header: an echo's data, or the packet that an error quotes, cut anywhere
    /// (read it with [`crate::wire::Ipv4View::new_header_checked`]).
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..]
    }

    /// Whether the checksum is right; the buffer must be the whole message.
    pub fn verify_checksum(&self) -> bool {
        checksum::is_valid(checksum::sum(self.buffer.as_ref()))
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Icmpv4View<T> {
    /// Sets type and code.
    #[inline]
    pub fn set_type_and_code(&mut self, msg_type: u8, code: u8) {
        let data = self.buffer.as_mut();
        data[field::TYPE] = msg_type;
        data[field::CODE] = code;
    }

    /// Sets the checksum.
    #[inline]
    pub fn set_checksum(&mut self, checksum: u16) {
        write(self.buffer.as_mut(), field::CHECKSUM, checksum.to_be_bytes());
    }

    /// Sets the identifier of an echo.
    #[inline]
    pub fn set_echo_ident(&mut self, ident: u16) {
        write(self.buffer.as_mut(), field::IDENT, ident.to_be_bytes());
    }

    /// Sets the sequence number of an echo.
    #[inline]
    pub fn set_echo_seq(&mut self, seq: u16) {
        write(self.buffer.as_mut(), field::SEQ, seq.to_be_bytes());
    }

    /// Sets the second word of the header.
    #[inline]
    pub fn set_rest(&mut self, rest: u32) {
        write(self.buffer.as_mut(), field::REST, rest.to_be_bytes());
    }

    /// What follows the header.
    #[inline]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.buffer.as_mut()[HEADER_LEN..]
    }

    /// Computes the checksum and writes it; the buffer must be the whole message.
    pub fn fill_checksum(&mut self) {
        self.set_checksum(0);
        let checksum = checksum::finish(checksum::sum(self.buffer.as_ref()));
        self.set_checksum(checksum);
    }
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icmpv4Repr<'a> {
    /// Echo request.
    EchoRequest {
        /// Identifier.
        ident: u16,
        /// Sequence number.
        seq: u16,
        /// What is to come back.
        data: &'a [u8],
    },
    /// Echo reply.
    EchoReply {
        /// Identifier of the request.
        ident: u16,
        /// Sequence number of the request.
        seq: u16,
        /// Data of the request.
        data: &'a [u8],
    },
    /// An error about a packet.
    Error {
        /// A type for which the class is [`Icmpv4Class::Error`].
        msg_type: u8,
        /// Code.
        code: u8,
        /// The second word of the header: MTU, pointer or gateway, by type.
        rest: u32,
        /// The packet's IP header and some of its payload.
        packet: &'a [u8],
    },
}

impl<'a> Icmpv4Repr<'a> {
    /// Reads a message. [`WireError::BadValue`] for class [`Icmpv4Class::Other`] and for an echo whose
    /// code is not zero; the checksum is left to [`Icmpv4View::verify_checksum`].
    pub fn parse<T: AsRef<[u8]> + ?Sized>(view: &Icmpv4View<&'a T>) -> Result<Self, WireError> {
        let body = &view.buffer.as_ref()[HEADER_LEN..];
        let (ident, seq) = (view.echo_ident(), view.echo_seq());
        match (view.class(), view.code()) {
            (Icmpv4Class::EchoRequest, 0) => Ok(Icmpv4Repr::EchoRequest {
                ident,
                seq,
                data: body,
            }),
            (Icmpv4Class::EchoReply, 0) => Ok(Icmpv4Repr::EchoReply {
                ident,
                seq,
                data: body,
            }),
            (Icmpv4Class::Error, code) => Ok(Icmpv4Repr::Error {
                msg_type: view.msg_type(),
                code,
                rest: view.rest(),
                packet: body,
            }),
            _ => Err(WireError::BadValue),
        }
    }

    /// Length of the whole message in bytes.
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN + self.body().len()
    }

    const fn body(&self) -> &'a [u8] {
        match *self {
            Icmpv4Repr::EchoRequest { data, .. } | Icmpv4Repr::EchoReply { data, .. } => data,
            Icmpv4Repr::Error { packet, .. } => packet,
        }
    }

    /// Writes the message with its checksum. The buffer is exactly [`Icmpv4Repr::buffer_len`] long.
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, view: &mut Icmpv4View<T>) {
        match *self {
            Icmpv4Repr::EchoRequest { ident, seq, .. } => {
                view.set_type_and_code(msg::ECHO_REQUEST, 0);
                view.set_echo_ident(ident);
                view.set_echo_seq(seq);
            }
            Icmpv4Repr::EchoReply { ident, seq, .. } => {
                view.set_type_and_code(msg::ECHO_REPLY, 0);
                view.set_echo_ident(ident);
                view.set_echo_seq(seq);
            }
            Icmpv4Repr::Error {
                msg_type, code, rest, ..
            } => {
                view.set_type_and_code(msg_type, code);
                view.set_rest(rest);
            }
        }
        view.payload_mut().copy_from_slice(self.body());
        view.fill_checksum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: [u8; 12] = [8, 0, 0x08, 0x1c, 0x11, 0x11, 0x00, 0x02, b'p', b'i', b'n', b'g'];

    #[test]
    fn echo_both_ways() {
        let repr = Icmpv4Repr::EchoRequest {
            ident: 0x1111,
            seq: 2,
            data: b"ping",
        };
        let view = Icmpv4View::new_checked(&REQUEST).expect("a message");
        assert_eq!(Icmpv4Repr::parse(&view), Ok(repr));
        assert!(view.verify_checksum());
        let mut bytes = [0xa5; 12];
        repr.emit(&mut Icmpv4View::new_unchecked(&mut bytes));
        assert_eq!(bytes, REQUEST);
    }

    #[test]
    fn classes() {
        let class = |msg_type| {
            let mut bytes = REQUEST;
            bytes[0] = msg_type;
            Icmpv4View::new_unchecked(bytes).class()
        };
        let mut errors = 0;
        for msg_type in 0..=255 {
            let want = match msg_type {
                0 => Icmpv4Class::EchoReply,
                8 => Icmpv4Class::EchoRequest,
                3 | 4 | 5 | 11 | 12 => Icmpv4Class::Error,
                _ => Icmpv4Class::Other,
            };
            assert_eq!(class(msg_type), want, "type {msg_type}");
            errors += u32::from(want == Icmpv4Class::Error);
        }
        assert_eq!(errors, 5);
    }

    #[test]
    fn fragmentation_needed() {
        let repr = Icmpv4Repr::Error {
            msg_type: msg::DEST_UNREACHABLE,
            code: CODE_FRAGMENTATION_NEEDED,
            rest: 1400,
            packet: &[0x45, 0x00],
        };
        let mut bytes = [0xa5; 10];
        repr.emit(&mut Icmpv4View::new_unchecked(&mut bytes));
        assert_eq!(bytes, [3, 4, 0xb2, 0x83, 0x00, 0x00, 0x05, 0x78, 0x45, 0x00]);
        let view = Icmpv4View::new_checked(&bytes).expect("a message");
        assert_eq!(Icmpv4Repr::parse(&view), Ok(repr));
    }

    #[test]
    fn refusals() {
        assert_eq!(
            Icmpv4View::new_checked(&REQUEST[..7]).err(),
            Some(WireError::Truncated)
        );
        for (at, value) in [(0, 13), (1, 1)] {
            let mut bytes = REQUEST;
            bytes[at] = value;
            let view = Icmpv4View::new_checked(&bytes).expect("long enough");
            assert_eq!(Icmpv4Repr::parse(&view), Err(WireError::BadValue));
        }
        let mut reply = REQUEST;
        reply[..2].copy_from_slice(&[0, 1]);
        let view = Icmpv4View::new_checked(&reply).expect("long enough");
        assert_eq!(Icmpv4Repr::parse(&view), Err(WireError::BadValue));
    }
}
