#!/usr/bin/env bash
# tests/install.sh PROGRAM=PACKAGE...: installs the Debian packages of the programs that are missing, without letting their services start.
set -uo pipefail
export PATH="$PATH:/usr/sbin:/sbin"

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

missing=()
for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
done
# gcc without the C library's headers links nothing.
[ -e /usr/include/stdlib.h ] || missing+=(libc6-dev)
# Debian's Python makes no virtual environments without this one.
if command -v python3 >/dev/null && ! python3 -c 'import ensurepip' 2>/dev/null; then missing+=(python3-venv); fi
# A module is no program: nginx loads it.
if [[ " $*" == *" nginx="* && ! -e /usr/lib/nginx/modules/ngx_stream_module.so ]]; then missing+=(libnginx-mod-stream); fi
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "no apt-get here; install these yourself: ${missing[*]}" >&2
    exit 1
fi
echo "installing ${missing[*]}"

# Debian starts a service when it installs one: not on our account. An existing policy is the machine's own and stays.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'as_root rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null && as_root chmod 755 "$policy"
fi
as_root apt-get -qq update &&
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${missing[@]}" >/dev/null
