//! TCP (RFC 9293), with the options that the engine reads or writes (RFC 7323, RFC 2018).

use core::fmt;
use core::ops::BitOr;

use crate::wire::bytes::{clipped, clipped_mut, read_u16, read_u32, write};
use crate::wire::checksum::{self, Pseudo};
use crate::wire::{IpProto, WireError};

mod field {
    use crate::wire::bytes::Field;

    pub(super) const SRC_PORT: Field = 0..2;
    pub(super) const DST_PORT: Field = 2..4;
    pub(super) const SEQ: Field = 4..8;
    pub(super) const ACK: Field = 8..12;
    pub(super) const DATA_OFFSET: usize = 12;
    pub(super) const FLAGS: usize = 13;
    pub(super) const WINDOW: Field = 14..16;
    pub(super) const CHECKSUM: Field = 16..18;
    pub(super) const URGENT: Field = 18..20;
}

/// Length of a header without options, in bytes.
pub const HEADER_LEN: usize = field::URGENT.end;

/// Length of the longest header, in bytes.
pub const HEADER_LEN_MAX: usize = 60;

/// Option kinds (IANA "TCP Option Kind Numbers").
mod kind {
    pub(super) const END: u8 = 0;
    pub(super) const NOP: u8 = 1;
    pub(super) const MSS: u8 = 2;
    pub(super) const WINDOW_SCALE: u8 = 3;
    pub(super) const SACK_PERMITTED: u8 = 4;
    pub(super) const TIMESTAMPS: u8 = 8;
}

/// The control bits, as the header's 14th byte holds them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No flag.
    pub const NONE: Self = TcpFlags(0);
    /// No more data from the sender.
    pub const FIN: Self = TcpFlags(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = TcpFlags(0x02);
    /// Reset the connection.
    pub const RST: Self = TcpFlags(0x04);
    /// Push.
    pub const PSH: Self = TcpFlags(0x08);
    /// The acknowledgement number means something.
    pub const ACK: Self = TcpFlags(0x10);
    /// The urgent pointer means something.
    pub const URG: Self = TcpFlags(0x20);
    /// ECN echo (RFC 3168).
    pub const ECE: Self = TcpFlags(0x40);
    /// Congestion window reduced (RFC 3168).
    pub const CWR: Self = TcpFlags(0x80);

    /// Whether all flags of `other` are set.
    #[inline(always)]
    pub const fn contains(self, other: TcpFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any flag of `other` is set.
    #[inline(always)]
    pub const fn intersects(self, other: TcpFlags) -> bool {
        self.0 & other.0 != 0
    }

    /// Flags of either.
    #[inline(always)]
    pub const fn union(self, other: TcpFlags) -> Self {
        TcpFlags(self.0 | other.0)
    }

    /// These flags without those of `other`.
    #[inline(always)]
    pub const fn without(self, other: TcpFlags) -> Self {
        TcpFlags(self.0 & !other.0)
    }

    /// Whether this opens a connection: SYN, without ACK, RST and FIN. ECN set-up (RFC 3168) and a push
    /// may come along.
    #[inline(always)]
    pub const fn is_pure_syn(self) -> bool {
        self.0 & (Self::SYN.0 | Self::ACK.0 | Self::RST.0 | Self::FIN.0) == Self::SYN.0
    }
}

impl BitOr for TcpFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl fmt::Display for TcpFlags {
    /// Names joined by `|`, as `SYN|ACK`; `none` if no flag is set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
        let mut separator = "";
        for (bit, name) in NAMES.iter().enumerate() {
            if self.0 & 1 << bit != 0 {
                f.write_str(separator)?;
                f.write_str(name)?;
                separator = "|";
            }
        }
        if self.0 == 0 { f.write_str("none") } else { Ok(()) }
    }
}

/// A view of a TCP segment: the buffer is the IP payload, from the header to the last byte of data.
#[derive(Clone, Copy, Debug)]
pub struct TcpView<T> {
    buffer: T,
}

impl<T: AsRef<[u8]>> TcpView<T> {
    /// A view without a check; accessors panic on a buffer shorter than its header.
    pub const fn new_unchecked(buffer: T) -> Self {
        TcpView { buffer }
    }

    /// A view of a segment. [`WireError::BadLength`] for a data offset below 5 words,
    /// [`WireError::Truncated`] if the header with its options is not all in the buffer.
    pub fn new_checked(buffer: T) -> Result<Self, WireError> {
        let len = buffer.as_ref().len();
        if len < HEADER_LEN {
            return Err(WireError::Truncated);
        }
        let view = TcpView { buffer };
        match view.header_len() {
            0..HEADER_LEN => Err(WireError::BadLength),
            header_len if header_len > len => Err(WireError::Truncated),
            _ => Ok(view),
        }
    }

    /// The buffer back.
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// Source port.
    #[inline]
    pub fn src_port(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::SRC_PORT)
    }

    /// Destination port.
    #[inline]
    pub fn dst_port(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::DST_PORT)
    }

    /// Sequence number.
    #[inline]
    pub fn seq(&self) -> u32 {
        read_u32(self.buffer.as_ref(), field::SEQ)
    }

    /// Acknowledgement number; means something only with [`TcpFlags::ACK`].
    #[inline]
    pub fn ack(&self) -> u32 {
        read_u32(self.buffer.as_ref(), field::ACK)
    }

    /// Length of the header with its options, in bytes.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.buffer.as_ref()[field::DATA_OFFSET] >> 4) * 4
    }

    /// Control bits.
    #[inline]
    pub fn flags(&self) -> TcpFlags {
        TcpFlags(self.buffer.as_ref()[field::FLAGS])
    }

    /// Receive window, not scaled.
    #[inline]
    pub fn window(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::WINDOW)
    }

    /// Checksum.
    #[inline]
    pub fn checksum(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::CHECKSUM)
    }

    /// Urgent pointer; means something only with [`TcpFlags::URG`].
    #[inline]
    pub fn urgent(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::URGENT)
    }

    /// The bytes of the options, padding included.
    #[inline]
    pub fn options_bytes(&self) -> &[u8] {
        clipped(self.buffer.as_ref(), HEADER_LEN, self.header_len())
    }

    /// The options.
    #[inline]
    pub fn options(&self) -> TcpOptions<'_> {
        TcpOptions::new(self.options_bytes())
    }

    /// The data, or as much of it as the buffer has.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        clipped(self.buffer.as_ref(), self.header_len(), usize::MAX)
    }

    /// Whether the checksum is right; the buffer must be the whole segment.
    pub fn verify_checksum(&self, pseudo: &Pseudo) -> bool {
        checksum::is_valid(pseudo.sum_over(IpProto::TCP, self.buffer.as_ref()))
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> TcpView<T> {
    /// Sets the source port.
    #[inline]
    pub fn set_src_port(&mut self, port: u16) {
        write(self.buffer.as_mut(), field::SRC_PORT, port.to_be_bytes());
    }

    /// Sets the destination port.
    #[inline]
    pub fn set_dst_port(&mut self, port: u16) {
        write(self.buffer.as_mut(), field::DST_PORT, port.to_be_bytes());
    }

    /// Sets the sequence number.
    #[inline]
    pub fn set_seq(&mut self, seq: u32) {
        write(self.buffer.as_mut(), field::SEQ, seq.to_be_bytes());
    }

    /// Sets the acknowledgement number.
    #[inline]
    pub fn set_ack(&mut self, ack: u32) {
        write(self.buffer.as_mut(), field::ACK, ack.to_be_bytes());
    }

    /// Sets the header's length, a multiple of 4 from 20 to 60 bytes. The reserved bits become zero.
    #[inline]
    pub fn set_header_len(&mut self, len: usize) {
        self.buffer.as_mut()[field::DATA_OFFSET] = ((len / 4) as u8) << 4;
    }

    /// Sets the control bits.
    #[inline]
    pub fn set_flags(&mut self, flags: TcpFlags) {
        self.buffer.as_mut()[field::FLAGS] = flags.0;
    }

    /// Sets the receive window.
    #[inline]
    pub fn set_window(&mut self, window: u16) {
        write(self.buffer.as_mut(), field::WINDOW, window.to_be_bytes());
    }

    /// Sets the checksum.
    #[inline]
    pub fn set_checksum(&mut self, checksum: u16) {
        write(self.buffer.as_mut(), field::CHECKSUM, checksum.to_be_bytes());
    }

    /// Sets the urgent pointer.
    #[inline]
    pub fn set_urgent(&mut self, urgent: u16) {
        write(self.buffer.as_mut(), field::URGENT, urgent.to_be_bytes());
    }

    /// The bytes of the options.
    #[inline]
    pub fn options_bytes_mut(&mut self) -> &mut [u8] {
        let to = self.header_len();
        clipped_mut(self.buffer.as_mut(), HEADER_LEN, to)
    }

    /// The data, or as much of it as the buffer has.
    #[inline]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let from = self.header_len();
        clipped_mut(self.buffer.as_mut(), from, usize::MAX)
    }

    /// Computes the checksum and writes it; the buffer must be the whole segment.
    pub fn fill_checksum(&mut self, pseudo: &Pseudo) {
        self.set_checksum(0);
        let checksum = checksum::finish(pseudo.sum_over(IpProto::TCP, self.buffer.as_ref()));
        self.set_checksum(checksum);
    }
}

/// An option of a TCP header. End of list and no-operation are not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpOption<'a> {
    /// Maximum segment size (RFC 9293, section 3.7.1).
    Mss(u16),
    /// Shift count of the window (RFC 7323, section 2). As sent: above 14 counts as 14.
    WindowScale(u8),
    /// Selective acknowledgement permitted (RFC 2018).
    SackPermitted,
    /// Timestamps (RFC 7323, section 3).
    Timestamps {
        /// Clock of the sender.
        value: u32,
        /// Value being echoed; zero in a SYN.
        echo: u32,
    },
    /// Any other kind, and a kind above whose length is not its own.
    Unknown {
        /// Kind.
        kind: u8,
        /// Bytes after kind and length.
        data: &'a [u8],
    },
}

/// Iterator over options. It ends at the end of the list, or after one [`WireError::BadLength`] (an option
/// shorter than 2 bytes) or [`WireError::Truncated`] (one that runs past the header). At most 40 items.
#[derive(Clone, Copy, Debug)]
pub struct TcpOptions<'a> {
    rest: &'a [u8],
}

impl<'a> TcpOptions<'a> {
    /// Over the bytes between the fixed header and the data.
    pub const fn new(bytes: &'a [u8]) -> Self {
        TcpOptions { rest: bytes }
    }

    /// One option whose kind is neither end nor no-operation, and the bytes after it.
    fn split(bytes: &'a [u8]) -> Result<(TcpOption<'a>, &'a [u8]), WireError> {
        let &[kind, len, ..] = bytes else {
            return Err(WireError::Truncated);
        };
        if len < 2 {
            return Err(WireError::BadLength);
        }
        let (option, rest) = bytes
            .split_at_checked(usize::from(len))
            .ok_or(WireError::Truncated)?;
        let data = &option[2..];
        let option = match (kind, data) {
            (kind::MSS, &[a, b]) => TcpOption::Mss(u16::from_be_bytes([a, b])),
            (kind::WINDOW_SCALE, &[shift]) => TcpOption::WindowScale(shift),
            (kind::SACK_PERMITTED, []) => TcpOption::SackPermitted,
            (kind::TIMESTAMPS, &[a, b, c, d, e, f, g, h]) => TcpOption::Timestamps {
                value: u32::from_be_bytes([a, b, c, d]),
                echo: u32::from_be_bytes([e, f, g, h]),
            },
            (kind, data) => TcpOption::Unknown { kind, data },
        };
        Ok((option, rest))
    }
}

impl<'a> Iterator for TcpOptions<'a> {
    type Item = Result<TcpOption<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.rest {
                [] | [kind::END, ..] => {
                    self.rest = &[];
                    return None;
                }
                [kind::NOP, rest @ ..] => self.rest = rest,
                bytes => {
                    return Some(match Self::split(bytes) {
                        Ok((option, rest)) => {
                            self.rest = rest;
                            Ok(option)
                        }
                        Err(error) => {
                            self.rest = &[];
                            Err(error)
                        }
                    });
                }
            }
        }
    }
}

impl core::iter::FusedIterator for TcpOptions<'_> {}

/// A TCP header with the options that the engine negotiates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpRepr {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Control bits.
    pub flags: TcpFlags,
    /// Receive window, not scaled.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Maximum segment size, in bytes.
    pub mss: Option<u16>,
    /// Shift count of the window.
    pub window_scale: Option<u8>,
    /// Whether selective acknowledgement is permitted.
    pub sack_permitted: bool,
    /// Timestamps: value and echo.
    pub timestamps: Option<(u32, u32)>,
}

impl TcpRepr {
    /// Reads a header. Of an option that is repeated the last counts, unknown ones and the reserved bits
    /// are skipped. [`WireError::BadValue`] for a port of zero; the options' errors as
    /// [`TcpOptions`] gives them.
    pub fn parse<T: AsRef<[u8]>>(view: &TcpView<T>) -> Result<Self, WireError> {
        if view.src_port() == 0 || view.dst_port() == 0 {
            return Err(WireError::BadValue);
        }
        let mut repr = TcpRepr {
            src_port: view.src_port(),
            dst_port: view.dst_port(),
            seq: view.seq(),
            ack: view.ack(),
            flags: view.flags(),
            window: view.window(),
            urgent: view.urgent(),
            ..TcpRepr::default()
        };
        for option in view.options() {
            match option? {
                TcpOption::Mss(mss) => repr.mss = Some(mss),
                TcpOption::WindowScale(shift) => repr.window_scale = Some(shift),
                TcpOption::SackPermitted => repr.sack_permitted = true,
                TcpOption::Timestamps { value, echo } => repr.timestamps = Some((value, echo)),
                TcpOption::Unknown { .. } => {}
            }
        }
        Ok(repr)
    }

    /// Length of the header with its options in bytes, at most 40; the data goes behind it.
    pub const fn buffer_len(&self) -> usize {
        let mss = if self.mss.is_some() { 4 } else { 0 };
        let sack_and_timestamps = match (self.sack_permitted, self.timestamps.is_some()) {
            (_, true) => 12,
            (true, false) => 4,
            (false, false) => 0,
        };
        let window_scale = if self.window_scale.is_some() { 4 } else { 0 };
        HEADER_LEN + mss + sack_and_timestamps + window_scale
    }

    /// Writes the header. The order of options, and what pads them, is Linux's. The checksum is zero:
    /// when the data is in place, [`TcpView::fill_checksum`].
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, view: &mut TcpView<T>) {
        view.set_src_port(self.src_port);
        view.set_dst_port(self.dst_port);
        view.set_seq(self.seq);
        view.set_ack(self.ack);
        view.set_header_len(self.buffer_len());
        view.set_flags(self.flags);
        view.set_window(self.window);
        view.set_checksum(0);
        view.set_urgent(self.urgent);

        let mut at = HEADER_LEN;
        let data = view.buffer.as_mut();
        let mut put = |bytes: &[u8]| {
            data[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        if let Some(mss) = self.mss {
            put(&[kind::MSS, 4]);
            put(&mss.to_be_bytes());
        }
        match (self.sack_permitted, self.timestamps.is_some()) {
            (true, true) => put(&[kind::SACK_PERMITTED, 2]),
            (true, false) => put(&[kind::NOP, kind::NOP, kind::SACK_PERMITTED, 2]),
            (false, true) => put(&[kind::NOP, kind::NOP]),
            (false, false) => {}
        }
        if let Some((value, echo)) = self.timestamps {
            put(&[kind::TIMESTAMPS, 10]);
            put(&value.to_be_bytes());
            put(&echo.to_be_bytes());
        }
        if let Some(shift) = self.window_scale {
            put(&[kind::NOP, kind::WINDOW_SCALE, 3, shift]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;
    use std::string::ToString;
    use std::vec::Vec;

    const SYN: [u8; 40] = [
        0xc0, 0x00, 0x01, 0xbb, // ports
        0xde, 0xad, 0xbe, 0xef, 0x00, 0x00, 0x00, 0x00, // sequence numbers
        0xa0, 0x02, 0xfa, 0xf0, 0xfd, 0x73, 0x00, 0x00, // offset, flags, window, checksum, urgent
        0x02, 0x04, 0x05, 0xb4, // MSS
        0x04, 0x02, 0x08, 0x0a, 0x01, 0x02, 0x03, 0x04, 0x00, 0x00, 0x00, 0x00, // SACK, timestamps
        0x01, 0x03, 0x03, 0x07, // window scale
    ];
    const PSEUDO: Pseudo = Pseudo::v4(Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 7));

    fn syn() -> TcpRepr {
        TcpRepr {
            src_port: 49152,
            dst_port: 443,
            seq: 0xdead_beef,
            ack: 0,
            flags: TcpFlags::SYN,
            window: 64240,
            urgent: 0,
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: Some((0x0102_0304, 0)),
        }
    }

    fn options(bytes: &[u8]) -> Vec<Result<TcpOption<'_>, WireError>> {
        TcpOptions::new(bytes).collect()
    }

    #[test]
    fn both_ways() {
        let view = TcpView::new_checked(&SYN).expect("a segment");
        assert_eq!(TcpRepr::parse(&view), Ok(syn()));
        assert!(view.verify_checksum(&PSEUDO));
        assert!(view.payload().is_empty());

        assert_eq!(syn().buffer_len(), 40);
        let mut bytes = [0xa5; 40];
        let mut view = TcpView::new_unchecked(&mut bytes);
        syn().emit(&mut view);
        view.fill_checksum(&PSEUDO);
        assert_eq!(bytes, SYN);
    }

    #[test]
    fn data_follows_the_options() {
        let mut bytes = [0; 43];
        bytes[..40].copy_from_slice(&SYN);
        bytes[40..].copy_from_slice(b"abc");
        let mut view = TcpView::new_checked(&mut bytes).expect("a segment");
        assert_eq!(view.payload(), b"abc");
        assert!(!view.verify_checksum(&PSEUDO));
        view.fill_checksum(&PSEUDO);
        assert!(view.verify_checksum(&PSEUDO));
        view.payload_mut()[0] = b'x';
        assert!(!view.verify_checksum(&PSEUDO));
    }

    #[test]
    fn refusals() {
        let with_offset = |words: u8| {
            let mut bytes = SYN;
            bytes[12] = words << 4;
            TcpView::new_checked(bytes).err()
        };
        for words in 0..5 {
            assert_eq!(with_offset(words), Some(WireError::BadLength));
        }
        for words in 5..=10 {
            assert_eq!(with_offset(words), None);
        }
        for words in 11..16 {
            assert_eq!(with_offset(words), Some(WireError::Truncated));
        }
        assert_eq!(TcpView::new_checked(&SYN[..19]).err(), Some(WireError::Truncated));
        for port in [0, 2] {
            let mut bytes = SYN;
            bytes[port..port + 2].fill(0);
            let view = TcpView::new_checked(&bytes).expect("lengths fit");
            assert_eq!(TcpRepr::parse(&view), Err(WireError::BadValue));
        }
    }

    #[test]
    fn hostile_options_end_the_list() {
        let mss = Ok(TcpOption::Mss(1460));
        assert_eq!(
            options(&[2, 4, 5, 180, 3, 0, 1, 1]),
            [mss, Err(WireError::BadLength)]
        );
        assert_eq!(
            options(&[2, 4, 5, 180, 3, 1, 1, 1]),
            [mss, Err(WireError::BadLength)]
        );
        assert_eq!(
            options(&[2, 4, 5, 180, 8, 10, 1, 1]),
            [mss, Err(WireError::Truncated)]
        );
        assert_eq!(options(&[1, 1, 1, 8]), [Err(WireError::Truncated)]);
        let mut hostile = SYN;
        hostile[21] = 0;
        let view = TcpView::new_checked(&hostile).expect("header fits");
        assert_eq!(TcpRepr::parse(&view), Err(WireError::BadLength));
    }

    #[test]
    fn end_of_list_hides_what_follows() {
        assert_eq!(
            options(&[1, 4, 2, 0, 2, 4, 5, 180]),
            [Ok(TcpOption::SackPermitted)]
        );
        assert_eq!(options(&[]), []);
    }

    #[test]
    fn a_known_kind_with_a_foreign_length_is_unknown() {
        assert_eq!(
            options(&[2, 3, 9]),
            [Ok(TcpOption::Unknown { kind: 2, data: &[9] })]
        );
        assert_eq!(
            options(&[254, 2]),
            [Ok(TcpOption::Unknown { kind: 254, data: &[] })]
        );
    }

    #[test]
    fn flags() {
        assert_eq!((TcpFlags::SYN | TcpFlags::ACK).to_string(), "SYN|ACK");
        assert_eq!(TcpFlags::NONE.to_string(), "none");
        assert_eq!(TcpFlags(0xff).to_string(), "FIN|SYN|RST|PSH|ACK|URG|ECE|CWR");
        assert!((TcpFlags::SYN | TcpFlags::ECE | TcpFlags::CWR).is_pure_syn());
        for other in [TcpFlags::ACK, TcpFlags::RST, TcpFlags::FIN] {
            assert!(!(TcpFlags::SYN | other).is_pure_syn());
        }
        assert!(!TcpFlags::NONE.is_pure_syn());
        assert!(TcpFlags(0x12).contains(TcpFlags::SYN) && !TcpFlags(0x10).contains(TcpFlags(0x12)));
        assert!(TcpFlags(0x10).intersects(TcpFlags(0x12)));
        assert_eq!(TcpFlags(0x12).without(TcpFlags::SYN), TcpFlags::ACK);
    }
}
