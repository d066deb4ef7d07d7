//! What the kernel has dropped of what came to a UDP socket: by its filter, for a checksum that was wrong, or as its buffer
//! was full. The kernel counts all of it together.

use std::io;
use std::net::UdpSocket;

/// Whose drops are looked up: sockets by the numbers that the kernel lists them by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sockets {
    inodes: Vec<u64>,
}

impl Sockets {
    /// One more.
    ///
    /// # Errors
    ///
    /// The socket is none.
    pub(crate) fn add(&mut self, socket: &UdpSocket) -> io::Result<()> {
        self.inodes.push(rustix::fs::fstat(socket)?.st_ino);
        Ok(())
    }

    /// Datagrams that the kernel dropped of these sockets since they were opened; 0 where it does not say.
    pub(crate) fn dropped(&self) -> u64 {
        // One family has its sockets in one of the files, the other one in the other.
        let lists = ["/proc/self/net/udp", "/proc/self/net/udp6"];
        let lists = lists.iter().filter_map(|path| std::fs::read_to_string(path).ok());
        lists.map(|list| self.sum(&list)).sum()
    }

    /// Of one list.
    fn sum(&self, list: &str) -> u64 {
        let drops = list.lines().filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            // sl local remote st tx:rx tr:when retrnsmt uid timeout inode ref pointer drops
            let inode: u64 = words.nth(9)?.parse().ok()?;
            let drops: u64 = words.nth(2)?.parse().ok()?;
            self.inodes.contains(&inode).then_some(drops)
        });
        drops.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_those_of_the_sockets() {
        let list = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
                    \x20 12: 0100FF0A:12B6 0200FF0A:12B6 01 00000000:00000000 00:00000000 00000000  1000        0 4711 2 0000000000000000 310\n\
                    \x20 12: 0100FF0A:12B6 00000000:0000 07 00000000:00000900 00:00000000 00000000     0        0 4712 2 0000000000000000 7\n\
                    \x20 13: 0100FF0A:12B7 00000000:0000 07\n";
        let of = |inodes: &[u64]| {
            Sockets {
                inodes: inodes.to_vec(),
            }
            .sum(list)
        };
        assert_eq!(
            (of(&[]), of(&[4711]), of(&[4712, 4713]), of(&[4711, 4712])),
            (0, 310, 7, 317)
        );
        assert_eq!(Sockets { inodes: vec![1] }.sum("what is this"), 0);
    }

    #[test]
    fn what_a_filter_drops_is_seen() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(to) = UdpSocket::bind(host) else {
                println!("SKIP: no {host} here");
                continue;
            };
            let mut sockets = Sockets::default();
            sockets.add(&to).expect("a socket");
            let from = UdpSocket::bind(host).expect("loopback has room");
            assert_eq!(sockets.dropped(), 0);
            socket2::SockRef::from(&to)
                .attach_filter(&crate::datagram::drop_all())
                .expect("the kernel takes the filter");
            let at = to.local_addr().expect("it has one");
            for _ in 0..100 {
                from.send_to(b"anything", at).expect("sent");
            }
            // They may be on their way for a moment.
            while sockets.dropped() < 100 {
                std::thread::yield_now();
            }
            assert_eq!(sockets.dropped(), 100, "{host}");
        }
    }
}
