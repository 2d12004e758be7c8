#!/bin/sh
# Programs that tests need besides Python: tmux for the chat, a browser for the page. Where they
# cannot be installed, those tests are skipped.
here() {
    for name; do command -v "$name" > /dev/null && return; done
    return 1
}

missing=""
here tmux || missing="tmux"
here "$EDGE_EFT_TEST_BROWSER" chromium chromium-browser google-chrome ||
    missing="$missing chromium"
[ -z "$missing" ] && exit
if [ "$(id -u)" = 0 ] && here apt-get; then
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update && apt-get install -y --no-install-recommends $missing; } > /dev/null 2>&1 &&
        exit
fi
echo "not installed, and cannot be here; its tests are skipped:" $missing
