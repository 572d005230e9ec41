#!/usr/bin/env bash
# Vestibule beside nginx and HAProxy on this machine; arguments go to peerbench.py. README.md says what is measured and how.
set -euo pipefail
here=$(cd -- "$(dirname -- "$0")" && pwd)
root=$(cd -- "$here/../.." && pwd)
export PATH="$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin"

"$root/tests/install.sh" nginx=nginx-light haproxy=haproxy wrk=wrk h2load=nghttp2-client openssl=openssl curl=curl python3=python3 taskset=util-linux
# As packages are built: the release profile compiles faster and runs a few percent slower.
(cd -- "$root" && cargo build --profile dist --locked)
vestibule=${CARGO_TARGET_DIR:-$root/target}/dist/vestibule

"$here/peerbench.py" \
    --scenarios S1,S2,S3,S6 --peers nginx,haproxy,nginx-log,haproxy-log --json "$root/target/peerbench.json" \
    --subject "vestibule:$vestibule run -c {config_dir}/vestibule.yaml" \
    --template "vestibule:$here/vestibule.yaml" \
    --after "vestibule:sh -c 'curl -s http://127.0.0.1:{admin_port}/metrics | grep ^vestibule_decision_log_total'" \
    "$@"
