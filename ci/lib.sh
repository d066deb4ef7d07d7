# shellcheck shell=bash
# Shared helpers of the scripts in ci/. Source it; it runs nothing by itself.
#
# Words: a *step* is one script in ci/steps; a *result* is one passed, failed or skipped thing
# that the last line of ci/test counts. A step's exit code is 0 (passed), 77 (skipped) or anything
# else (failed), and a step that runs many tests says how many of each on a line for itself:
#     @count PASSED FAILED SKIPPED

EK_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
EK_LOGS=${EK_LOGS:-${CARGO_TARGET_DIR:-$EK_ROOT/target}/ci}
# shellcheck disable=SC2034 # used by those who source this
EK_CACHE=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/evenkeel
EK_SKIP=77

# Programs that cargo installs land here, whether or not the caller's PATH knows it; the
# directories of administration programs (tcpdump, debootstrap) are not in every user's PATH.
PATH=${CARGO_HOME:-${HOME:-/root}/.cargo}/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

say() { printf '%s\n' "$*"; }
note() { printf '# %s\n' "$*"; }
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# skip REASON: ends a step as skipped. The last line of output is the reason shown.
skip() {
    say "SKIP: $*"
    exit "$EK_SKIP"
}

# as_root COMMAND..: runs it as root, by sudo if need be and if sudo asks for nothing.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif have sudo && sudo -n true 2>/dev/null; then
        sudo -n "$@"
    else
        note "not root, and sudo needs a password: cannot run: $*"
        return 1
    fi
}

pkg_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# apt_need PACKAGE..: installs what is missing; nothing is asked and no service is started.
# Returns 1, with the reason in the output, where that is not possible.
apt_need() {
    local missing=() p rc
    have apt-get && have dpkg-query || {
        note "no apt on this machine: cannot install: $*"
        return 1
    }
    for p in "$@"; do pkg_installed "$p" || missing+=("$p"); done
    [ ${#missing[@]} = 0 ] && return 0
    note "apt-get install ${missing[*]}"
    # Package lists older than a day, or none: fetch them. A failure shows in the install.
    if [ -z "$(find /var/lib/apt/lists -maxdepth 1 -name '*_Packages*' -mtime -1 -print -quit 2>/dev/null)" ]; then
        as_root apt-get -q -o Acquire::Retries=1 -o Acquire::http::Timeout=15 update || true
    fi
    rc=0
    apt_install "${missing[@]}" || rc=$?
    if [ $rc != 0 ]; then
        # Lists may name versions that the archive no longer has.
        as_root apt-get -q -o Acquire::Retries=1 -o Acquire::http::Timeout=15 update || true
        rc=0
        apt_install "${missing[@]}" || rc=$?
    fi
    [ $rc = 0 ] || {
        note "apt-get install failed ($rc): ${missing[*]}"
        return 1
    }
}

# Daemons are programs to us, not services: policy-rc.d keeps the maintainer scripts from starting
# them. A policy that the machine already has is respected.
apt_install() {
    local policy=/usr/sbin/policy-rc.d made=0 rc=0
    if [ ! -e $policy ]; then
        made=1
        printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null && as_root chmod 755 $policy || return 1
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 --no-install-recommends \
        -o Acquire::Retries=2 -o Acquire::http::Timeout=30 -o DPkg::Lock::Timeout=120 install "$@" </dev/null || rc=$?
    [ $made = 0 ] || as_root rm -f $policy
    return $rc
}

# cargo_need PROGRAM [CRATE [OPTION..]]: `cargo install --locked` where the program is missing. Unoptimised: it is
# run once and looks at little, and compiling takes a third of the time (cargo-deny, 2 cores: 48 s, not 140).
cargo_need() {
    local program=$1 crate=${2:-$1}
    shift
    [ $# = 0 ] || shift
    have "$program" && return 0
    note "cargo install --locked $crate $*"
    # A target directory of its own, so that a first try that was stopped is not lost.
    CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$EK_ROOT/target}/ci-tools CARGO_PROFILE_DEV_DEBUG=0 \
        cargo install --locked --debug "$crate" "$@" || {
        note "cargo install $crate failed"
        return 1
    }
    have "$program"
}

# target_need TRIPLE: a Rust target's standard library; rustup fetches it where it is missing.
target_need() {
    local lib
    lib=$(rustc --print target-libdir --target "$1" 2>/dev/null) && [ -d "$lib" ] && return 0
    have rustup || {
        note "target $1 is not installed, and there is no rustup to fetch it"
        return 1
    }
    rustup target add "$1" || {
        note "target $1 is not installed, and rustup could not fetch it"
        return 1
    }
}

now_ms() { date +%s%3N; }
# seconds MS: 1234 -> 1.2
seconds() { printf '%d.%d' $(($1 / 1000)) $(($1 % 1000 / 100)); }

# commit_id: the commit under test; a tree without one (a tarball) has a fixed word instead.
commit_id() { git -C "$EK_ROOT" rev-parse HEAD 2>/dev/null || say 0000000000000000; }
# commit_seed: 53 bits of it as a decimal number, which any tool can hold.
commit_seed() { printf '%d\n' "0x$(commit_id | cut -c1-13)"; }

# marked_block FILE HEADING: the first fenced block after the line `## HEADING`.
marked_block() {
    awk -v h="## $2" '
        $0 == h { in_part = 1; next }
        in_part && /^## / { exit }
        in_part && /^```/ { if (in_block) exit; in_block = 1; next }
        in_block { print }
    ' "$1"
}

# library_features: sets EK_FEATURES to the features, as CRATE/FEATURE and with commas between, that need a C library
# which is here or can be installed. All builds of ci have the same ones, so that they share what they compile. Those of tests,
# EK_TEST_FEATURES, have bugs to be planted beside: as long as nobody plants one they are not there.
library_features() {
    [ -z "${EK_TEST_FEATURES+set}" ] || return 0
    if [ -z "${EK_FEATURES+set}" ]; then
        EK_FEATURES=
        ! apt_need libpcap-dev || EK_FEATURES=evenkeel-cli/libpcap,evenkeel-io-pcap/libpcap
        if apt_need libdpdk-dev dpdk-dev dpdk pkg-config && pkg-config --exists libdpdk; then
            EK_FEATURES=${EK_FEATURES:+$EK_FEATURES,}evenkeel-cli/dpdk,evenkeel-io-dpdk/dpdk
        fi
    fi
    EK_TEST_FEATURES=${EK_FEATURES:+$EK_FEATURES,}evenkeel-cli/planted-bugs
    export EK_FEATURES EK_TEST_FEATURES
}

# binary PROFILE: builds `evenkeel` (debug or release) with all drivers that can be built here; EVENKEEL is its path. EK_BIN
# names one to take instead.
binary() {
    local args=(-p evenkeel-cli)
    if [ -n "${EK_BIN:-}" ]; then
        EVENKEEL=$EK_BIN
        return 0
    fi
    library_features
    case $1 in
    release) args+=(--release) ;;
    debug) args=(--workspace --tests) ;; # what the unit tests have built already
    *) die "binary: $1 is no profile" ;;
    esac
    # Features of other crates than the chosen one are refused by cargo.
    local features=$EK_TEST_FEATURES
    [ "$1" = debug ] || features=$(tr , '\n' <<<"$EK_FEATURES" | grep '^evenkeel-cli/' | paste -sd,) || true
    (cd "$EK_ROOT" && cargo build -q "${args[@]}" ${features:+--features "$features"}) || die "evenkeel does not build"
    # shellcheck disable=SC2034 # for those who call
    EVENKEEL=${CARGO_TARGET_DIR:-$EK_ROOT/target}/$1/evenkeel
}

# node_binary DRIVER: the release binary for the end-to-end tests with DRIVER (pcap, dpdk, or any). NODE_BINARY is its
# path. Ends the step as skipped where the libraries of DRIVER cannot be installed.
node_binary() {
    library_features
    [[ $EK_FEATURES == *evenkeel-cli/libpcap* ]] || [ "$1" = dpdk ] || skip "libpcap-dev cannot be installed"
    [[ $EK_FEATURES == *evenkeel-cli/dpdk* ]] || [ "$1" != dpdk ] || skip "libdpdk-dev cannot be installed"
    binary release
    # shellcheck disable=SC2034 # for those who call
    NODE_BINARY=$EVENKEEL NODE_FEATURES=$EK_FEATURES
}

# workspace_tests [-p CRATE].. [--release] [-- NAME..]: run_tests over the workspace, with the features of
# library_features. With nextest it is one build, whatever crates and names are chosen of it.
workspace_tests() {
    local args=() crates=() features=() crate feature filter="" all
    library_features
    all=$EK_TEST_FEATURES
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        [ "$1" != --release ] || all=$EK_FEATURES
        if [ "$1" = -p ]; then crates+=("$2") && shift 2; else args+=("$1") && shift; fi
    done
    if have cargo-nextest || [ ${#crates[@]} = 0 ]; then
        args+=(--workspace ${all:+--features "$all"})
        for crate in "${crates[@]}"; do filter="$filter${filter:+ + }package(=$crate)"; done
        [ -z "$filter" ] || args+=(-E "$filter")
    else
        for crate in "${crates[@]}"; do
            args+=(-p "$crate")
            for feature in ${all//,/ }; do [ "${feature%/*}" != "$crate" ] || features+=(--features "$feature"); done
        done
        args+=("${features[@]}")
    fi
    run_tests "${args[@]}" "$@"
}

# run_tests ARGUMENT..: runs tests with nextest if there is one, else with cargo test, and says
# `@count`. A test that prints a line `SKIP: reason` is counted as skipped, an `#[ignore]`d one too.
# Arguments are those of `cargo test` that both understand (-p, --workspace, --features, ..), and
# after `--` names of tests, any of which may match as a substring.
run_tests() {
    local args=() names=() log rc=0 passed failed skipped said
    while [ $# -gt 0 ] && [ "$1" != -- ]; do args+=("$1") && shift; done
    [ $# -gt 0 ] && shift && names=("$@")
    log=$(mktemp)
    if have cargo-nextest; then
        cargo nextest run --no-fail-fast --color never --status-level all --success-output immediate \
            --failure-output immediate-final --no-tests pass "${args[@]}" -- "${names[@]}" >"$log" 2>&1 || rc=$?
        cat "$log"
        # Summary [   0.5s] 12 tests run: 11 passed (1 slow), 1 failed, 3 skipped
        said=$(grep -E '^ *Summary \[.*tests? run:' "$log" | tail -n 1)
        passed=$(number_before passed "$said")
        failed=$(($(number_before failed "$said") + $(number_before 'timed out' "$said")))
        # nextest counts as skipped what the names left out, too: count the ignored ones instead.
        skipped=0
        [ ${#names[@]} -gt 0 ] || skipped=$(number_before skipped "$said")
    else
        # --tests: everything but the examples in documentation, as nextest does.
        cargo test --tests --no-fail-fast --color never "${args[@]}" -- --show-output "${names[@]}" >"$log" 2>&1 || rc=$?
        cat "$log"
        passed=$(sum_before passed "$log")
        failed=$(sum_before failed "$log")
        skipped=$(sum_before ignored "$log")
    fi
    said=$(grep -cE '^[[:space:]]*SKIP: ' "$log") || true
    [ "$said" -le "$passed" ] || said=$passed
    EK_PASSED=$((passed - said)) EK_FAILED=$failed EK_SKIPPED=$((skipped + said))
    rm -f "$log"
    say "@count $EK_PASSED $EK_FAILED $EK_SKIPPED"
    return $rc
}
# number_before WORD TEXT: 11 in "11 passed"; 0 where the word is not.
number_before() { printf '%s\n' "$2" | sed -nE "s/.*[^0-9]([0-9]+) $1.*/\1/p" | grep . || say 0; }
# sum_before WORD FILE: the same, summed over libtest's result lines.
sum_before() {
    awk -v w="$1" '/^test result: / { for (i = 2; i <= NF; i++) if ($i ~ "^" w "[;.]?$") n += $(i - 1) } END { print n + 0 }' "$2"
}

# at_once COMMAND..: all of them at the same time, each a line for the shell; the exit code of one that failed, if one did.
at_once() {
    local -A running=()
    local command pid rc=0
    at_once_end() {
        for pid in "${!running[@]}"; do kill "$pid" 2>/dev/null || true; done
        wait || true
    }
    trap at_once_end EXIT
    for command in "$@"; do
        bash -c "exec $command" &
        running[$!]=$command
    done
    for pid in "${!running[@]}"; do
        wait "$pid" || {
            local code=$?
            # What was skipped hides no failure.
            [ $code = "$EK_SKIP" ] && [ $rc != 0 ] || rc=$code
        }
        unset "running[$pid]"
    done
    trap - EXIT
    return $rc
}
