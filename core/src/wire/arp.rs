//! ARP (RFC 826) of IPv4 over Ethernet, for answering for owned addresses and learning neighbours.

use core::net::Ipv4Addr;

use crate::wire::bytes::{read, read_u16, write};
use crate::wire::{EtherType, MacAddr, WireError};

mod field {
    use crate::wire::bytes::Field;

    pub(super) const HARDWARE_TYPE: Field = 0..2;
    pub(super) const PROTOCOL_TYPE: Field = 2..4;
    pub(super) const HARDWARE_LEN: usize = 4;
    pub(super) const PROTOCOL_LEN: usize = 5;
    pub(super) const OPERATION: Field = 6..8;
    pub(super) const SENDER_MAC: Field = 8..14;
    pub(super) const SENDER_IP: Field = 14..18;
    pub(super) const TARGET_MAC: Field = 18..24;
    pub(super) const TARGET_IP: Field = 24..28;
}

/// Length of a packet in bytes.
pub const PACKET_LEN: usize = field::TARGET_IP.end;

/// Hardware type of Ethernet.
const ETHERNET: u16 = 1;

/// What the sender wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArpOperation {
    /// Who has the target address? 1 on the wire.
    Request,
    /// The sender has it. 2 on the wire.
    Reply,
    /// Others, as reverse ARP.
    Other(u16),
}

impl From<u16> for ArpOperation {
    fn from(n: u16) -> Self {
        match n {
            1 => ArpOperation::Request,
            2 => ArpOperation::Reply,
            n => ArpOperation::Other(n),
        }
    }
}

impl From<ArpOperation> for u16 {
    fn from(op: ArpOperation) -> u16 {
        match op {
            ArpOperation::Request => 1,
            ArpOperation::Reply => 2,
            ArpOperation::Other(n) => n,
        }
    }
}

/// A view of an ARP packet.
#[derive(Clone, Copy, Debug)]
pub struct ArpView<T> {
    buffer: T,
}

impl<T: AsRef<[u8]>> ArpView<T> {
    /// A view without a check; accessors panic on a buffer shorter than [`PACKET_LEN`].
    pub const fn new_unchecked(buffer: T) -> Self {
        ArpView { buffer }
    }

    /// A view of a packet. [`WireError::Truncated`] below 28 bytes, [`WireError::BadValue`] for other
    /// hardware than Ethernet or another protocol than IPv4, whose fields lie elsewhere.
    pub fn new_checked(buffer: T) -> Result<Self, WireError> {
        let data = buffer.as_ref();
        if data.len() < PACKET_LEN {
            return Err(WireError::Truncated);
        }
        let ours = read_u16(data, field::HARDWARE_TYPE) == ETHERNET
            && read_u16(data, field::PROTOCOL_TYPE) == EtherType::IPV4.0
            && data[field::HARDWARE_LEN] == 6
            && data[field::PROTOCOL_LEN] == 4;
        if ours {
            Ok(ArpView { buffer })
        } else {
            Err(WireError::BadValue)
        }
    }

    /// What the sender wants.
    pub fn operation(&self) -> ArpOperation {
        read_u16(self.buffer.as_ref(), field::OPERATION).into()
    }

    /// Hardware address of the sender.
    pub fn sender_mac(&self) -> MacAddr {
        MacAddr(read(self.buffer.as_ref(), field::SENDER_MAC))
    }

    /// IPv4 address of the sender; 0.0.0.0 in a probe (RFC 5227).
    pub fn sender_ip(&self) -> Ipv4Addr {
        read::<4>(self.buffer.as_ref(), field::SENDER_IP).into()
    }

    /// Hardware address of the target; not defined in requests.
    pub fn target_mac(&self) -> MacAddr {
        MacAddr(read(self.buffer.as_ref(), field::TARGET_MAC))
    }

    /// IPv4 address of the target.
    pub fn target_ip(&self) -> Ipv4Addr {
        read::<4>(self.buffer.as_ref(), field::TARGET_IP).into()
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> ArpView<T> {
    /// Writes the constants of IPv4 over Ethernet.
    pub fn set_types(&mut self) {
        let data = self.buffer.as_mut();
        write(data, field::HARDWARE_TYPE, ETHERNET.to_be_bytes());
        write(data, field::PROTOCOL_TYPE, EtherType::IPV4.0.to_be_bytes());
        data[field::HARDWARE_LEN] = 6;
        data[field::PROTOCOL_LEN] = 4;
    }

    /// Sets the operation.
    pub fn set_operation(&mut self, operation: ArpOperation) {
        write(
            self.buffer.as_mut(),
            field::OPERATION,
            u16::from(operation).to_be_bytes(),
        );
    }

    /// Sets the hardware address of the sender.
    pub fn set_sender_mac(&mut self, mac: MacAddr) {
        write(self.buffer.as_mut(), field::SENDER_MAC, mac.0);
    }

    /// Sets the IPv4 address of the sender.
    pub fn set_sender_ip(&mut self, ip: Ipv4Addr) {
        write(self.buffer.as_mut(), field::SENDER_IP, ip.octets());
    }

    /// Sets the hardware address of the target.
    pub fn set_target_mac(&mut self, mac: MacAddr) {
        write(self.buffer.as_mut(), field::TARGET_MAC, mac.0);
    }

    /// Sets the IPv4 address of the target.
    pub fn set_target_ip(&mut self, ip: Ipv4Addr) {
        write(self.buffer.as_mut(), field::TARGET_IP, ip.octets());
    }
}

/// An ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpRepr {
    /// What the sender wants.
    pub operation: ArpOperation,
    /// Hardware address of the sender.
    pub sender_mac: MacAddr,
    /// IPv4 address of the sender.
    pub sender_ip: Ipv4Addr,
    /// Hardware address of the target; zero in requests.
    pub target_mac: MacAddr,
    /// IPv4 address of the target.
    pub target_ip: Ipv4Addr,
}

impl ArpRepr {
    /// Reads a packet. A sender address that is a group address is [`WireError::BadValue`]: learning it
    /// would turn unicast into flooding.
    pub fn parse<T: AsRef<[u8]>>(view: &ArpView<T>) -> Result<Self, WireError> {
        if view.sender_mac().is_multicast() {
            return Err(WireError::BadValue);
        }
        Ok(ArpRepr {
            operation: view.operation(),
            sender_mac: view.sender_mac(),
            sender_ip: view.sender_ip(),
            target_mac: view.target_mac(),
            target_ip: view.target_ip(),
        })
    }

    /// Length of the packet in bytes.
    pub const fn buffer_len(&self) -> usize {
        PACKET_LEN
    }

    /// Writes the packet.
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, view: &mut ArpView<T>) {
        view.set_types();
        view.set_operation(self.operation);
        view.set_sender_mac(self.sender_mac);
        view.set_sender_ip(self.sender_ip);
        view.set_target_mac(self.target_mac);
        view.set_target_ip(self.target_ip);
    }

    /// The answer to this request by the owner of its target address.
    pub const fn reply_from(&self, owner: MacAddr) -> Self {
        ArpRepr {
            operation: ArpOperation::Reply,
            sender_mac: owner,
            sender_ip: self.target_ip,
            target_mac: self.sender_mac,
            target_ip: self.sender_ip,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: [u8; 28] = [
        0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x01, // Ethernet, IPv4, request
        0x02, 0x00, 0x00, 0x00, 0x00, 0x01, 192, 0, 2, 1, // sender
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 192, 0, 2, 9, // target
    ];

    fn request() -> ArpRepr {
        ArpRepr {
            operation: ArpOperation::Request,
            sender_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            sender_ip: Ipv4Addr::new(192, 0, 2, 1),
            target_mac: MacAddr::ZERO,
            target_ip: Ipv4Addr::new(192, 0, 2, 9),
        }
    }

    #[test]
    fn both_ways() {
        let view = ArpView::new_checked(&REQUEST).expect("a request");
        assert_eq!(ArpRepr::parse(&view), Ok(request()));
        let mut bytes = [0xa5; 28];
        request().emit(&mut ArpView::new_unchecked(&mut bytes));
        assert_eq!(bytes, REQUEST);
    }

    #[test]
    fn the_owner_answers() {
        let owner = MacAddr([2, 0, 0, 0, 0, 9]);
        let reply = request().reply_from(owner);
        let mut bytes = [0; 28];
        reply.emit(&mut ArpView::new_unchecked(&mut bytes));
        assert_eq!(bytes[7], 2);
        assert_eq!(bytes[8..18], [2, 0, 0, 0, 0, 9, 192, 0, 2, 9]);
        assert_eq!(bytes[18..28], REQUEST[8..18]);
    }

    #[test]
    fn refusals() {
        assert_eq!(
            ArpView::new_checked(&REQUEST[..27]).err(),
            Some(WireError::Truncated)
        );
        for at in [0, 1, 2, 3, 4, 5] {
            let mut other = REQUEST;
            other[at] ^= 0x10;
            assert_eq!(
                ArpView::new_checked(&other).err(),
                Some(WireError::BadValue),
                "byte {at}"
            );
        }
        let mut group = REQUEST;
        group[8] |= 1;
        let view = ArpView::new_checked(&group).expect("fields fit");
        assert_eq!(ArpRepr::parse(&view), Err(WireError::BadValue));
    }
}
