# shellcheck shell=bash
# What clients do through a cluster: MariaDB sessions in transactions, downloads, wrk. Source it after lib.sh.

# A MariaDB session of each kind, in a transaction of five rows.
declare -A CONNECTION=() SERVER=() ROUND=()
vip_of() {
    case $1 in
    *nat64) say $VIP64 ;;
    *v6) say $VIP6 ;;
    *) say $VIP4 ;;
    esac
}
sessions_open() {
    local s
    for s in "$@"; do
        session_open "$s" "$(vip_of "$s")"
        ask "$s" 'SELECT CONNECTION_ID(), @@server_id; USE proof' || fail "session $s does not open"
        read -r CONNECTION["$s"] SERVER["$s"] <<<"${ROWS[0]}"
        ROUND[$s]=0
    done
}
# The transactions begin, and five rows are inserted in each.
transactions_begin() {
    local s
    for s in "$@"; do
        ROUND[$s]=$((ROUND[$s] + 1))
        ask "$s" "BEGIN; $(inserts "$s" 1 5)" || fail "session $s is over"
        is "$(rows_of "$s")" $(((ROUND[$s] - 1) * 10)) "rows of session $s before its commit"
    done
}
# Five rows more, the one commit, and it is the same session.
transactions_end() {
    local s
    for s in "$@"; do
        ask "$s" "$(inserts "$s" 6 10); COMMIT" || fail "session $s is over: $(cat "$E2E/$s.err")"
        is "$(rows_of "$s")" $((ROUND[$s] * 10)) "rows of session $s after its commit"
        ask "$s" 'SELECT CONNECTION_ID(), @@server_id' || fail "session $s is over"
        is "${ROWS[0]}" "${CONNECTION[$s]}	${SERVER[$s]}" "connection and server of session $s"
        is "$(db "${SERVER[$s]}" "SELECT COUNT(*) FROM information_schema.processlist WHERE id = ${CONNECTION[$s]} AND db = 'proof'")" 1 \
            "connection ${CONNECTION[$s]} in the list of server${SERVER[$s]}"
    done
}
inserts() {
    local n
    for ((n = $2; n <= $3; n++)); do printf "INSERT INTO proof.t VALUES ('%s', %d); " "$1" $(((ROUND[$1] - 1) * 10 + n)); done
}
rows_of() { db "${SERVER[$1]}" "SELECT COUNT(*) FROM proof.t WHERE session = '$1'"; }

# A flow of numbered datagrams from one port: flows_open NAME.., for each kind as sessions.
declare -A FLOW=()
flows_open() {
    local f
    for f in "$@"; do
        start "udp-$f" client python3 "$EK_ROOT/ci/e2e/udp.py" client "$(vip_of "$f")" 7007
        FLOW[$f]=
    done
    flows_go_on
}
# A datagram that is yet to be sent is answered; and all answers so far are of one server, that sees one address and port.
flows_go_on() {
    local f asked seen
    for f in "${!FLOW[@]}"; do
        asked=$(awk '$1 == "asked" { n = $2 } END { print n + 0 }' "$E2E/udp-$f.log")
        await 60 "the UDP flow $f goes on after datagram $asked" flow_answered "$f" "$asked"
        seen=$(flow_ends "$f")
        [ -n "${FLOW[$f]}" ] || FLOW[$f]=$seen
        is "$seen" "${FLOW[$f]}" "server, address and port of the UDP flow $f"
    done
}
flow_answered() {
    alive "udp-$1" || fail "the UDP flow $1 has ended: $(tail -n 1 "$E2E/udp-$1.log")"
    awk -v asked="$2" '$1 == "answer" && $2 > asked + 0 { found = 1 } END { exit !found }' "$E2E/udp-$1.log"
}
# Servers that answered, and what they saw the client as: a line for each of them.
flow_ends() { awk '$1 == "answer" && NF == 5 { print $3, $4, $5 }' "$E2E/udp-$1.log" | sort -u; }

# download NAME VIP FILE BYTES_PER_SECOND: it fails where nothing comes for a minute.
download() {
    local host=$2
    [[ $host != *:* ]] || host="[$host]"
    rm -f "$E2E/$1.got"
    start "$1" client curl --silent --show-error --fail --no-keepalive --speed-limit 1 --speed-time 60 --limit-rate "$4" -o "$E2E/$1.got" "http://$host/$3"
}
got() { stat -c %s "$E2E/$1.got" 2>/dev/null || say 0; }
got_some() { [ "$(got "$1")" -ge "$2" ]; }
under_way() { alive "$1" || fail "$1 is over already: $(cat "$E2E/$1.log")"; }
# downloaded NAME SHA256
downloaded() {
    reap "$1"
    is "$RC" 0 "curl $1 ($(cat "$E2E/$1.log")), exit code"
    is "$(sha256sum <"$E2E/$1.got")" "$2" "checksum of $1"
}
# wrk_begin [NAME URL CONNECTIONS [HEADER]]: each connection asks about 20 times a second, so that there is time left
# for others.
wrk_begin() {
    local name=${1:-wrk}
    # Once: another one may be about to read it.
    [ -e "$E2E/wrk.lua" ] || printf 'function delay() return 50 end\n' >"$E2E/wrk.lua"
    start "$name" client wrk --connections "${3:-100}" --threads 1 --duration 3600s --timeout 30s -s "$E2E/wrk.lua" \
        ${4:+-H "$4"} "${2:-http://$VIP4/small}"
}
# wrk_end [NAME [MOST]]: no request has failed, or took longer than 30 s; with MOST, however long they took, no more have
# lost their connection. WRK is how many requests there were, BROKEN how many failed.
wrk_end() {
    local name=${1:-wrk}
    stop "$name" INT
    # shellcheck disable=SC2034 # for those who call
    WRK=$(sed -n 's/^ *\([0-9]*\) requests in .*/\1/p' "$E2E/$name.log")
    [ -n "$WRK" ] || fail "$name says nothing: $(cat "$E2E/$name.log")"
    # Socket errors: connect 0, read 0, write 0, timeout 0
    BROKEN=$(awk -v parts=$(($# > 1 ? 3 : 4)) '/Socket errors:/ { gsub(/[^0-9 ]/, ""); for (i = 1; i <= parts; i++) sum += $i } END { print sum + 0 }' "$E2E/$name.log")
    [ "$BROKEN" -le "${2:-0}" ] && ! grep 'Non-2xx' "$E2E/$name.log" ||
        fail "$name: $(grep -E 'Socket errors|Non-2xx' "$E2E/$name.log")"
}
answered_more() { [ "$(web_requests)" -ge "$1" ]; }

