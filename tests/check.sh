#!/usr/bin/env bash
# The one way to check. Installs the Debian packages that are missing, then: format, lints, tests, documentation, licences, scripts.
# Runs as root or as a user with sudo, on Debian 12 with the Rust toolchain. Every step runs, also after one that failed.
set -uo pipefail
cd -- "$(dirname -- "$0")/.." || exit 1

# nginx and friends live in sbin, which is not on everybody's path; sudo may have dropped cargo from it.
export PATH="$PATH:/usr/sbin:/sbin"
if ! command -v cargo >/dev/null; then
    user_home=$(getent passwd "${SUDO_USER:-$(id -un)}" | cut -d: -f6)
    export CARGO_HOME="${CARGO_HOME:-$user_home/.cargo}" RUSTUP_HOME="${RUSTUP_HOME:-$user_home/.rustup}"
    export PATH="$CARGO_HOME/bin:$PATH"
fi
if ! command -v cargo >/dev/null; then
    echo "needs the Rust toolchain: https://rustup.rs" >&2
    exit 1
fi

failed=()
say() { printf '\n== %s\n' "$*"; }
step() { # step NAME COMMAND...
    local name=$1 start=$SECONDS
    shift
    say "$name"
    if "$@"; then
        echo "-- $name: ok, $((SECONDS - start)) s"
    else
        echo "-- $name: FAILED, $((SECONDS - start)) s"
        failed+=("$name")
    fi
}

# What the checks call, and the package that has it.
programs=(
    curl=curl openssl=openssl python3=python3 chromium=chromium nginx=nginx-light
    firefox-esr=firefox-esr wget=wget node=nodejs java=openjdk-17-jdk-headless javac=openjdk-17-jdk-headless
    caddy=caddy gcc=gcc git=git shellcheck=shellcheck ip=iproute2 faketime=faketime
    haproxy=haproxy testssl=testssl.sh slowhttptest=slowhttptest h2load=nghttp2-client nghttp=nghttp2-client
    systemctl=systemd systemd-analyze=systemd systemd-socket-activate=systemd
)
# The real clients and servers that the tests drive. A test that drives one leaves a mark; without its mark the run fails.
driven=(
    curl openssl python3 chromium nginx caddy firefox-esr wget node java haproxy testssl slowhttptest h2load nghttp faketime
    envoy traefik systemctl systemd-analyze systemd-socket-activate
)

rust_components() {
    if cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1; then return 0; fi
    rustup component add rustfmt clippy
}

test_log=$(mktemp) || exit 1
trap 'rm -f -- "$test_log"' EXIT

run_tests() {
    rm -rf "${CARGO_TARGET_DIR:-target}/tmp/driven"
    cargo test --locked --no-fail-fast 2>&1 | tee "$test_log"
}

documentation() {
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
}

licences() {
    local host
    host=$(rustc -vV | sed -n "s/^host: //p")
    cargo metadata --locked --format-version 1 --filter-platform "$host" | python3 tests/licences.py
}

scripts() {
    shellcheck tests/*.sh .ci/run benches/peers/run.sh && python3 -W error - <<'PYTHON'
import ast, pathlib
for path in ("tests/licences.py", "benches/peers/peerbench.py"):
    ast.parse(pathlib.Path(path).read_text(), path)
PYTHON
}

# Where a program is: on the path, or in an environment that a test has made with a package of PyPI.
place_of() {
    command -v "$1" || compgen -G "${CARGO_TARGET_DIR:-target}/tmp/venv/*/bin/$1" | head -n 1
}

# The line in which a program names its version, without colours and folders; of one that does not, its package's. Nothing: it is missing.
version_of() {
    local program=$1 place ask said pair
    place=$(place_of "$program")
    [ -n "$place" ] || return 0
    for ask in --version version -v -h; do
        # In the first lines: what comes later is a help text.
        said=$("$place" "$ask" 2>&1 </dev/null | sed "s/\x1b\[[0-9;]*m//g; s|^[^ ]*/$program\([ :]\)|$program\1|; 8q" | grep -E '[0-9]+\.[0-9]+' | sed -n '1s/^ *//p')
        if [ -n "$said" ]; then
            echo "$said"
            return 0
        fi
    done
    for pair in "${programs[@]}"; do
        if [ "${pair%%=*}" = "$program" ]; then
            dpkg-query -W -f "${pair#*=} \${Version}\n" "${pair#*=}"
        fi
    done
}

# Prints what the tests drove, with versions.
drove() {
    local program version result=0
    for program in "${driven[@]}"; do
        version=$(version_of "$program")
        if [ -z "$version" ]; then
            echo "$program: MISSING"
            result=1
        elif [ ! -e "${CARGO_TARGET_DIR:-target}/tmp/driven/$program" ]; then
            echo "$program: installed, but NO TEST DROVE IT"
            result=1
        else
            printf '%-12s %.90s\n' "$program" "$version"
        fi
    done
    return "$result"
}

# Tests open many connections.
ulimit -Sn "$(ulimit -Hn)" 2>/dev/null || true

step "packages" tests/install.sh "${programs[@]}"
step "rust components" rust_components
step "format" cargo fmt --check
step "lints" cargo clippy --locked --all-targets -- -D warnings
step "tests" run_tests
step "documentation" documentation
step "licences" licences
step "scripts" scripts
step "clients and servers that were driven" drove

say "summary, $SECONDS s"
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed steps: ${failed[*]}"
fi
# A test program that does not build or does not end has no result of its own.
case " ${failed[*]} " in *" tests "*) broken=1 ;; *) broken=0 ;; esac
awk -v broken="$broken" '
    /^test result:/ { passed += $4; failed += $6 }
    END { printf "%d passed, %d failed\n", passed, (failed == 0 && broken) ? 1 : failed }
' "$test_log"
[ ${#failed[@]} -eq 0 ]
