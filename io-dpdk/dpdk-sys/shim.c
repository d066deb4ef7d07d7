/*
 * What Rust cannot call by itself: DPDK's static inlines, and the ethdev structs whose layout differs from
 * release to release. Every function here is one DPDK call, or the few that always go together; policy
 * lives in the Rust crates above. Written against 22.11; nothing is used that 23.11 or 24.11 lacks.
 *
 * Errors are negative errno values. src/ffi.rs declares the same functions; the assertions at the top
 * guard the structs that both sides share.
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mbuf_dyn.h>
#include <rte_mempool.h>
#include <rte_version.h>

/* --- the hot half of an mbuf, read and written by Rust directly (struct RteMbuf) --- */

#define AT(field, offset, width)                                                        \
	_Static_assert(offsetof(struct rte_mbuf, field) == (offset), #field " has moved");  \
	_Static_assert(sizeof(((struct rte_mbuf *)0)->field) == (width), #field " has another width")

AT(buf_addr, 0, 8);
AT(data_off, 16, 2);
AT(refcnt, 18, 2);
AT(nb_segs, 20, 2);
AT(port, 22, 2);
AT(ol_flags, 24, 8);
AT(packet_type, 32, 4);
AT(pkt_len, 36, 4);
AT(data_len, 40, 2);
AT(vlan_tci, 42, 2);
AT(hash.rss, 44, 4);
AT(vlan_tci_outer, 52, 2);
AT(buf_len, 54, 2);
AT(pool, 56, 8);
_Static_assert(sizeof(struct rte_mbuf) >= 128, "an mbuf is at least two cache lines");

_Static_assert(RTE_PKTMBUF_HEADROOM >= 128, "core promises 128 bytes of headroom");
_Static_assert(RTE_MBUF_F_RX_RSS_HASH == 1ULL << 1, "flag has moved");
_Static_assert(RTE_MBUF_F_RX_L4_CKSUM_BAD == 1ULL << 3, "flag has moved");
_Static_assert(RTE_MBUF_F_RX_IP_CKSUM_BAD == 1ULL << 4, "flag has moved");
_Static_assert(RTE_MBUF_F_RX_IP_CKSUM_GOOD == 1ULL << 7, "flag has moved");
_Static_assert(RTE_MBUF_F_RX_L4_CKSUM_GOOD == 1ULL << 8, "flag has moved");
_Static_assert(RTE_MBUF_F_EXTERNAL == 1ULL << 61, "flag has moved");
_Static_assert(RTE_MBUF_F_INDIRECT == 1ULL << 62, "flag has moved");

/* --- structs of our own, mirrored in ffi.rs --- */

struct ekd_port_info {
	uint16_t rx_desc;      /* in: wanted, out: granted */
	uint16_t tx_desc;      /* in: wanted, out: granted */
	uint16_t mtu;
	uint8_t mac[6];
	uint8_t tx_multi_seg;  /* the driver takes chained frames */
	char driver[31];       /* cut if longer, always ended by a zero */
};
_Static_assert(sizeof(struct ekd_port_info) == 44, "mirrored as 44 bytes");

struct ekd_link {
	uint32_t speed_mbps;
	uint8_t up;
	uint8_t full_duplex;
	uint8_t reserved[2];
};
_Static_assert(sizeof(struct ekd_link) == 8, "mirrored as 8 bytes");

struct ekd_stats {
	uint64_t rx_packets, tx_packets, rx_bytes, tx_bytes;
	uint64_t rx_missed, rx_errors, tx_errors, rx_no_mbuf;
};
_Static_assert(sizeof(struct ekd_stats) == 64, "mirrored as 64 bytes");

static int last_error(void)
{
	return rte_errno > 0 ? -rte_errno : -EIO;
}

/* --- EAL --- */

int ekd_eal_init(int argc, char **argv)
{
	return rte_eal_init(argc, argv) < 0 ? last_error() : 0;
}

int ekd_eal_cleanup(void)
{
	return rte_eal_cleanup();
}

const char *ekd_strerror(int err)
{
	return rte_strerror(err < 0 ? -err : err);
}

const char *ekd_version(void)
{
	return rte_version();
}

int ekd_thread_register(void)
{
	return rte_thread_register() < 0 ? last_error() : 0;
}

void ekd_thread_unregister(void)
{
	rte_thread_unregister();
}

uint32_t ekd_lcore_id(void)
{
	return rte_lcore_id();
}

/* --- mempools --- */

struct rte_mempool *ekd_pool_create(const char *name, uint32_t count, uint32_t cache, uint16_t data_room,
				    int *err)
{
	struct rte_mempool *pool =
		rte_pktmbuf_pool_create(name, count, cache, 0, data_room, SOCKET_ID_ANY);

	*err = pool == NULL ? last_error() : 0;
	return pool;
}

void ekd_pool_free(struct rte_mempool *pool)
{
	rte_mempool_free(pool);
}

uint32_t ekd_pool_avail(const struct rte_mempool *pool)
{
	return rte_mempool_avail_count(pool);
}

/* --- ports --- */

int ekd_port_by_name(const char *name, uint16_t *port)
{
	return rte_eth_dev_get_port_by_name(name, port);
}

/* The first port at or after `from`, its name in `name` (RTE_ETH_NAME_MAX_LEN bytes); -ENODEV: no more. */
int ekd_port_next(uint16_t from, uint16_t *port, char *name)
{
	uint16_t id = from >= RTE_MAX_ETHPORTS ? RTE_MAX_ETHPORTS : (uint16_t)rte_eth_find_next(from);

	if (id >= RTE_MAX_ETHPORTS)
		return -ENODEV;
	*port = id;
	return rte_eth_dev_get_name_by_port(id, name);
}
_Static_assert(RTE_ETH_NAME_MAX_LEN == 64, "mirrored as 64 bytes");

/* One receive and one transmit queue, no offload but chained frames where the driver has them. */
int ekd_port_configure(uint16_t port, struct rte_mempool *pool, struct ekd_port_info *io)
{
	struct rte_eth_dev_info info;
	struct rte_eth_conf conf;
	struct rte_ether_addr mac;
	int socket = rte_eth_dev_socket_id(port);
	int rc = rte_eth_dev_info_get(port, &info);

	if (rc != 0)
		return rc;
	memset(&conf, 0, sizeof(conf));
	conf.rxmode.mq_mode = RTE_ETH_MQ_RX_NONE;
	conf.txmode.mq_mode = RTE_ETH_MQ_TX_NONE;
	conf.txmode.offloads = info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
	rc = rte_eth_dev_configure(port, 1, 1, &conf);
	if (rc != 0)
		return rc;
	rc = rte_eth_dev_adjust_nb_rx_tx_desc(port, &io->rx_desc, &io->tx_desc);
	if (rc != 0)
		return rc;
	info.default_rxconf.offloads = conf.rxmode.offloads;
	rc = rte_eth_rx_queue_setup(port, 0, io->rx_desc, socket, &info.default_rxconf, pool);
	if (rc != 0)
		return rc;
	info.default_txconf.offloads = conf.txmode.offloads;
	rc = rte_eth_tx_queue_setup(port, 0, io->tx_desc, socket, &info.default_txconf);
	if (rc != 0)
		return rc;
	rc = rte_eth_macaddr_get(port, &mac);
	if (rc != 0)
		return rc;
	memcpy(io->mac, mac.addr_bytes, sizeof(io->mac));
	rc = rte_eth_dev_get_mtu(port, &io->mtu);
	if (rc != 0)
		return rc;
	io->tx_multi_seg = conf.txmode.offloads != 0;
	memset(io->driver, 0, sizeof(io->driver));
	if (info.driver_name != NULL)
		strncpy(io->driver, info.driver_name, sizeof(io->driver) - 1);
	return 0;
}

int ekd_port_start(uint16_t port)
{
	return rte_eth_dev_start(port);
}

int ekd_port_stop(uint16_t port)
{
	return rte_eth_dev_stop(port);
}

int ekd_port_close(uint16_t port)
{
	return rte_eth_dev_close(port);
}

int ekd_port_link(uint16_t port, struct ekd_link *out)
{
	struct rte_eth_link link;
	int rc;

	memset(&link, 0, sizeof(link));
	rc = rte_eth_link_get_nowait(port, &link);
	memset(out, 0, sizeof(*out));
	out->speed_mbps = link.link_speed;
	out->up = link.link_status == RTE_ETH_LINK_UP;
	out->full_duplex = link.link_duplex == RTE_ETH_LINK_FULL_DUPLEX;
	return rc;
}

int ekd_port_stats(uint16_t port, struct ekd_stats *out)
{
	struct rte_eth_stats stats;
	int rc;

	memset(&stats, 0, sizeof(stats));
	rc = rte_eth_stats_get(port, &stats);
	out->rx_packets = stats.ipackets;
	out->tx_packets = stats.opackets;
	out->rx_bytes = stats.ibytes;
	out->tx_bytes = stats.obytes;
	out->rx_missed = stats.imissed;
	out->rx_errors = stats.ierrors;
	out->tx_errors = stats.oerrors;
	out->rx_no_mbuf = stats.rx_nombuf;
	return rc;
}

uint16_t ekd_rx_burst(uint16_t port, struct rte_mbuf **frames, uint16_t count)
{
	return rte_eth_rx_burst(port, 0, frames, count);
}

uint16_t ekd_tx_burst(uint16_t port, struct rte_mbuf **frames, uint16_t count)
{
	return rte_eth_tx_burst(port, 0, frames, count);
}

/* --- mbufs --- */

struct rte_mbuf *ekd_mbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

void ekd_mbuf_free(struct rte_mbuf *m)
{
	rte_pktmbuf_free(m);
}

void ekd_mbuf_free_bulk(struct rte_mbuf **frames, uint32_t count)
{
	rte_pktmbuf_free_bulk(frames, count);
}

/* A deep copy with full headroom, unshared, as few segments as the pool's rooms allow; NULL: pool empty. */
struct rte_mbuf *ekd_mbuf_copy(const struct rte_mbuf *m, struct rte_mempool *pool)
{
	return rte_pktmbuf_copy(m, pool, 0, UINT32_MAX);
}

struct rte_mbuf *ekd_mbuf_next(const struct rte_mbuf *m)
{
	/* Not in the Rust mirror: builds without IOVA in the mbuf keep it in the first cache line. */
	return m->next;
}

char *ekd_mbuf_prepend(struct rte_mbuf *m, uint16_t len)
{
	return rte_pktmbuf_prepend(m, len);
}

char *ekd_mbuf_adj(struct rte_mbuf *m, uint16_t len)
{
	return rte_pktmbuf_adj(m, len);
}

char *ekd_mbuf_append(struct rte_mbuf *m, uint16_t len)
{
	return rte_pktmbuf_append(m, len);
}

/* Cuts a chain to `len` bytes; rte_pktmbuf_trim() cuts within the last segment only. */
void ekd_mbuf_truncate(struct rte_mbuf *m, uint32_t len)
{
	struct rte_mbuf *seg = m, *rest;
	uint32_t left = len;
	uint16_t kept = 1;

	if (len >= m->pkt_len)
		return;
	while (left > seg->data_len && seg->next != NULL) {
		left -= seg->data_len;
		seg = seg->next;
		kept++;
	}
	seg->data_len = (uint16_t)left;
	rest = seg->next;
	seg->next = NULL;
	m->nb_segs = kept;
	m->pkt_len = len;
	while (rest != NULL) {
		struct rte_mbuf *next = rest->next;

		rte_pktmbuf_free_seg(rest);
		rest = next;
	}
}

/*
 * Moves bytes from later segments into the first until that holds `want` bytes, or all. The caller owns
 * the whole chain unshared. -ENOSPC: the first buffer has not that much behind RTE_PKTMBUF_HEADROOM.
 */
int ekd_mbuf_pull_up(struct rte_mbuf *m, uint16_t want)
{
	if (want > m->pkt_len)
		want = (uint16_t)m->pkt_len;
	if (m->data_len >= want)
		return 0;
	if (m->buf_len < m->data_off + want) {
		if (m->buf_len < RTE_PKTMBUF_HEADROOM + want)
			return -ENOSPC;
		memmove((char *)m->buf_addr + RTE_PKTMBUF_HEADROOM, rte_pktmbuf_mtod(m, char *), m->data_len);
		m->data_off = RTE_PKTMBUF_HEADROOM;
	}
	while (m->data_len < want && m->next != NULL) {
		struct rte_mbuf *seg = m->next;
		uint16_t part = RTE_MIN((uint16_t)(want - m->data_len), seg->data_len);

		memcpy(rte_pktmbuf_mtod(m, char *) + m->data_len, rte_pktmbuf_mtod(seg, char *), part);
		m->data_len += part;
		seg->data_off += part;
		seg->data_len -= part;
		if (seg->data_len == 0) {
			m->next = seg->next;
			m->nb_segs--;
			rte_pktmbuf_free_seg(seg);
		}
	}
	return 0;
}

/* DPDK's own opinion of a frame: NULL if it is well-formed. */
const char *ekd_mbuf_check(const struct rte_mbuf *m)
{
	const char *reason = "unknown";

	return rte_mbuf_check(m, 1, &reason) == 0 ? NULL : reason;
}

/*
 * Where a driver puts receive timestamps, and the flag that says it did. The field is registered by the
 * first driver that stamps; -ENOENT: none has.
 */
int ekd_rx_timestamp(int32_t *offset, uint64_t *flag)
{
	int at = rte_mbuf_dynfield_lookup(RTE_MBUF_DYNFIELD_TIMESTAMP_NAME, NULL);
	int bit = rte_mbuf_dynflag_lookup(RTE_MBUF_DYNFLAG_RX_TIMESTAMP_NAME, NULL);

	if (at < 0 || bit < 0)
		return -ENOENT;
	*offset = at;
	*flag = 1ULL << bit;
	return 0;
}
