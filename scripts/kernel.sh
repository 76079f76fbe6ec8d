# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Where the test kernels are, and which kernels the driver is known to work with. Sourced after
# artefacts.sh, inside the sandbox.

# The source that kernels are built from.
kernel_source() {
	if [ -n "${KSRC:-}" ]; then
		[ -d "$KSRC/rust/kernel" ] || die "KSRC=$KSRC is not the source of a kernel with Rust"
		printf '%s\n' "$KSRC"
	else
		printf '%s/linux-source-%s\n' "$cache" \
			"$(dpkg-query --show --showformat '${source:Version}' "$LINUX_PACKAGE" | tr -c '0-9A-Za-z.\n' -)"
	fi
}

# kernel_build NAME: the directory that the kernel NAME is built in. A change of its configuration
# is followed there, incrementally; another source or tool chain has another directory.
kernel_build() {
	printf '%s/kernel-%s-%s\n' "$cache" "$1" \
		"$(key_of "$1" "$(kernel_source)" "$(gcc --version)" "$(rustc --version)" "$(bindgen --version)")"
}

# check_kernel_release TREE RELEASE: stop when the driver is not known to work with it.
check_kernel_release() {
	local series
	for series in $LINUX_KNOWN_SERIES; do
		case $2 in "$series" | "$series".* | "$series"-*) return 0 ;; esac
	done
	[ -z "${VIFA_UNSUPPORTED_KERNEL:-}" ] || return 0
	die "$1 is Linux $2, but VIFA is known to work with: $LINUX_KNOWN_SERIES" \
		"The in-kernel Rust API moves with every release. To try anyway: VIFA_UNSUPPORTED_KERNEL=1"
}

jobs_allowed() {
	printf '%s\n' "${VIFA_JOBS:-$(nproc)}"
}

# build_modules TREE KIND NAME ARGUMENT...: the modules that the kernel in TREE runs, in
# $cache/modules/NAME. KIND is host or guest.
build_modules() {
	local tree=$1 kind=$2 output=$cache/modules/$3 other
	shift 3
	case $kind in
	host) other=CONFIG_SAMPLE_VIFA_REFERENCE=n ;;
	guest) other=CONFIG_VIFA_VFIO_PCI=n ;;
	esac
	mkdir -p "$output"
	make -C "$tree" M="$repo" MO="$output" -j"$(jobs_allowed)" W=1 "$other" "$@" modules
}

# Where the kernel's own VFIO selftests are.
vfio_selftests() {
	printf '%s/vfio-selftests\n' "$cache"
}
