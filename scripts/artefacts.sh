# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Artefacts: build results that the scripts keep outside the tree. Each artefact has a directory in
# the cache, named by a key: a hash of its inputs. A stamp marks a complete artefact, so the next
# run resumes an interrupted build. Sourced.

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${VIFA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vifa}
log_dir=$cache/logs

# shellcheck source=scripts/versions
. "$repo/scripts/versions"
# shellcheck source=scripts/step.sh
. "$repo/scripts/step.sh"

# key_of TEXT...: print the key of an artefact that is made from TEXT.
key_of() {
	printf '%s\n' "$@" | sha256sum | cut -c 1-12
}

# is_made DIR INPUTS: whether DIR holds the artefact made from exactly INPUTS (a key).
is_made() {
	[ "$(cat "$1/.made-from" 2>/dev/null)" = "$2" ]
}

mark_made() {
	printf '%s\n' "$2" >"$1/.made-from"
}

# name_current NAME DIR: let the link NAME in the cache point to DIR, for the user.
name_current() {
	ln -sfn "${2##*/}" "$cache/$1"
}

# with_lock NAME COMMAND...: run COMMAND while no other process makes NAME.
with_lock() {
	local name=$1 fd
	shift
	mkdir -p "$cache/locks"
	exec {fd}>"$cache/locks/$name"
	if ! flock --nonblock "$fd"; then
		printf 'waiting: another run is making the %s\n' "$name"
		flock "$fd"
	fi
	"$@"
	exec {fd}>&-
}

sandbox_key() {
	key_of "$DEBIAN_SUITE" "$LINUX_PACKAGE" "$QEMU_PACKAGE" \
		"$(cat "$repo/scripts/sandbox-packages")"
}

sandbox_dir() {
	printf '%s/sandbox-%s\n' "$cache" "$(sandbox_key)"
}

# The programs of tools/, which also run in the virtual machines.
programs_dir() {
	printf '%s/target/release\n' "$cache"
}

# forget_other_tree: remove what was compiled from another clone. In the sandbox all clones have
# the same path, and the build systems compare file times, which are meaningless between clones.
forget_other_tree() {
	[ "$(cat "$cache/tree" 2>/dev/null)" != "$VIFA_TREE" ] || return 0
	rm -rf "$cache/modules" "$cache/target"/*/.fingerprint/vifa* \
		"$cache/guest/target"/*/.fingerprint/vifa* \
		"$cache/fuzz/target"/*/*/.fingerprint/vifa* \
		"$cache/miri/target"/*/*/*/.fingerprint/vifa*
	printf '%s\n' "$VIFA_TREE" >"$cache/tree"
}

# enter_sandbox ARG...: run the calling script inside the sandbox, unless it already runs there.
enter_sandbox() {
	[ -z "${VIFA_IN_SANDBOX:-}" ] || return 0
	exec "$repo/scripts/sandbox" run "/vifa/scripts/${0##*/}" "$@"
}
