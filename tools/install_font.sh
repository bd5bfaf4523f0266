#!/bin/sh
# Makes sure that the Noto Color Emoji font is there, which the training scenes and their tests are drawn with.
# Usage: install_font.sh PYTHON
set -e
find_font() { "$1" -c 'from tintype.data.glyphs import find_font; find_font()' 2>/dev/null; }

find_font "$1" && exit 0
if command -v apt-get >/dev/null; then
  as_root=""
  [ "$(id -u)" = 0 ] || as_root="sudo -n"
  echo "installing fonts-noto-color-emoji"
  $as_root apt-get -qq install --yes fonts-noto-color-emoji >/dev/null 2>&1 ||
    { $as_root apt-get -qq update && $as_root apt-get -qq install --yes fonts-noto-color-emoji >/dev/null; } || true
fi
find_font "$1" || { "$1" -c 'from tintype.data.glyphs import find_font; find_font()' 2>&1 | tail -n 1; exit 1; }
