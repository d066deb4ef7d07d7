/*
 * What Rust cannot call by itself: DPDK's static inlines, and the ethdev structs whose layout differs from
 * release to release. Every function here is one DPDK call, or the few that always go together; policy
 * lives in the Rust crates above. Written against 22.11; nothing is used that 23.11 or 24.11 lacks.
 *
 * Errors are negative errno values. src/ffi.rs declares the same functions; the assertions at the top
 * guard the structs that both sides share.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* fopencookie */
#endif
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_lcore.h>
#include <rte_log.h>
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
AT(hash.fdir.hi, 48, 4);
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
_Static_assert(RTE_MBUF_F_TX_TCP_CKSUM == 1ULL << 52, "flag has moved");
_Static_assert(RTE_MBUF_F_TX_UDP_CKSUM == 3ULL << 52, "flag has moved");
_Static_assert(RTE_MBUF_F_TX_L4_MASK == 3ULL << 52, "flag has moved");
_Static_assert(RTE_MBUF_F_TX_IP_CKSUM == 1ULL << 54, "flag has moved");
_Static_assert(RTE_MBUF_F_TX_IPV4 == 1ULL << 55, "flag has moved");
_Static_assert(RTE_MBUF_F_TX_IPV6 == 1ULL << 56, "flag has moved");
_Static_assert(RTE_MBUF_F_EXTERNAL == 1ULL << 61, "flag has moved");
_Static_assert(RTE_MBUF_F_INDIRECT == 1ULL << 62, "flag has moved");

/* --- structs of our own, mirrored in ffi.rs --- */

struct ekd_port_caps {
	int32_t socket;        /* NUMA socket, -1: any */
	uint16_t rx_queues;    /* at most */
	uint16_t tx_queues;    /* at most */
	uint16_t reta_size;    /* entries of the table that RSS chooses queues by, 0: no RSS that can be configured */
	uint8_t key_len;       /* bytes of the RSS key, 0: not said */
	char driver[33];       /* cut if longer, always ended by a zero */
};
_Static_assert(sizeof(struct ekd_port_caps) == 44, "mirrored as 44 bytes");

struct ekd_port_setup {
	const uint8_t *key;    /* in: of RSS; NULL: no RSS */
	uint16_t rx_queues;    /* in */
	uint16_t tx_queues;    /* in */
	uint16_t rx_desc;      /* in: wanted, out: granted */
	uint16_t tx_desc;      /* in: wanted, out: granted */
	uint16_t mtu;          /* in: wanted, 0: as it is; out: in force */
	uint8_t key_len;       /* in */
	uint8_t mac[6];        /* out */
	uint8_t tx_multi_seg;  /* out: the driver takes chained frames */
	uint8_t tx_checksum;   /* out: 1: TCP, 2: UDP */
	uint8_t rx_hash;       /* out: the driver reports hashes */
};
_Static_assert(sizeof(struct ekd_port_setup) == 32, "mirrored as 32 bytes");

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

/* --- what DPDK says: the last 16 KiB of its log, to be asked for; nothing of it goes to stderr --- */

static struct {
	pthread_mutex_t lock;
	size_t len;
	/* Whether the last line has no end yet. */
	int open;
	char text[16384];
} said = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void said_append(const char *bytes, size_t count)
{
	size_t part = RTE_MIN(count, sizeof(said.text));

	if (part > sizeof(said.text) - said.len) {
		size_t gone = part - (sizeof(said.text) - said.len);

		memmove(said.text, said.text + gone, said.len - gone);
		said.len -= gone;
	}
	memcpy(said.text + said.len, bytes + (count - part), part);
	said.len += part;
}

/* A message begins with its level, as `<5>`. DPDK writes a message at once, on the thread that has it. */
static ssize_t said_write(void *cookie, const char *bytes, size_t count)
{
	int level = rte_log_cur_msg_loglevel();
	char mark[3] = {'<', (char)('0' + level), '>'};

	(void)cookie;
	if (count == 0)
		return 0;
	pthread_mutex_lock(&said.lock);
	if (!said.open && level >= 1 && level <= 8)
		said_append(mark, sizeof(mark));
	said_append(bytes, count);
	said.open = bytes[count - 1] != '\n';
	pthread_mutex_unlock(&said.lock);
	return (ssize_t)count;
}

/* To be called before ekd_eal_init(), once. */
int ekd_log_capture(void)
{
	cookie_io_functions_t io = {.write = said_write};
	FILE *stream = fopencookie(NULL, "w", io);

	if (stream == NULL)
		return -ENOMEM;
	return rte_openlog_stream(stream);
}

/* Moves what was said into `into`, as much as fits, oldest first; returns how many bytes. */
uint32_t ekd_log_take(char *into, uint32_t room)
{
	size_t part;

	pthread_mutex_lock(&said.lock);
	part = RTE_MIN((size_t)room, said.len);
	memcpy(into, said.text, part);
	memmove(said.text, said.text + part, said.len - part);
	said.len -= part;
	pthread_mutex_unlock(&said.lock);
	return (uint32_t)part;
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
				    int socket, int *err)
{
	struct rte_mempool *pool =
		rte_pktmbuf_pool_create(name, count, cache, 0, data_room, socket);

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

/* What RSS is to hash: the four-tuple of TCP and UDP, which the engine's buckets are made of. */
#define RSS_TYPES (RTE_ETH_RSS_NONFRAG_IPV4_TCP | RTE_ETH_RSS_NONFRAG_IPV4_UDP | \
		   RTE_ETH_RSS_NONFRAG_IPV6_TCP | RTE_ETH_RSS_NONFRAG_IPV6_UDP)

int ekd_port_caps(uint16_t port, struct ekd_port_caps *out)
{
	struct rte_eth_dev_info info;
	int rc = rte_eth_dev_info_get(port, &info);

	memset(out, 0, sizeof(*out));
	if (rc != 0)
		return rc;
	out->socket = rte_eth_dev_socket_id(port);
	out->rx_queues = info.max_rx_queues;
	out->tx_queues = info.max_tx_queues;
	out->reta_size = (info.flow_type_rss_offloads & RSS_TYPES) != 0 ? info.reta_size : 0;
	out->key_len = info.hash_key_size;
	if (info.driver_name != NULL)
		strncpy(out->driver, info.driver_name, sizeof(out->driver) - 1);
	return 0;
}

/* Frames longer than a buffer's room need the driver's leave to be scattered over several. */
#define L2_LEN_MAX (RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN + 2 * 4)

int ekd_port_configure(uint16_t port, struct rte_mempool *pool, struct ekd_port_setup *io)
{
	const uint64_t rx_checksum = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM |
				     RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
	struct rte_eth_dev_info info;
	struct rte_eth_conf conf;
	struct rte_ether_addr mac;
	uint16_t mtu = io->mtu != 0 ? io->mtu : RTE_ETHER_MTU;
	int socket = rte_eth_dev_socket_id(port);
	uint16_t queue;
	int rc = rte_eth_dev_info_get(port, &info);

	if (rc != 0)
		return rc;
	memset(&conf, 0, sizeof(conf));
	conf.rxmode.mq_mode = RTE_ETH_MQ_RX_NONE;
	conf.txmode.mq_mode = RTE_ETH_MQ_TX_NONE;
	conf.rxmode.mtu = io->mtu;
	conf.rxmode.offloads = info.rx_offload_capa & rx_checksum;
	if (mtu + L2_LEN_MAX > rte_pktmbuf_data_room_size(pool) - RTE_PKTMBUF_HEADROOM)
		conf.rxmode.offloads |= info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_SCATTER;
	conf.txmode.offloads = info.tx_offload_capa & (RTE_ETH_TX_OFFLOAD_MULTI_SEGS |
						       RTE_ETH_TX_OFFLOAD_TCP_CKSUM |
						       RTE_ETH_TX_OFFLOAD_UDP_CKSUM);
	if (io->key != NULL) {
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		conf.rxmode.offloads |= info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_RSS_HASH;
		conf.rx_adv_conf.rss_conf.rss_key = (uint8_t *)(uintptr_t)io->key;
		conf.rx_adv_conf.rss_conf.rss_key_len = io->key_len;
		conf.rx_adv_conf.rss_conf.rss_hf = info.flow_type_rss_offloads & RSS_TYPES;
	}
	rc = rte_eth_dev_configure(port, io->rx_queues, io->tx_queues, &conf);
	if (rc != 0)
		return rc;
	rc = rte_eth_dev_adjust_nb_rx_tx_desc(port, &io->rx_desc, &io->tx_desc);
	if (rc != 0)
		return rc;
	info.default_rxconf.offloads = conf.rxmode.offloads;
	for (queue = 0; queue < io->rx_queues; queue++) {
		rc = rte_eth_rx_queue_setup(port, queue, io->rx_desc, socket, &info.default_rxconf, pool);
		if (rc != 0)
			return rc;
	}
	info.default_txconf.offloads = conf.txmode.offloads;
	for (queue = 0; queue < io->tx_queues; queue++) {
		rc = rte_eth_tx_queue_setup(port, queue, io->tx_desc, socket, &info.default_txconf);
		if (rc != 0)
			return rc;
	}
	rc = rte_eth_macaddr_get(port, &mac);
	if (rc != 0)
		return rc;
	memcpy(io->mac, mac.addr_bytes, sizeof(io->mac));
	/* Drivers over an interface of the kernel take an MTU here only; others have it from the configuration. */
	rc = io->mtu != 0 ? rte_eth_dev_set_mtu(port, io->mtu) : 0;
	if (rc != 0 && rc != -ENOTSUP)
		return rc;
	rc = rte_eth_dev_get_mtu(port, &io->mtu);
	if (rc != 0)
		return rc;
	io->tx_multi_seg = (conf.txmode.offloads & RTE_ETH_TX_OFFLOAD_MULTI_SEGS) != 0;
	io->tx_checksum = ((conf.txmode.offloads & RTE_ETH_TX_OFFLOAD_TCP_CKSUM) != 0 ? 1 : 0) |
			  ((conf.txmode.offloads & RTE_ETH_TX_OFFLOAD_UDP_CKSUM) != 0 ? 2 : 0);
	io->rx_hash = (conf.rxmode.offloads & RTE_ETH_RX_OFFLOAD_RSS_HASH) != 0;
	return 0;
}

/* What is no frame of ours by its destination comes too. */
int ekd_port_promiscuous(uint16_t port)
{
	return rte_eth_promiscuous_enable(port);
}

/* Frames to one more address come, too. */
int ekd_port_mac_add(uint16_t port, const uint8_t *mac)
{
	struct rte_ether_addr address;

	memcpy(address.addr_bytes, mac, sizeof(address.addr_bytes));
	return rte_eth_dev_mac_addr_add(port, &address, 0);
}

/* Back to what it was: drivers over an interface of the kernel leave it as they set it. */
void ekd_port_not_promiscuous(uint16_t port)
{
	rte_eth_promiscuous_disable(port);
}

void ekd_port_allmulticast(uint16_t port)
{
	rte_eth_allmulticast_enable(port);
}

#define RETA_GROUPS_MAX (RTE_ETH_RSS_RETA_SIZE_512 / RTE_ETH_RETA_GROUP_SIZE)

/* Sends what falls into entry i of the started port's table to `queues[i]`; `count` is the table's size. */
int ekd_port_set_reta(uint16_t port, const uint16_t *queues, uint16_t count)
{
	struct rte_eth_rss_reta_entry64 groups[RETA_GROUPS_MAX];
	uint16_t i;

	if (count > RTE_ETH_RSS_RETA_SIZE_512)
		return -ENOTSUP;
	memset(groups, 0, sizeof(groups));
	for (i = 0; i < count; i++) {
		groups[i / RTE_ETH_RETA_GROUP_SIZE].mask |= 1ULL << (i % RTE_ETH_RETA_GROUP_SIZE);
		groups[i / RTE_ETH_RETA_GROUP_SIZE].reta[i % RTE_ETH_RETA_GROUP_SIZE] = queues[i];
	}
	return rte_eth_dev_rss_reta_update(port, groups, count);
}

/* The table as the driver has it. */
int ekd_port_reta(uint16_t port, uint16_t *queues, uint16_t count)
{
	struct rte_eth_rss_reta_entry64 groups[RETA_GROUPS_MAX];
	uint16_t i;
	int rc;

	if (count > RTE_ETH_RSS_RETA_SIZE_512)
		return -ENOTSUP;
	memset(groups, 0, sizeof(groups));
	for (i = 0; i < count; i++)
		groups[i / RTE_ETH_RETA_GROUP_SIZE].mask |= 1ULL << (i % RTE_ETH_RETA_GROUP_SIZE);
	rc = rte_eth_dev_rss_reta_query(port, groups, count);
	for (i = 0; rc == 0 && i < count; i++)
		queues[i] = groups[i / RTE_ETH_RETA_GROUP_SIZE].reta[i % RTE_ETH_RETA_GROUP_SIZE];
	return rc;
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

uint16_t ekd_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t count)
{
	return rte_eth_rx_burst(port, queue, frames, count);
}

uint16_t ekd_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, frames, count);
}

/* How many of the frames, from the first, can be sent as they ask for it. */
uint16_t ekd_tx_prepare(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t count)
{
	return rte_eth_tx_prepare(port, queue, frames, count);
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

/* A frame with a copy of `len` bytes behind full headroom, in as many segments as they need; NULL: pool empty. */
struct rte_mbuf *ekd_mbuf_from(struct rte_mempool *pool, const char *bytes, uint32_t len)
{
	struct rte_mbuf *head = rte_pktmbuf_alloc(pool), *last = head;

	while (last != NULL) {
		uint16_t part = (uint16_t)RTE_MIN(len, (uint32_t)rte_pktmbuf_tailroom(last));
		struct rte_mbuf *more;

		memcpy(rte_pktmbuf_mtod_offset(last, char *, last->data_len), bytes, part);
		last->data_len += part;
		head->pkt_len += part;
		bytes += part;
		len -= part;
		if (len == 0)
			return head;
		more = head->nb_segs < RTE_MBUF_MAX_NB_SEGS ? rte_pktmbuf_alloc(pool) : NULL;
		if (more == NULL)
			break;
		/* Only the first segment needs headroom. */
		more->data_off = 0;
		last->next = more;
		head->nb_segs++;
		last = more;
	}
	rte_pktmbuf_free(head);
	return NULL;
}

/* Asks for a transport checksum by `flags`; `l2` and `l3` are the lengths of the headers in front of it. */
void ekd_mbuf_ask_checksum(struct rte_mbuf *m, uint16_t l2, uint16_t l3, uint64_t flags)
{
	m->tx_offload = 0;
	m->l2_len = l2;
	m->l3_len = l3;
	m->ol_flags |= flags;
}

/* Where the transport header begins of a frame for which ekd_mbuf_ask_checksum() was called. */
uint32_t ekd_mbuf_transport_at(const struct rte_mbuf *m)
{
	return (uint32_t)m->l2_len + m->l3_len;
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

/* --- the kernel's side of an interface: a TAP device --- */

/*
 * Makes the kernel interface `name`, with a MAC address and an MTU, and sets it up. Its file descriptor does
 * not block; the interface goes with it. Needs CAP_NET_ADMIN, later reads and writes need nothing.
 */
int ekd_tap_open(const char *name, const uint8_t *mac, uint16_t mtu)
{
	struct ifreq req;
	int rc, control, fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	memset(&req, 0, sizeof(req));
	strncpy(req.ifr_name, name, sizeof(req.ifr_name) - 1);
	/* IFF_TUN_EXCL: an interface that somebody left there is not ours. */
	req.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_TUN_EXCL);
	if (ioctl(fd, TUNSETIFF, &req) != 0) {
		rc = -errno;
		close(fd);
		return rc;
	}
	control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	rc = control < 0 ? -errno : 0;
	if (rc == 0) {
		req.ifr_hwaddr.sa_family = ARPHRD_ETHER;
		memcpy(req.ifr_hwaddr.sa_data, mac, 6);
		rc = ioctl(control, SIOCSIFHWADDR, &req) != 0 ? -errno : 0;
	}
	if (rc == 0) {
		req.ifr_mtu = mtu;
		rc = ioctl(control, SIOCSIFMTU, &req) != 0 ? -errno : 0;
	}
	if (rc == 0)
		rc = ioctl(control, SIOCGIFFLAGS, &req) != 0 ? -errno : 0;
	if (rc == 0) {
		req.ifr_flags |= IFF_UP;
		rc = ioctl(control, SIOCSIFFLAGS, &req) != 0 ? -errno : 0;
	}
	if (control >= 0)
		close(control);
	if (rc != 0) {
		close(fd);
		return rc;
	}
	return fd;
}

/* Gives a kernel interface an address (4 or 16 bytes) with a prefix; 0 or a negative errno. */
int ekd_address_add(const char *name, const uint8_t *address, uint8_t len, uint8_t prefix)
{
	struct {
		struct nlmsghdr header;
		struct ifaddrmsg body;
		char attributes[2 * RTA_SPACE(16)];
	} request;
	struct {
		struct nlmsghdr header;
		struct nlmsgerr error;
		char rest[256];
	} answer;
	const unsigned short kinds[] = {IFA_LOCAL, IFA_ADDRESS};
	unsigned int i, index = if_nametoindex(name);
	int rc = 0, fd;

	if (index == 0)
		return -ENODEV;
	memset(&request, 0, sizeof(request));
	request.header.nlmsg_len = NLMSG_LENGTH(sizeof(request.body));
	request.header.nlmsg_type = RTM_NEWADDR;
	request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
	request.body.ifa_family = len == 4 ? AF_INET : AF_INET6;
	request.body.ifa_prefixlen = prefix;
	/* The address is in use at once: it is the port's, which the engine answers for. */
	request.body.ifa_flags = len == 4 ? 0 : IFA_F_NODAD;
	request.body.ifa_index = index;
	for (i = 0; i < 2; i++) {
		struct rtattr *attribute =
			(struct rtattr *)((char *)&request + NLMSG_ALIGN(request.header.nlmsg_len));

		attribute->rta_type = kinds[i];
		attribute->rta_len = RTA_LENGTH(len);
		memcpy(RTA_DATA(attribute), address, len);
		request.header.nlmsg_len = NLMSG_ALIGN(request.header.nlmsg_len) + RTA_SPACE(len);
	}
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (fd < 0)
		return -errno;
	if (send(fd, &request, request.header.nlmsg_len, 0) < 0)
		rc = -errno;
	else if (recv(fd, &answer, sizeof(answer), 0) < (ssize_t)NLMSG_LENGTH(sizeof(answer.error)))
		rc = -EIO;
	else
		rc = answer.header.nlmsg_type == NLMSG_ERROR ? answer.error.error : -EIO;
	close(fd);
	return rc;
}

/* The index of a kernel interface in the network namespace of the calling thread; 0: there is none. */
uint32_t ekd_interface_index(const char *name)
{
	return if_nametoindex(name);
}

/* Waits until one of at most 32 file descriptors can be read; which, by bits. 0: none within the time. */
uint32_t ekd_wait_readable(const int *fds, uint32_t count, int timeout_ms)
{
	struct pollfd polled[32];
	uint32_t i, ready = 0;

	count = RTE_MIN(count, RTE_DIM(polled));
	for (i = 0; i < count; i++)
		polled[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
	if (poll(polled, count, timeout_ms) <= 0)
		return 0;
	for (i = 0; i < count; i++)
		if (polled[i].revents != 0)
			ready |= 1U << i;
	return ready;
}
