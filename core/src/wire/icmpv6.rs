//! ICMPv6 (RFC 4443): echo and errors. Neighbour discovery is in [`crate::wire::ndp`].

use crate::wire::bytes::{read_u16, read_u32, write};
use crate::wire::checksum::{self, Pseudo};
use crate::wire::{IpProto, WireError};

mod field {
    use crate::wire::bytes::Field;

    pub(super) const TYPE: usize = 0;
    pub(super) const CODE: usize = 1;
    pub(super) const CHECKSUM: Field = 2..4;
    /// Meaning by type: identifier and sequence number of an echo, MTU, pointer.
    pub(super) const REST: Field = 4..8;
    pub(super) const IDENT: Field = 4..6;
    pub(super) const SEQ: Field = 6..8;
}

/// Length of the header in bytes, with the word that every type in use has.
pub const HEADER_LEN: usize = field::REST.end;

/// Message types (IANA "ICMPv6 type Numbers"). Those below 128 are errors.
pub mod msg {
    /// Destination unreachable.
    pub const DEST_UNREACHABLE: u8 = 1;
    /// Packet too big; the rest is the MTU.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem; the rest is a pointer.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
    /// Neighbour solicitation (RFC 4861).
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// Neighbour advertisement (RFC 4861).
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
}

/// What a message is to a balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icmpv6Class {
    /// A request to answer or to balance.
    EchoRequest,
    /// An answer to one.
    EchoReply,
    /// About another packet, which it quotes.
    Error,
    /// Anything else, neighbour discovery included.
    Other,
}

/// A view of a message: the buffer is the IP payload, to the last byte of data.
#[derive(Clone, Copy, Debug)]
pub struct Icmpv6View<T> {
    buffer: T,
}

impl<T: AsRef<[u8]>> Icmpv6View<T> {
    /// A view without a check; accessors panic on a buffer shorter than [`HEADER_LEN`].
    pub const fn new_unchecked(buffer: T) -> Self {
        Icmpv6View { buffer }
    }

    /// A view of a message. [`WireError::Truncated`] below 8 bytes.
    pub fn new_checked(buffer: T) -> Result<Self, WireError> {
        match buffer.as_ref().len() {
            0..HEADER_LEN => Err(WireError::Truncated),
            _ => Ok(Icmpv6View { buffer }),
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

    /// The second word of the message, whatever the type means by it.
    #[inline]
    pub fn rest(&self) -> u32 {
        read_u32(self.buffer.as_ref(), field::REST)
    }

    /// What the message is to a balancer. All types below 128 are errors (RFC 4443, section 2.1), but
    /// only the four defined ones are known to quote a packet where [`Icmpv6View::payload`] begins.
    #[inline]
    pub fn class(&self) -> Icmpv6Class {
        match self.msg_type() {
            msg::ECHO_REQUEST => Icmpv6Class::EchoRequest,
            msg::ECHO_REPLY => Icmpv6Class::EchoReply,
            msg::DEST_UNREACHABLE | msg::PACKET_TOO_BIG | msg::TIME_EXCEEDED | msg::PARAMETER_PROBLEM => {
                Icmpv6Class::Error
            }
            _ => Icmpv6Class::Other,
        }
    }

    /// What follows the header: an echo's data, or the packet that an error quotes, cut anywhere
    /// (read it with [`crate::wire::Ipv6View::new_header_checked`]).
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..]
    }

    /// Whether the checksum is right; the buffer must be the whole message.
    pub fn verify_checksum(&self, pseudo: &Pseudo) -> bool {
        checksum::is_valid(pseudo.sum_over(IpProto::ICMPV6, self.buffer.as_ref()))
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Icmpv6View<T> {
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

    /// Sets the second word of the message.
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
    pub fn fill_checksum(&mut self, pseudo: &Pseudo) {
        self.set_checksum(0);
        let checksum = checksum::finish(pseudo.sum_over(IpProto::ICMPV6, self.buffer.as_ref()));
        self.set_checksum(checksum);
    }
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icmpv6Repr<'a> {
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
        /// A type for which the class is [`Icmpv6Class::Error`].
        msg_type: u8,
        /// Code.
        code: u8,
        /// The second word of the message: MTU or pointer, by type.
        rest: u32,
        /// The packet's IP header and as much of the rest as the minimum MTU allows.
        packet: &'a [u8],
    },
}

impl<'a> Icmpv6Repr<'a> {
    /// Reads a message. [`WireError::BadValue`] for class [`Icmpv6Class::Other`] and for an echo whose
    /// code is not zero; the checksum is left to [`Icmpv6View::verify_checksum`].
    pub fn parse<T: AsRef<[u8]> + ?Sized>(view: &Icmpv6View<&'a T>) -> Result<Self, WireError> {
        let body = &view.buffer.as_ref()[HEADER_LEN..];
        let (ident, seq) = (view.echo_ident(), view.echo_seq());
        match (view.class(), view.code()) {
            (Icmpv6Class::EchoRequest, 0) => Ok(Icmpv6Repr::EchoRequest {
                ident,
                seq,
                data: body,
            }),
            (Icmpv6Class::EchoReply, 0) => Ok(Icmpv6Repr::EchoReply {
                ident,
                seq,
                data: body,
            }),
            (Icmpv6Class::Error, code) => Ok(Icmpv6Repr::Error {
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
            Icmpv6Repr::EchoRequest { data, .. } | Icmpv6Repr::EchoReply { data, .. } => data,
            Icmpv6Repr::Error { packet, .. } => packet,
        }
    }

    /// Writes the message into a buffer of exactly [`Icmpv6Repr::buffer_len`] bytes. The checksum is
    /// zero, as it covers addresses too: [`Icmpv6View::fill_checksum`].
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, view: &mut Icmpv6View<T>) {
        match *self {
            Icmpv6Repr::EchoRequest { ident, seq, .. } => {
                view.set_type_and_code(msg::ECHO_REQUEST, 0);
                view.set_echo_ident(ident);
                view.set_echo_seq(seq);
            }
            Icmpv6Repr::EchoReply { ident, seq, .. } => {
                view.set_type_and_code(msg::ECHO_REPLY, 0);
                view.set_echo_ident(ident);
                view.set_echo_seq(seq);
            }
            Icmpv6Repr::Error {
                msg_type, code, rest, ..
            } => {
                view.set_type_and_code(msg_type, code);
                view.set_rest(rest);
            }
        }
        view.set_checksum(0);
        view.payload_mut().copy_from_slice(self.body());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv6Addr;

    const REQUEST: [u8; 12] = [128, 0, 0x34, 0x60, 0x11, 0x11, 0x00, 0x02, b'p', b'i', b'n', b'g'];
    const PSEUDO: Pseudo = Pseudo::v6(
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
    );

    #[test]
    fn echo_both_ways() {
        let repr = Icmpv6Repr::EchoRequest {
            ident: 0x1111,
            seq: 2,
            data: b"ping",
        };
        let view = Icmpv6View::new_checked(&REQUEST).expect("a message");
        assert_eq!(Icmpv6Repr::parse(&view), Ok(repr));
        assert!(view.verify_checksum(&PSEUDO));
        let mut bytes = [0xa5; 12];
        let mut view = Icmpv6View::new_unchecked(&mut bytes);
        repr.emit(&mut view);
        view.fill_checksum(&PSEUDO);
        assert_eq!(bytes, REQUEST);
    }

    #[test]
    fn classes() {
        for msg_type in 0..=255 {
            let mut bytes = REQUEST;
            bytes[0] = msg_type;
            let want = match msg_type {
                129 => Icmpv6Class::EchoReply,
                128 => Icmpv6Class::EchoRequest,
                1..=4 => Icmpv6Class::Error,
                _ => Icmpv6Class::Other,
            };
            assert_eq!(Icmpv6View::new_unchecked(bytes).class(), want, "type {msg_type}");
        }
    }

    #[test]
    fn refusals() {
        assert_eq!(
            Icmpv6View::new_checked(&REQUEST[..7]).err(),
            Some(WireError::Truncated)
        );
        for (at, value) in [(0, msg::NEIGHBOUR_SOLICITATION), (0, 5), (1, 1)] {
            let mut bytes = REQUEST;
            bytes[at] = value;
            let view = Icmpv6View::new_checked(&bytes).expect("long enough");
            assert_eq!(Icmpv6Repr::parse(&view), Err(WireError::BadValue));
        }
        let mut reply = REQUEST;
        reply[..2].copy_from_slice(&[129, 1]);
        let view = Icmpv6View::new_checked(&reply).expect("long enough");
        assert_eq!(Icmpv6Repr::parse(&view), Err(WireError::BadValue));
    }
}
