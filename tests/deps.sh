#!/usr/bin/env bash
# Installs the Debian packages that vlmd needs and that are missing. Elsewhere it prints the list and stops.
set -euo pipefail
packages=(build-essential pkg-config libmicrohttpd-dev libjansson-dev libjpeg62-turbo-dev libpng-dev libwebp-dev
    libgif-dev libopenblas-pthread-dev libpcre2-dev libutf8proc-dev libcmocka-dev python3 python3-pytest curl)
if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    # Not Debian: where the libraries are there already, go on.
    if pkg-config --exists libmicrohttpd jansson libjpeg libpng libwebp openblas libpcre2-8 libutf8proc 2>/dev/null; then
        exit 0
    fi
    echo "vlmd: this is not a Debian system; install the equivalents of: ${packages[*]}" >&2
    exit 1
fi
missing=()
for p in "${packages[@]}"; do
    # Any installed OpenBLAS flavour that pkg-config knows will do.
    [ "$p" = libopenblas-pthread-dev ] && pkg-config --exists openblas 2>/dev/null && continue
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0
sudo=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "vlmd: run as root, or install sudo, or: apt-get install ${missing[*]}" >&2; exit 1; }
    sudo=(sudo)
fi
echo "installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
