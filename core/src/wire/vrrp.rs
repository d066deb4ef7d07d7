//! VRRP version 3 (RFC 9568, section 5; RFC 5798 before it): advertisements over IPv4 and IPv6.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::bytes::{read_u16, write};
use crate::wire::checksum::{self, Pseudo};
use crate::wire::{IpProto, MacAddr, WireError};

mod field {
    use crate::wire::bytes::Field;

    pub(super) const VERSION_TYPE: usize = 0;
    pub(super) const VRID: usize = 1;
    pub(super) const PRIORITY: usize = 2;
    pub(super) const ADDR_COUNT: usize = 3;
    /// Four reserved bits, then the interval.
    pub(super) const INTERVAL: Field = 4..6;
    pub(super) const CHECKSUM: Field = 6..8;
}

/// Length of the message without its addresses, in bytes.
pub const HEADER_LEN: usize = field::CHECKSUM.end;
/// The version spoken here.
pub const VERSION: u8 = 3;
/// Type of an advertisement; there is no other.
pub const ADVERTISEMENT: u8 = 1;
/// Time to live, and hop limit, of every message: no router has passed it on.
pub const TTL: u8 = 255;
/// Priority of the owner of the virtual addresses.
pub const PRIORITY_OWNER: u8 = 255;
/// Priority that says that the sender is a master no longer.
pub const PRIORITY_STOPPED: u8 = 0;
/// Longest interval that the field holds, in centiseconds.
pub const INTERVAL_MAX: u16 = 0x0fff;

/// Where advertisements go over IPv4.
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// Where advertisements go over IPv6.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// Link-layer group of [`GROUP_V4`] (RFC 1112, section 6.4).
pub const GROUP_MAC_V4: MacAddr = MacAddr([0x01, 0x00, 0x5e, 0x00, 0x00, 0x12]);
/// Link-layer group of [`GROUP_V6`].
pub const GROUP_MAC_V6: MacAddr = MacAddr::from_ipv6_multicast(GROUP_V6);

/// Link-layer address of an IPv4 virtual router (section 7.3).
pub const fn virtual_mac_v4(vrid: u8) -> MacAddr {
    MacAddr([0x00, 0x00, 0x5e, 0x00, 0x01, vrid])
}

/// Link-layer address of an IPv6 virtual router (section 7.3).
pub const fn virtual_mac_v6(vrid: u8) -> MacAddr {
    MacAddr([0x00, 0x00, 0x5e, 0x00, 0x02, vrid])
}

/// A view of a message: the buffer is the IP payload.
#[derive(Clone, Copy, Debug)]
pub struct VrrpView<T> {
    buffer: T,
}

impl<T: AsRef<[u8]>> VrrpView<T> {
    /// A view without a check; accessors panic on a buffer shorter than [`HEADER_LEN`].
    pub const fn new_unchecked(buffer: T) -> Self {
        VrrpView { buffer }
    }

    /// A view of a message. [`WireError::Truncated`] below 8 bytes. Version, type and the length of the
    /// addresses, which depends on the family, are left to [`VrrpRepr::parse`].
    pub fn new_checked(buffer: T) -> Result<Self, WireError> {
        match buffer.as_ref().len() {
            0..HEADER_LEN => Err(WireError::Truncated),
            _ => Ok(VrrpView { buffer }),
        }
    }

    /// Version; 3 is spoken here.
    pub fn version(&self) -> u8 {
        self.buffer.as_ref()[field::VERSION_TYPE] >> 4
    }

    /// Type; 1 is an advertisement.
    pub fn msg_type(&self) -> u8 {
        self.buffer.as_ref()[field::VERSION_TYPE] & 0x0f
    }

    /// Number of the virtual router.
    pub fn vrid(&self) -> u8 {
        self.buffer.as_ref()[field::VRID]
    }

    /// Priority of the sender.
    pub fn priority(&self) -> u8 {
        self.buffer.as_ref()[field::PRIORITY]
    }

    /// How many addresses follow.
    pub fn addr_count(&self) -> u8 {
        self.buffer.as_ref()[field::ADDR_COUNT]
    }

    /// Time between the sender's advertisements, in centiseconds; the reserved bits are not part of it.
    pub fn interval_cs(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::INTERVAL) & INTERVAL_MAX
    }

    /// Checksum.
    pub fn checksum(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::CHECKSUM)
    }

    /// The bytes of the addresses, and whatever is behind them.
    pub fn addrs_bytes(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..]
    }

    /// Whether the checksum is right with a pseudo-header; the buffer must be the whole message.
    pub fn verify_checksum(&self, pseudo: &Pseudo) -> bool {
        checksum::is_valid(pseudo.sum_over(IpProto::VRRP, self.buffer.as_ref()))
    }

    /// Whether the checksum is right without a pseudo-header; the buffer must be the whole message.
    pub fn verify_checksum_of_message(&self) -> bool {
        checksum::is_valid(checksum::sum(self.buffer.as_ref()))
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> VrrpView<T> {
    /// Sets version and type.
    pub fn set_version_and_type(&mut self, version: u8, msg_type: u8) {
        self.buffer.as_mut()[field::VERSION_TYPE] = version << 4 | msg_type & 0x0f;
    }

    /// Sets the number of the virtual router.
    pub fn set_vrid(&mut self, vrid: u8) {
        self.buffer.as_mut()[field::VRID] = vrid;
    }

    /// Sets the priority.
    pub fn set_priority(&mut self, priority: u8) {
        self.buffer.as_mut()[field::PRIORITY] = priority;
    }

    /// Sets the number of addresses.
    pub fn set_addr_count(&mut self, count: u8) {
        self.buffer.as_mut()[field::ADDR_COUNT] = count;
    }

    /// Sets the low 12 bits of the interval, in centiseconds; the reserved bits become zero.
    pub fn set_interval_cs(&mut self, interval_cs: u16) {
        let field = (interval_cs & INTERVAL_MAX).to_be_bytes();
        write(self.buffer.as_mut(), field::INTERVAL, field);
    }

    /// Sets the checksum.
    pub fn set_checksum(&mut self, checksum: u16) {
        write(self.buffer.as_mut(), field::CHECKSUM, checksum.to_be_bytes());
    }

    /// The bytes of the addresses.
    pub fn addrs_bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer.as_mut()[HEADER_LEN..]
    }

    /// Computes the checksum with a pseudo-header and writes it; the buffer must be the whole message.
    ///
    /// Over IPv6 this is the only form. Over IPv4, RFC 5798 (section 5.2.8) is read as wanting it by
    /// keepalived and Wireshark as they come; RFC 9568 leaves it out:
    /// [`VrrpView::fill_checksum_of_message`].
    pub fn fill_checksum(&mut self, pseudo: &Pseudo) {
        self.set_checksum(0);
        let checksum = checksum::finish(pseudo.sum_over(IpProto::VRRP, self.buffer.as_ref()));
        self.set_checksum(checksum);
    }

    /// Computes the checksum without a pseudo-header and writes it; the buffer must be the whole message.
    pub fn fill_checksum_of_message(&mut self) {
        self.set_checksum(0);
        let checksum = checksum::finish(checksum::sum(self.buffer.as_ref()));
        self.set_checksum(checksum);
    }
}

/// The addresses of a virtual router, as they lie on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VrrpAddrs<'a> {
    /// Over IPv4.
    V4(&'a [[u8; 4]]),
    /// Over IPv6.
    V6(&'a [[u8; 16]]),
}

impl<'a> VrrpAddrs<'a> {
    /// How many there are.
    pub const fn len(&self) -> usize {
        match self {
            VrrpAddrs::V4(addrs) => addrs.len(),
            VrrpAddrs::V6(addrs) => addrs.len(),
        }
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The addresses, in their order.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<'a> {
        let (v4, v6): (&'a [[u8; 4]], &'a [[u8; 16]]) = match *self {
            VrrpAddrs::V4(addrs) => (addrs, &[]),
            VrrpAddrs::V6(addrs) => (&[], addrs),
        };
        let v4 = v4.iter().map(|a| IpAddr::from(*a));
        v4.chain(v6.iter().map(|a| IpAddr::from(*a)))
    }

    const fn as_bytes(&self) -> &'a [u8] {
        match *self {
            VrrpAddrs::V4(addrs) => addrs.as_flattened(),
            VrrpAddrs::V6(addrs) => addrs.as_flattened(),
        }
    }
}

/// An advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VrrpRepr<'a> {
    /// Number of the virtual router, 1 to 255.
    pub vrid: u8,
    /// Priority of the sender; 255 owns the addresses, 0 is a master no longer.
    pub priority: u8,
    /// Time between advertisements in centiseconds, 1 to 4095.
    pub interval_cs: u16,
    /// The virtual addresses, 1 to 255.
    pub addrs: VrrpAddrs<'a>,
}

impl<'a> VrrpRepr<'a> {
    /// Reads an advertisement that came over IPv4, or over IPv6 if `v6`.
    ///
    /// [`WireError::BadVersion`]: not version 3. [`WireError::BadValue`]: not an advertisement, number or
    /// interval 0. [`WireError::Truncated`]: less than the addresses that are promised.
    /// [`WireError::BadLength`]: more, or none promised.
    pub fn parse<T: AsRef<[u8]>>(view: &'a VrrpView<T>, v6: bool) -> Result<Self, WireError> {
        if view.version() != VERSION {
            return Err(WireError::BadVersion);
        }
        if view.msg_type() != ADVERTISEMENT || view.vrid() == 0 || view.interval_cs() == 0 {
            return Err(WireError::BadValue);
        }
        let bytes = view.addrs_bytes();
        let count = usize::from(view.addr_count());
        let len = count * if v6 { 16 } else { 4 };
        if bytes.len() < len {
            return Err(WireError::Truncated);
        }
        if bytes.len() > len || count == 0 {
            return Err(WireError::BadLength);
        }
        Ok(VrrpRepr {
            vrid: view.vrid(),
            priority: view.priority(),
            interval_cs: view.interval_cs(),
            addrs: if v6 {
                VrrpAddrs::V6(bytes.as_chunks().0)
            } else {
                VrrpAddrs::V4(bytes.as_chunks().0)
            },
        })
    }

    /// Length of the message in bytes.
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN + self.addrs.as_bytes().len()
    }

    /// Writes the message into a buffer of exactly [`VrrpRepr::buffer_len`] bytes. The checksum is zero, as it
    /// covers addresses too: [`VrrpView::fill_checksum`]. More than 255 addresses cannot be counted.
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, view: &mut VrrpView<T>) {
        view.set_version_and_type(VERSION, ADVERTISEMENT);
        view.set_vrid(self.vrid);
        view.set_priority(self.priority);
        view.set_addr_count(self.addrs.len() as u8);
        view.set_interval_cs(self.interval_cs);
        view.set_checksum(0);
        view.addrs_bytes_mut().copy_from_slice(self.addrs.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;
    use std::vec::Vec;

    const SRC_V4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 3);
    const SRC_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 3);

    const V4: [u8; 16] = [
        0x31, 0xc6, 0x64, 0x02, 0x00, 0x64, 0xcf, 0xee, // version 3, VRID 198, priority 100, 1 s
        10, 195, 76, 227, 10, 195, 76, 228,
    ];
    const V6: [u8; 24] = [
        0x31, 0x07, 0xc8, 0x01, 0x00, 0x0a, 0xdb, 0x10, // version 3, VRID 7, priority 200, 100 ms
        0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
    ];

    fn repr_v4() -> VrrpRepr<'static> {
        VrrpRepr {
            vrid: 198,
            priority: 100,
            interval_cs: 100,
            addrs: VrrpAddrs::V4(&[[10, 195, 76, 227], [10, 195, 76, 228]]),
        }
    }

    fn repr_v6() -> VrrpRepr<'static> {
        VrrpRepr {
            vrid: 7,
            priority: 200,
            interval_cs: 10,
            addrs: VrrpAddrs::V6(&[[0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]]),
        }
    }

    /// The checksum by RFC 1071's definition, nothing of this crate in it.
    fn by_hand(parts: &[&[u8]]) -> u16 {
        let bytes: Vec<u8> = parts.concat();
        let sum: u32 = bytes
            .chunks(2)
            .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]))
            .sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        !((sum & 0xffff) as u16 + (sum >> 16) as u16)
    }

    #[test]
    fn both_ways() {
        for (repr, wire, pseudo, v6) in [
            (repr_v4(), &V4[..], Pseudo::v4(SRC_V4, GROUP_V4), false),
            (repr_v6(), &V6[..], Pseudo::v6(SRC_V6, GROUP_V6), true),
        ] {
            let view = VrrpView::new_checked(wire).expect("long enough");
            assert_eq!(VrrpRepr::parse(&view, v6), Ok(repr));
            assert!(view.verify_checksum(&pseudo));
            assert_eq!(repr.buffer_len(), wire.len());
            let mut bytes = std::vec![0xa5; wire.len()];
            let mut view = VrrpView::new_unchecked(&mut bytes);
            repr.emit(&mut view);
            assert_eq!(view.checksum(), 0);
            view.fill_checksum(&pseudo);
            assert_eq!(bytes, wire);
        }
    }

    #[test]
    fn checksums_by_hand() {
        let zeroed = |wire: &[u8]| [&wire[..6], &[0, 0], &wire[8..]].concat();
        let pseudo = [&SRC_V4.octets()[..], &GROUP_V4.octets(), &[0, 112, 0, 16]].concat();
        assert_eq!(by_hand(&[&pseudo, &zeroed(&V4)]).to_be_bytes(), V4[6..8]);
        let pseudo = [
            &SRC_V6.octets()[..],
            &GROUP_V6.octets(),
            &[0, 0, 0, 24, 0, 0, 0, 112],
        ]
        .concat();
        assert_eq!(by_hand(&[&pseudo, &zeroed(&V6)]).to_be_bytes(), V6[6..8]);
        // RFC 9568 over IPv4: of the message alone.
        let mut bytes = V4;
        let mut view = VrrpView::new_unchecked(&mut bytes);
        view.fill_checksum_of_message();
        assert!(view.verify_checksum_of_message());
        assert!(!view.verify_checksum(&Pseudo::v4(SRC_V4, GROUP_V4)));
        assert_eq!(by_hand(&[&zeroed(&V4)]).to_be_bytes(), bytes[6..8]);
    }

    /// What keepalived 2.0.12 sends, to a unicast peer here: its pseudo-header is there over IPv4.
    #[test]
    fn keepalived() {
        let wire = [
            0x31, 0x58, 0xc6, 0x01, 0x00, 0x64, 0x9c, 0x19, 0x0a, 0xc3, 0x4c, 0xe3,
        ];
        let view = VrrpView::new_checked(&wire).expect("long enough");
        let (src, dst) = (Ipv4Addr::new(10, 1, 0, 3), Ipv4Addr::new(10, 1, 0, 1));
        assert!(view.verify_checksum(&Pseudo::v4(src, dst)));
        let want = VrrpRepr {
            vrid: 88,
            priority: 198,
            interval_cs: 100,
            addrs: VrrpAddrs::V4(&[[10, 195, 76, 227]]),
        };
        assert_eq!(VrrpRepr::parse(&view, false), Ok(want));
    }

    #[test]
    fn addresses() {
        assert_eq!(GROUP_V4.to_string(), "224.0.0.18");
        assert_eq!(GROUP_V6.to_string(), "ff02::12");
        assert_eq!(GROUP_MAC_V4.to_string(), "01:00:5e:00:00:12");
        assert_eq!(GROUP_MAC_V6.to_string(), "33:33:00:00:00:12");
        assert_eq!(virtual_mac_v4(0x33).to_string(), "00:00:5e:00:01:33");
        assert_eq!(virtual_mac_v6(0x33).to_string(), "00:00:5e:00:02:33");
        let view = VrrpView::new_checked(&V4).expect("long enough");
        let repr = VrrpRepr::parse(&view, false).expect("good");
        let addrs: Vec<_> = repr.addrs.iter().map(|a| a.to_string()).collect();
        assert_eq!(addrs, ["10.195.76.227", "10.195.76.228"]);
    }

    fn parse(bytes: &[u8], v6: bool) -> Result<(), WireError> {
        VrrpRepr::parse(&VrrpView::new_checked(bytes)?, v6).map(|_| ())
    }

    #[test]
    fn refusals() {
        for len in 0..V4.len() {
            assert_eq!(parse(&V4[..len], false), Err(WireError::Truncated), "{len}");
        }
        for len in 0..V6.len() {
            assert_eq!(parse(&V6[..len], true), Err(WireError::Truncated), "{len}");
        }
        assert_eq!(parse(&[&V4[..], &[0]].concat(), false), Err(WireError::BadLength));
        assert_eq!(
            parse(&V6, false),
            Err(WireError::BadLength),
            "of the other family"
        );
        let edited = |at: usize, value: u8| {
            let mut bytes = V4;
            bytes[at] = value;
            parse(&bytes, false)
        };
        for version in [0x01, 0x21, 0x41, 0xf1] {
            assert_eq!(edited(0, version), Err(WireError::BadVersion));
        }
        for kind in [0x30, 0x32, 0x3f] {
            assert_eq!(edited(0, kind), Err(WireError::BadValue));
        }
        assert_eq!(edited(1, 0), Err(WireError::BadValue));
        assert_eq!(edited(3, 0), Err(WireError::BadLength));
        assert_eq!(edited(3, 1), Err(WireError::BadLength));
        assert_eq!(edited(3, 3), Err(WireError::Truncated));
        assert_eq!(edited(5, 0), Err(WireError::BadValue));
        // Reserved bits are ignored on receipt.
        assert_eq!(edited(4, 0xf0), Ok(()));
    }

    proptest! {
        #[test]
        fn round_trip(
            vrid in 1u8..,
            priority: u8,
            interval_cs in 1..=INTERVAL_MAX,
            v4 in prop::collection::vec(any::<[u8; 4]>(), 1..256),
            v6 in prop::collection::vec(any::<[u8; 16]>(), 1..256),
        ) {
            for (addrs, is_v6) in [(VrrpAddrs::V4(&v4), false), (VrrpAddrs::V6(&v6), true)] {
                let repr = VrrpRepr { vrid, priority, interval_cs, addrs };
                let mut bytes = std::vec![0xa5; repr.buffer_len()];
                repr.emit(&mut VrrpView::new_unchecked(&mut bytes));
                let view = VrrpView::new_checked(&bytes).expect("long enough");
                prop_assert_eq!(VrrpRepr::parse(&view, is_v6), Ok(repr));
            }
        }

        #[test]
        fn arbitrary_bytes(bytes: Vec<u8>, v6: bool) {
            if let Ok(view) = VrrpView::new_checked(&bytes)
                && let Ok(repr) = VrrpRepr::parse(&view, v6)
            {
                prop_assert_eq!(repr.buffer_len(), bytes.len());
                prop_assert_eq!(repr.addrs.iter().count(), repr.addrs.len());
            }
        }
    }
}
