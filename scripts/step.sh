# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Steps: progress reports and logs of long actions. A step prints its title, counts its progress
# where possible, prints the elapsed time and keeps a log. If it fails, it prints the path and the
# end of the log. Sourced.
#
# Requires log_dir, the directory of the logs. Reads VIFA_LOG_DIR_SHOWN, the user's path of the
# same directory, which differs from log_dir inside the sandbox.

# Interval between reports of a running step without a terminal, in seconds.
readonly STEP_REPORT_INTERVAL=30

die() {
	printf '%s: error: %s\n' "${0##*/}" "$1" >&2
	shift
	[ $# -eq 0 ] || printf '    %s\n' "$@" >&2
	exit 1
}

elapsed_since() {
	local s=$(($(date +%s) - $1))
	printf '%d:%02d' $((s / 60)) $((s % 60))
}

on_terminal() {
	[ -t 1 ] && [ -z "${CI:-}" ]
}

# shown_log FILE: print the user's path of a log.
shown_log() {
	case $1 in
	"$log_dir"/*) printf '%s\n' "${VIFA_LOG_DIR_SHOWN:-$log_dir}${1#"$log_dir"}" ;;
	*) printf '%s\n' "$1" ;;
	esac
}

# Counters: each prints "done/total unit" from the log of a running step, or nothing if unknown.

count_packages() {
	awk '/^[0-9]+ upgraded, [0-9]+ newly installed/ { total = $3 }
		/^Setting up / { done++ }
		END { if (total) printf "%d/%d packages", done, total }' "$1"
}

# Objects of a kernel build. The total is the count of the last complete build.
count_kernel_objects() {
	awk -v total="${STEP_EXPECTED:-}" \
		'$1 ~ /^(CC|AS|AR|LD|RUSTC|BINDGEN|HOSTCC|HOSTRUSTC|EXPORTS|GEN|MODPOST)$/ { done++ }
		END { if (done) printf "%d%s objects", done, total ? "/" total : "" }' "$1"
}

# Ninja reports its progress: "[12/1340] Compiling ...".
count_ninja() {
	tail -c 4096 "$1" | tr '\r' '\n' |
		sed -n 's/^\[\([0-9]*\/[0-9]*\)\].*/\1 objects/p' | tail -n 1
}

# Cargo reports each crate that it compiles, but not the total.
count_crates() {
	awk '$1 == "Compiling" { done++ } END { if (done) printf "%d crates", done }' "$1"
}

count_nothing() {
	:
}

# step NAME TITLE COUNTER COMMAND...: run COMMAND as a step and write its output to NAME.log.
step() {
	local name=$1 title=$2 counter=$3 log start pid status=0 now next
	shift 3
	mkdir -p "$log_dir"
	log=$log_dir/$name.log
	start=$(date +%s)
	next=$((start + STEP_REPORT_INTERVAL))

	"$@" >"$log" 2>&1 </dev/null &
	pid=$!
	# Do not let a step outlive its script.
	trap 'kill "$pid" 2>/dev/null; wait "$pid" 2>/dev/null; trap - INT TERM; kill -INT $$' INT TERM

	on_terminal || printf '%s ...\n' "$title"
	while kill -0 "$pid" 2>/dev/null; do
		if on_terminal; then
			printf '\r\033[K%s  %s  %s' "$title" "$("$counter" "$log")" \
				"$(elapsed_since "$start")"
		else
			now=$(date +%s)
			if [ "$now" -ge "$next" ]; then
				printf '%s ... %s %s\n' "$title" "$("$counter" "$log")" \
					"$(elapsed_since "$start")"
				next=$((now + STEP_REPORT_INTERVAL))
			fi
		fi
		sleep 0.5
	done
	wait "$pid" || status=$?
	trap - INT TERM

	on_terminal && printf '\r\033[K'
	if [ "$status" -eq 0 ]; then
		printf '%s: done in %s\n' "$title" "$(elapsed_since "$start")"
		return 0
	fi
	{
		printf '%s: FAILED after %s (exit status %d). The end of its log:\n' \
			"$title" "$(elapsed_since "$start")" "$status"
		tail -n 20 "$log" | sed 's/^/    /'
		printf 'The whole log: %s\nFix the cause, then run the same command again.\n' "$(shown_log "$log")"
	} >&2
	return "$status"
}
