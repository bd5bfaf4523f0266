#!/bin/sh
# Makes sure that Chromium is there, which the tests of the server's page click through. Without it they are skipped.
command -v chromium >/dev/null && exit 0
command -v apt-get >/dev/null || { echo "no chromium: the tests of the page are skipped"; exit 0; }
as_root=""
[ "$(id -u)" = 0 ] || as_root="sudo -n"
echo "installing chromium"
$as_root apt-get -qq install --yes chromium >/dev/null 2>&1 ||
  { $as_root apt-get -qq update && $as_root apt-get -qq install --yes chromium >/dev/null 2>&1; } ||
  echo "chromium cannot be installed: the tests of the page are skipped"
