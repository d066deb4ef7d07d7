# shellcheck shell=bash
# A cluster in network namespaces: one client, two nodes, two real servers, and the load on them. Source it.
#
#     client  203.0.113.1 ----+             +---- server1  198.51.100.11
#                             |    +----+   |
#                          clients-+ lb1+-servers
#                             |    +----+   |
#     router  203.0.113.9 ----+-- | lb2| ---+---- server2  198.51.100.12
#                                  +----+
#     noise   10.255.0.9 ------------ sync  (10.255.0.1, 10.255.0.2)
#
# clients, servers and sync are bridges in a namespace `switch`. IPv6 has 2001:db8:c::/64 and 2001:db8:5::/64 in the
# same order. The kernel of a node has an address on the sync network alone: what else it is asked, evenkeel answers.
#
# Names: namespaces are ek<pid>-client and so on; what runs in them is known by a name (`lb1`, `nginx2`), its output is
# $E2E/NAME.log. Everything goes when the script ends, however it does: processes by their ids, then namespaces, then
# files; something that is left is a failure.
#
# Parameters, from the environment:
#     EK_BIN       an evenkeel to test; otherwise one is built
#     EK_DRIVER    pcap (default) or dpdk
#     EK_WORKERS   workers of both nodes (1), or of each: "1 2"
#     EK_KEEP      a directory for logs and captures of a run that failed

. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

EK_DRIVER=${EK_DRIVER:-pcap}
EK_WORKERS=${EK_WORKERS:-1}
NS=ek$$
E2E=
declare -A PID=()
STARTED_MS=$(now_ms)
# Whether ci/test is told of each test.
COUNTS=1
HUGE_BEFORE=$(cat /proc/sys/vm/nr_hugepages 2>/dev/null || say 0)
HUGE_RESERVED=

VIP4=192.0.2.80 VIP6=2001:db8::80 VIP64=2001:db8::64
# How the config of a cluster differs from the usual one.
# shellcheck disable=SC2034 # priorities are read by their names
REPLICATE=synack DRAIN_LIMIT=20s PRIORITY1=200 PRIORITY2=100 PREEMPT=true ADVERTISE=100ms DOWN_COUNT=3 IDLE=sleep
# What [service.health] has, by the names of services; those that are not here have none. And the interfaces of the kernel that
# ports of DPDK have, by the names of ports.
declare -A HEALTH=() TAP=()

# micros: the clock, in NOW; without a process.
micros() { NOW=${EPOCHREALTIME/[.,]/}; }

# --- results -----------------------------------------------------------------------------------------------------

elapsed_ms() { say $(($(now_ms) - STARTED_MS)); }
step() { printf '%8s  %s\n' "$(elapsed_ms)" "$*"; }
count() { [ -z "$COUNTS" ] || say "@count $*"; }
# ok TEXT: one test that passed, and what it measured.
ok() {
    count 1 0 0
    step "ok: $*"
}
# fail TEXT: a test that failed is the end of the script: what follows would say nothing.
fail() {
    count 0 1 0
    step "FAILED: $*"
    tails
    exit 1
}
tails() {
    local f lines
    for f in "$E2E"/*.log "$E2E"/*.err; do
        [ -s "$f" ] || continue
        case ${f##*/} in
        lb*) lines=20 ;;
        *) lines=6 ;;
        esac
        say "--- the end of ${f##*/}:"
        tail -n $lines "$f" | cut -c1-300
    done
}
# await SECONDS WHAT COMMAND..: until the command succeeds; the limit is for what will never happen.
await() {
    local limit=$(($(now_ms) + $1 * 1000)) what=$2
    shift 2
    until "$@"; do
        [ "$(now_ms)" -lt $limit ] || fail "waited in vain: $what"
        pause 20
    done
}
# pause MS: up to 999, without a process.
pause() {
    local ms=00$1
    read -r -t "0.${ms: -3}" -u "$NEVER" || true
}
is() { [ "$1" = "$2" ] || fail "$3: '$1', expected '$2'"; }
at_least() { [ "$1" -ge "$2" ] || fail "$3: $1, expected $2 at least"; }

# --- begin and end -----------------------------------------------------------------------------------------------

# e2e_begin PACKAGE..: what every test needs, and these; the trap that clears up.
e2e_begin() {
    [ "$(id -u)" = 0 ] || skip "network namespaces need root"
    apt_need iproute2 ethtool nftables util-linux procps openssl curl "$@" || skip "packages cannot be installed: $*"
    E2E=$(mktemp -d /tmp/ek-e2e.XXXXXX) || die "no directory for temporary files"
    # What servers of other users read.
    chmod 755 "$E2E"
    mkfifo "$E2E/never"
    # A place where nothing ever comes.
    exec {NEVER}<>"$E2E/never"
    trap e2e_end EXIT
    trap 'exit 143' TERM
    trap 'exit 130' INT
    trap 'exit 129' HUP
    ip netns add "$NS-switch" 2>"$E2E/netns.log" || skip "this kernel or container makes no network namespaces: $(cat "$E2E/netns.log")"
    e2e_binary
}

# The evenkeel under test, as $EK_BIN: a copy, so that another build does not change it meanwhile.
e2e_binary() {
    if [ -z "${EK_BIN:-}" ]; then
        node_binary "$EK_DRIVER"
        EK_BIN=$NODE_BINARY
    fi
    cp "$EK_BIN" "$E2E/evenkeel" || die "there is no evenkeel at $EK_BIN"
    EK_BIN=$E2E/evenkeel
}

e2e_end() {
    local rc=$? name n
    set +e
    trap - EXIT
    trap '' INT TERM HUP
    # Without a word: nobody waits until they have put their things in order.
    {
        for name in "${!PID[@]}"; do kill -KILL "${PID[$name]}"; done
        wait
    } 2>/dev/null
    # Children of servers: nobody else has a process in these namespaces.
    for n in $(ip netns list 2>/dev/null | awk -v p="$NS-" 'index($1, p) == 1 { print $1 }'); do
        ip netns pids "$n" 2>/dev/null | xargs -r kill -KILL 2>/dev/null
        ip netns delete "$n" 2>/dev/null
    done
    if [ $rc != 0 ] && [ $rc != $EK_SKIP ] && [ -n "${EK_KEEP:-}" ]; then
        mkdir -p "$EK_KEEP" && cp -r "$E2E"/*.log "$E2E"/*.err "$E2E"/*.toml "$E2E"/*.pcapng "$EK_KEEP"/ 2>/dev/null
    fi
    rm -rf "$E2E"
    [ -z "$HUGE_RESERVED" ] || huge_pages_give_back
    nothing_left || { count 0 1 0 && rc=1; }
    exit "$rc"
}

# Whether the machine is as it was.
nothing_left() {
    local name left=0 found
    found=$(ip netns list 2>/dev/null | awk -v p="$NS-" 'index($1, p) == 1')
    [ -z "$found" ] || { say "left behind: namespaces $found" && left=1; }
    for name in "${!PID[@]}"; do
        [ ! -d "/proc/${PID[$name]}" ] || { say "left behind: process ${PID[$name]}, $name" && left=1; }
    done
    local all=(/proc/[0-9]*/cmdline)
    # By standard input: it would find its own words.
    found=$(grep -lasF --file=- "${all[@]}" <<<"$E2E/" || true)
    [ -z "$found" ] || { say "left behind: processes with files in $E2E: $found" && left=1; }
    found=$(grep -F "$E2E" /proc/self/mounts || true)
    [ -z "$found" ] || { say "left behind: mounts $found" && left=1; }
    [ ! -e "$E2E" ] || { say "left behind: $E2E" && left=1; }
    # Another script that runs at the same time may have reserved some.
    found=$(cat /proc/sys/vm/nr_hugepages 2>/dev/null || say 0)
    [ -z "$HUGE_RESERVED" ] || [ "$found" = "$HUGE_BEFORE" ] || { say "left behind: $found huge pages, and there were $HUGE_BEFORE" && left=1; }
    return $left
}

# huge_pages_reserve N: so many of 2 MiB more than there are, until the script ends. Returns 1 where the kernel has not so many.
huge_pages_reserve() {
    [ -d $HUGE_DIR ] && [ "$(awk '/^Hugepagesize:/ { print $2 }' /proc/meminfo)" = 2048 ] || return 1
    HUGE_RESERVED=1
    say $((HUGE_BEFORE + $1)) 2>/dev/null >/proc/sys/vm/nr_hugepages && [ "$(huge_pages_free)" -ge "$1" ]
}
huge_pages_free() { cat $HUGE_DIR/free_hugepages; }
huge_pages_give_back() { say "$HUGE_BEFORE" 2>/dev/null >/proc/sys/vm/nr_hugepages; }
HUGE_DIR=/sys/kernel/mm/hugepages/hugepages-2048kB

# --- processes ---------------------------------------------------------------------------------------------------

# inside NAMESPACE COMMAND..
inside() { ip netns exec "$NS-$1" "${@:2}"; }

# start NAME NAMESPACE COMMAND..: in the background; it dies with this script, even if that is killed. `ip netns exec`,
# nice and setpriv become the command, so that the id is that of the command.
start() {
    local name=$1 ns=$2 fd
    shift 2
    [ ! -e "$E2E/$name.log" ] || cat "$E2E/$name.log" >>"$E2E/$name.before.log"
    # Empty from here on, and not from when the command begins: nobody shall read what the one before it has said.
    : >"$E2E/$name.log"
    (
        # What this script has open is not the command's.
        for fd in "$NEVER" "${IN[@]}" "${OUT[@]}"; do exec {fd}>&-; done
        exec ip netns exec "$NS-$ns" nice -n "${NICE:-0}" setpriv --pdeathsig KILL "$@"
    ) >"$E2E/$name.log" 2>&1 </dev/null &
    PID[$name]=$!
}
alive() { [ -n "${PID[$1]:-}" ] && kill -0 "${PID[$1]}" 2>/dev/null; }
# stop NAME [SIGNAL]: and waits for its end. RC has its exit code.
stop() {
    kill "-${2:-TERM}" "${PID[$1]}" 2>/dev/null || true
    reap "$1"
}
# reap NAME: waits for its end.
# shellcheck disable=SC2034 # RC is for those who call
reap() {
    RC=0
    wait "${PID[$1]}" 2>/dev/null || RC=$?
    unset "PID[$1]"
}
hears() { [ -n "$(ip netns exec "$NS-$1" ss -Hlun "sport = :$2" 2>/dev/null)" ]; }
listens() { [ -n "$(ip netns exec "$NS-$1" ss -Hltn "sport = :$2" 2>/dev/null)" ]; }

# --- topology ----------------------------------------------------------------------------------------------------

# wire BRIDGE NAMESPACE DEVICE [MAC]: a veth from a namespace to a bridge.
wire() {
    local far="$2-${1:0:3}"
    ip -n "$NS-$2" link add "$3" ${4:+address "$4"} type veth peer name "$far" netns "$NS-switch"
    ip -n "$NS-switch" link set "$far" master "$1" up
    ip -n "$NS-$2" link set "$3" up
    # A checksum that is left to the device would never be made; frames as large as the kernel likes fit no wire.
    inside "$2" ethtool -K "$3" tx off tso off gso off gro off >/dev/null
    inside switch ethtool -K "$far" tx off tso off gso off gro off >/dev/null
}
# address NAMESPACE DEVICE ADDRESS..
address() {
    local a
    for a in "${@:3}"; do
        if [[ $a == *:* ]]; then ip -n "$NS-$1" address add "$a" dev "$2" nodad; else ip -n "$NS-$1" address add "$a" dev "$2"; fi
    done
}
namespace() {
    [ "$1" = switch ] || ip netns add "$NS-$1"
    inside "$1" sysctl -q -w net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0 net.ipv6.conf.default.accept_ra=0 \
        net.ipv6.conf.default.accept_dad=0
    ip -n "$NS-$1" link set lo up
}

topology() {
    local n bridge
    namespace switch
    inside switch sysctl -q -w net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
    for bridge in clients servers sync; do
        ip -n "$NS-switch" link add $bridge type bridge forward_delay 0 stp_state 0 mcast_snooping 0
        ip -n "$NS-switch" link set $bridge up
    done

    namespace client
    wire clients client eth0 02:00:00:00:03:01
    address client eth0 203.0.113.1/24 2001:db8:c::1/64
    ip -n "$NS-client" route add 192.0.2.0/24 dev eth0
    ip -n "$NS-client" route add 2001:db8::/64 dev eth0
    # A session that nobody answers is given up after some 6 s, not 15 minutes: a counter-proof waits for that. The
    # proof has the same.
    inside client sysctl -q -w net.ipv4.tcp_retries2=4

    for n in 1 2; do
        namespace "server$n"
        wire servers "server$n" eth0 "02:00:00:00:04:1$n"
        address "server$n" eth0 "198.51.100.1$n/24" "2001:db8:5::1$n/64"

        namespace "lb$n"
        inside "lb$n" sysctl -q -w net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
        wire clients "lb$n" clients "02:00:00:00:0$n:01"
        wire servers "lb$n" servers "02:00:00:00:0$n:02"
        wire sync "lb$n" sync
        address "lb$n" sync "10.255.0.$n/24"
        # evenkeel sees a frame before this drops it: the kernel shall neither answer nor spend time on it.
        inside "lb$n" nft -f - <<NFT
table netdev evenkeel {
    chain clients { type filter hook ingress device clients priority 0; policy drop; }
    chain servers { type filter hook ingress device servers priority 0; policy drop; }
}
NFT
    done
}

# --- nodes -------------------------------------------------------------------------------------------------------

# trust: by what nodes seal what they say to each other, made when it is asked for first. INSECURE=1: they do not.
trust() {
    [ -z "${INSECURE:-}" ] || { say "insecure = true" && return; }
    [ -e "$E2E/secret" ] || "$EK_BIN" secret new "$E2E/secret" >/dev/null || return
    say "secrets = [\"$E2E/secret\"]"
}

# sync_watch: what the nodes say to each other, as the switch between them sees it, from now on.
sync_watch() {
    start tcpdump switch tcpdump -n -U -i sync -c 500000 -w "$E2E/sync.pcap" port 4790
    await 60 "frames between the nodes" test -s "$E2E/sync.pcap"
}
# sync_digits: all that was seen so far of what can have a session in it, as digits.
sync_digits() {
    { tcpdump -n -r "$E2E/sync.pcap" -x 'len > 100' 2>/dev/null || true; } | sed -n 's/^\t0x[0-9a-f]*: *//p' | tr -d ' \n'
}
# In every session: the client beside the virtual address; of IPv6 the virtual address.
# shellcheck disable=SC2034 # for those who call
IN_CLEAR=(cb007101c0000250 20010db8000000000000000000000080)

# config NODE: the cluster as this node reads it, on standard output. The file is the same on both but for paths.
config() {
    local n device
    cat <<TOML
workers = $(workers_of "$1")

[io]
driver = "$EK_DRIVER"
idle = "$IDLE"
TOML
    [ "$EK_DRIVER" != dpdk ] || cat <<TOML

[io.dpdk]
huge_pages = false
memory_mib = 128
mbufs = 8192
rx_descriptors = 512
tx_descriptors = 512
TOML
    cat <<TOML

[daemon]
ctl = "$E2E/lb$1.sock"
state = "$E2E/lb$1.state"
drain_limit = "$DRAIN_LIMIT"
metrics = "127.0.0.1:9790"

[cluster]
$(trust)
id = 7
down_count = $DOWN_COUNT

[cluster.vrrp]
vrid = 51
port = "clients"
interval = "$ADVERTISE"
preempt = $PREEMPT
TOML
    for n in 1 2; do
        local priority=PRIORITY$n
        cat <<TOML

[[cluster.node]]
id = $n
name = "lb$n"
priority = ${!priority}
sync = "10.255.0.$n:4790"
local_addresses = ["198.51.100.1${n}1", "198.51.100.1${n}2", "2001:db8:5::1${n}1"]
vrrp_source_v4 = "203.0.113.10$n"
vrrp_source_v6 = "fe80::10$n"
TOML
        for device in clients servers; do
            printf '\n[[cluster.node.port]]\nname = "%s"\ndevice = "%s"\n' $device "$(device $device $n)"
            [ -z "${TAP[$device]:-}" ] || printf 'tap = "%s"\n' "${TAP[$device]}"
            if [ $device = clients ]; then
                printf 'mac = "02:00:00:00:0%s:01"\n' $n
                printf 'addresses = ["203.0.113.10%s/24", "2001:db8:c::10%s/64", "fe80::10%s/64"]\n' $n $n $n
            else
                printf 'mac = "02:00:00:00:0%s:02"\n' $n
                printf 'addresses = ["198.51.100.20%s/24", "2001:db8:5::20%s/64"]\n' $n $n
            fi
        done
    done
    cat <<TOML

[[port]]
name = "clients"
[[port]]
name = "servers"

[[route]]
to = "0.0.0.0/0"
via = "203.0.113.1"
port = "clients"
[[route]]
to = "::/0"
via = "2001:db8:c::1"
port = "clients"
TOML
    service tcp db 3306 1 2
    service tcp web 80 1 2
    # Its two connections must come to the same server.
    service tcp iperf 5201 1
    service udp echo 7007 1 2
}
workers_of() {
    local all
    read -r -a all <<<"$EK_WORKERS"
    say "${all[$1 - 1]:-${all[0]}}"
}
# device INTERFACE NODE: as the config names it, with a queue for each worker.
device() {
    if [ "$EK_DRIVER" = dpdk ]; then say "net_af_packet_$1,iface=$1,qpairs=$(workers_of "$2"),framecnt=4096"; else say "$1"; fi
}
# service PROTOCOL NAME PORT SERVER..: over IPv4, IPv6 and NAT64.
service() {
    local proto=$1 name=$2 port=$3 kind vip n
    shift 3
    for kind in 4 6 64; do
        case $kind in
        4) vip="$VIP4:$port" ;;
        6) vip="[$VIP6]:$port" ;;
        64) vip="[$VIP64]:$port" ;;
        esac
        printf '\n[[service]]\nname = "%s"\nvip = "%s"\nprotocol = "%s"\nreplicate = "%s"\n' "$name$kind" "$vip" "$proto" "$REPLICATE"
        [ -z "${HEALTH[$name$kind]:-}" ] || printf '[service.health]\n%s\n' "${HEALTH[$name$kind]}"
        for n in "$@"; do
            if [ $kind = 6 ]; then
                printf '[[service.server]]\naddress = "[2001:db8:5::1%s]:%s"\n' "$n" "$port"
            else
                printf '[[service.server]]\naddress = "198.51.100.1%s:%s"\n' "$n" "$port"
            fi
        done
    done
}

# node_start N: it comes first where cores are few, as on a machine of its own. The load is made by others.
node_start() {
    config "$1" >"$E2E/lb$1.toml"
    NICE=-15 start "lb$1" "lb$1" "$EK_BIN" run --config "$E2E/lb$1.toml" --node "lb$1"
}
# said N PATTERN: whether node N has logged it in this life.
said() { grep -q -E -- "$2" "$E2E/lb$1.log" 2>/dev/null; }
# node_await N WHAT PATTERN [SECONDS]
node_await() {
    local limit=$(($(now_ms) + ${4:-60} * 1000))
    until said "$1" "$3"; do
        alive "lb$1" || fail "lb$1 ended before it was $2"
        [ "$(now_ms)" -lt $limit ] || fail "waited in vain: lb$1 is $2"
        pause 10
    done
}
# What a node logs, as patterns: here, and in no test.
# shellcheck disable=SC2034 # not every test has a use for each
{
    READY='ready: all sessions'
    SERVES='(ready: all sessions|serving without all)'
    HEARD='lb[12] is heard'
    ENDING='asked to end: sessions are handed over first'
    HANDED_OVER='leaving: all is handed over'
    IN_HASTE='leaving: what is left is for others'
}

# role N FAMILY: master or backup, as node N said last.
role() { sed -n -E "s/.* (master|backup) (of|for) the IPv$2 virtual addresses.*/\1/p" "$E2E/lb$1.log" 2>/dev/null | tail -n 1; }
master_is() { [ "$(role "$1" 4)$(role "$1" 6)" = mastermaster ]; }
backup_is() { [ "$(role "$1" 4)$(role "$1" 6)" = backupbackup ]; }
node_ready() { node_await "$1" ready "$READY"; }
# node_kill N: as a crash is.
node_kill() { stop "lb$1" KILL; }

# metrics N: the page, in $E2E/lbN.metrics.
metrics() { inside "lb$1" curl --silent --fail --max-time 10 -o "$E2E/lb$1.metrics" http://127.0.0.1:9790/metrics; }
# metric N NAME: the sum of all values whose name and labels begin so, in the page that was fetched last.
metric() {
    awk -v name="evenkeel_$2" 'index($1, name) == 1 && substr($1, length(name) + 1, 1) !~ /[a-z_]/ { sum += $NF } END { printf "%d\n", sum }' \
        "$E2E/lb$1.metrics"
}

# Both nodes, and the one of the higher priority answers.
cluster_up() {
    node_start 1
    node_start 2
    node_await 1 serving "$SERVES"
    node_await 2 serving "$SERVES"
    await 60 "lb1 is master" master_is 1
    await 60 "lb2 is backup" backup_is 2
}

# --- servers and load --------------------------------------------------------------------------------------------

servers_mariadb() {
    local n
    for n in 1 2; do
        mkdir -p "$E2E/db$n"
        start "mariadb$n" "server$n" mariadbd --no-defaults --user=root --datadir="$E2E/db$n" --socket="$E2E/db$n.sock" \
            --pid-file="$E2E/db$n.pid" --tmpdir="$E2E" --skip-grant-tables --skip-networking=0 --bind-address='*' --port=3306 \
            --server-id=$n --skip-log-bin --skip-name-resolve --performance-schema=OFF --innodb-buffer-pool-size=8M \
            --innodb-log-file-size=4M --innodb-flush-log-at-trx-commit=0
    done
    for n in 1 2; do
        await 60 "MariaDB of server$n" db_up $n
        db $n 'CREATE DATABASE proof; CREATE TABLE proof.t (session VARCHAR(16), n INT, PRIMARY KEY (session, n)) ENGINE=InnoDB'
    done
}
db_up() { db "$1" 'SELECT 1' >/dev/null 2>&1; }
# db N SQL: at the server itself, past the balancer.
db() { mariadb --no-defaults --batch --skip-column-names --socket="$E2E/db$1.sock" -e "$2"; }

servers_web() {
    local n
    mkdir -p "$E2E/www"
    # Noise, so that no byte can stand for another one; a cipher makes it faster than the kernel.
    head -c 200000000 /dev/zero | openssl enc -aes-128-ctr -nosalt -pbkdf2 -pass "pass:$NS" >"$E2E/www/large"
    head -c 40000000 "$E2E/www/large" >"$E2E/www/middle"
    # shellcheck disable=SC2034 # for those who download
    SHA_LARGE=$(sha256sum <"$E2E/www/large") SHA_MIDDLE=$(sha256sum <"$E2E/www/middle")
    printf 'evenkeel\n' >"$E2E/www/small"
    for n in 1 2; do
        mkdir -p "$E2E/web$n"
        cat >"$E2E/web$n.conf" <<NGINX
daemon off;
master_process off;
user root;
pid $E2E/web$n/pid;
error_log stderr;
events { worker_connections 2048; }
http {
    access_log off;
    client_body_temp_path $E2E/web$n/body;
    proxy_temp_path $E2E/web$n/proxy;
    fastcgi_temp_path $E2E/web$n/fastcgi;
    uwsgi_temp_path $E2E/web$n/uwsgi;
    scgi_temp_path $E2E/web$n/scgi;
    server {
        listen 80 backlog=1024;
        listen [::]:80 backlog=1024;
        root $E2E/www;
        keepalive_requests 1000000;
        location = /status { stub_status; }
        location = /id { return 200 "server$n\n"; }
        location = /health { root $E2E/web$n; }
    }
}
NGINX
        printf 'well\n' >"$E2E/web$n/health"
        web_start $n
    done
    for n in 1 2; do await 60 "nginx of server$n" listens "server$n" 80; done
}
web_start() { start "nginx$1" "server$1" nginx -e stderr -p "$E2E/web$1" -c "$E2E/web$1.conf"; }
# Requests that both servers have answered so far, without those for the number itself.
web_requests() {
    local n sum=0 said
    for n in 1 2; do
        said=$(inside "server$n" curl -s --max-time 5 "http://127.0.0.1/status" | awk 'NR == 3 { print $3 }')
        sum=$((sum + ${said:-0} - 1))
    done
    say $sum
}
servers_echo() {
    local n
    for n in 1 2; do
        start "echo$n" "server$n" python3 "$EK_ROOT/ci/e2e/udp.py" server "server$n" 7007
    done
    for n in 1 2; do await 60 "the echo of server$n" hears "server$n" 7007; done
}
servers_iperf() {
    start iperf3-server server1 iperf3 -s
    await 60 "iperf3 of server1" listens server1 5201
}

# A MariaDB session: session_open NAME VIP, ask NAME SQL (its rows are in ROWS), session_close NAME. One client process,
# one connection, no reconnect.
session_open() {
    local in out
    mkfifo "$E2E/$1.in" "$E2E/$1.out"
    # Opened for both directions, so that neither side waits for the other one.
    exec {in}<>"$E2E/$1.in" {out}<>"$E2E/$1.out"
    IN[$1]=$in OUT[$1]=$out
    ip netns exec "$NS-client" setpriv --pdeathsig KILL mariadb --no-defaults --batch --skip-column-names --unbuffered --skip-reconnect \
        --connect-timeout=10 --protocol=tcp -h "$2" -P 3306 <"$E2E/$1.in" >"$E2E/$1.out" 2>"$E2E/$1.err" &
    PID[$1]=$!
}
declare -A IN=() OUT=() ASKED=()
# ask NAME SQL [SECONDS]: returns 1 where the session is over; an answer that does not come ends the test.
ask() {
    local line part='' mark limit NOW
    ASKED[$1]=$((${ASKED[$1]:-0} + 1))
    mark="-- answer ${ASKED[$1]}"
    ROWS=()
    micros
    limit=$((NOW + ${3:-30} * 1000000))
    printf "%s;\nSELECT '%s';\n" "$2" "$mark" >&"${IN[$1]}"
    while :; do
        if IFS= read -r -t 0.5 line <&"${OUT[$1]}"; then
            line=$part$line part=
            [ "$line" != "$mark" ] || return 0
            ROWS+=("$line")
        else
            # The time may end in the middle of a line.
            part+=$line
            alive "$1" || return 1
            micros
            [ "$NOW" -lt $limit ] || fail "session $1: no answer within ${3:-30} s to: $2"
        fi
    done
}
session_close() {
    local in=${IN[$1]} out=${OUT[$1]}
    exec {in}>&- {out}<&-
    unset "IN[$1]" "OUT[$1]" "ASKED[$1]"
    stop "$1" KILL
    rm -f "$E2E/$1.in" "$E2E/$1.out"
}
