#!/usr/bin/env bash
# Installs the Debian packages that vlmd needs and that are missing; elsewhere prints the list and stops.
# usage: deps.sh [lint|fuzz|bench]   (the build's packages, and those of that target too)
set -euo pipefail
packages=(build-essential pkg-config libmicrohttpd-dev libjansson-dev libjpeg62-turbo-dev libpng-dev libwebp-dev
    libgif-dev libopenblas-pthread-dev libpcre2-dev libutf8proc-dev nettle-dev libcmocka-dev
    python3 python3-pytest curl)
case "${1:-}" in
lint) packages+=(clang-format-14 cppcheck git) ;;
fuzz) packages+=(clang libclang-rt-14-dev) ;;
bench) packages+=(wrk) ;;
esac
if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "vlmd: this is not a Debian system; install the equivalents of:" >&2
    printf '  %s\n' "${packages[@]}" >&2
    exit 1
fi
missing=()
for p in "${packages[@]}"; do
    # Any OpenBLAS that pkg-config finds will do.
    [ "$p" = libopenblas-pthread-dev ] && pkg-config --exists openblas 2>/dev/null && continue
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0
sudo=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "vlmd: run as root, or with sudo: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    sudo=(sudo)
fi
echo "installing: ${missing[*]}"
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
