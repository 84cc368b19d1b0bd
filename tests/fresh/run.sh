#!/usr/bin/env bash
# Proves the README's two commands on a machine that has nothing: debootstraps a bare bookworm into a folder, clones
# this repository into it, and runs `make test` and `make run` there, then asks the running server about a picture.
# Needs root, debootstrap and a Debian mirror; not part of `make test`.
# usage: tests/fresh/run.sh [FOLDER]   (default /tmp/vlmd-fresh; made new)
set -euo pipefail
repo=$(cd "$(dirname "$0")/../.." && pwd)
root=${1:-/tmp/vlmd-fresh}
mirror=${MIRROR:-http://deb.debian.org/debian}
[ "$(id -u)" -eq 0 ] || { echo "run as root: debootstrap and chroot need it" >&2; exit 1; }
command -v debootstrap >/dev/null || apt-get install -y -qq debootstrap
cleanup() {
    for m in proc sys dev; do mountpoint -q "$root/$m" && umount -l "$root/$m"; done
    return 0
}
trap cleanup EXIT
cleanup
rm -rf "$root"
debootstrap --variant=minbase --include=git,make,gcc,libc6-dev,ca-certificates bookworm "$root" "$mirror"
# The machine's own way to the packages: sources, proxies and certificates are the host's.
cp /etc/resolv.conf "$root/etc/resolv.conf"
[ -d /etc/apt/apt.conf.d ] && cp -r /etc/apt/apt.conf.d/. "$root/etc/apt/apt.conf.d/"
[ -f /etc/ssl/certs/ca-certificates.crt ] && cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
rm -f "$root/etc/apt/sources.list"
cp -r /etc/apt/sources.list* "$root/etc/apt/" 2>/dev/null || true
for m in proc sys dev; do mount --bind "/$m" "$root/$m"; done
git clone -q "$repo" "$root/root/vlmd"
# Only these variables enter, as in a fresh login; proxy settings are how such a machine reaches its mirror.
in_root() { chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 ${http_proxy:+http_proxy=$http_proxy} ${https_proxy:+https_proxy=$https_proxy} bash -c "cd /root/vlmd && $1"; }
echo "== make test"
time in_root 'make test'
echo "== make run"
in_root 'make run' >"$root/run.log" 2>&1 &
for _ in $(seq 120); do
    curl -sf http://127.0.0.1:8000/health >/dev/null && break
    sleep 1
done
cat "$root/run.log"
picture=$(base64 -w0 "$repo"/docs/pictures/red-circle.png)
curl -sf http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' -d @- <<JSON
{"temperature": 0, "messages": [{"role": "user", "content": [
  {"type": "image_url", "image_url": {"url": "data:image/png;base64,$picture"}},
  {"type": "text", "text": "What is in the image?"}]}]}
JSON
echo
for p in $(pgrep -x vlmd); do # the one in there, no other
    [ "$(readlink "/proc/$p/root")" = "$root" ] && kill "$p"
done
wait || true
echo "== fresh machine: passed"
