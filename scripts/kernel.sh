# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The kernels, their paths, and the releases that the driver supports. Sourced after artefacts.sh,
# inside the sandbox.

# Builds are reproducible: the same source gives the same kernel on any machine at any time.
export KBUILD_BUILD_USER=vifa KBUILD_BUILD_HOST=sandbox KBUILD_BUILD_VERSION=1
export KBUILD_BUILD_TIMESTAMP="Thu Jan  1 00:00:00 UTC 1970"

# kernel_source: print the path of the source that kernels are built from.
kernel_source() {
	if [ -n "${KSRC:-}" ]; then
		[ -d "$KSRC/rust/kernel" ] || die "KSRC=$KSRC is not the source of a kernel with Rust"
		printf '%s\n' "$KSRC"
	else
		printf '%s/linux-source-%s\n' "$cache" \
			"$(dpkg-query --show --showformat '${source:Version}' "$LINUX_PACKAGE" | tr -c '0-9A-Za-z.\n' -)"
	fi
}

unpack_package() {
	local unfinished
	unfinished=$(kernel_source).unfinished
	rm -rf "$unfinished"
	mkdir "$unfinished"
	tar -x --strip-components=1 -C "$unfinished" -f "/usr/src/$LINUX_PACKAGE.tar.xz"
	mv "$unfinished" "$(kernel_source)"
}

unpack_package_once() {
	[ -d "$(kernel_source)" ] || step linux-source "kernel source: unpacking" count_nothing unpack_package
}

# unpack_source: unpack the package's source into the directory that kernel_source prints.
unpack_source() {
	[ -d "$(kernel_source)" ] || with_lock linux-source unpack_package_once
}

# config_note NAME WORD: print the value of "# WORD:" in the head of scripts/config/NAME.config.
config_note() {
	local config=$repo/scripts/config/$1.config
	[ ! -f "$config" ] || sed -n "s/^# $2: //p" "$config"
}

# kernel_options NAME: print the options of the kernel NAME, those of its base first.
kernel_options() {
	local base
	base=$(config_note "$1" Base)
	[ -z "$base" ] || kernel_options "$base"
	grep ^CONFIG_ "$repo/scripts/config/$1.config"
}

kernel_compiler() {
	local compiler
	compiler=$(config_note "$1" Compiler)
	printf '%s\n' "${compiler:-gcc}"
}

# compiler_of TREE: print the C compiler of the kernel in TREE, which its modules require.
compiler_of() {
	local name
	name=$(sed -n 's/^CONFIG_CC_VERSION_TEXT="\([^ ]*\) .*/\1/p' "$1/.config" 2>/dev/null)
	if grep -q '^CONFIG_CC_IS_CLANG=y' "$1/.config" 2>/dev/null; then
		name=clang
	fi
	if [ -n "$name" ] && command -v "$name" >/dev/null; then
		printf '%s\n' "$name"
	else
		printf 'gcc\n'
	fi
}

# kernel_build NAME: print the build directory of the kernel NAME. A change of the configuration is
# rebuilt there incrementally. A different source or tool chain has a different directory.
kernel_build() {
	printf '%s/kernel-%s-%s\n' "$cache" "$1" \
		"$(key_of "$1" "$(kernel_source)" "$("$(kernel_compiler "$1")" --version)" \
			"$(rustc --version)" "$(bindgen --version)")"
}

# Prints the release of the distribution's kernel, whose packages are in the sandbox.
distribution_release() {
	local package
	package=$(find /usr/src -maxdepth 1 -name 'linux-headers-*.deb' | sort --version-sort | tail -n 1)
	[ -n "$package" ] || die "the sandbox lacks the packages of the distribution's kernel"
	package=${package##*/linux-headers-}
	printf '%s\n' "${package%%_*}"
}

# Prints the directory of the image and the modules of the distribution's kernel.
distribution_image() {
	printf '%s/kernel-image-%s\n' "$cache" "$(key_of "$(distribution_release)")"
}

# The SR-IOV host's kernel: KERNEL selects one of several, KDIR sets a tree that is already built.
host_kernel() {
	printf '%s\n' "${KERNEL:-host}"
}

host_tree() {
	printf '%s\n' "${KDIR:-$(kernel_build "$(host_kernel)")}"
}

# host_image: print the path of the kernel image that the SR-IOV host boots.
host_image() {
	case $(host_kernel)${KDIR:+-KDIR} in
	distribution)
		printf '%s/usr/lib/modules/%s/vmlinuz\n' "$(distribution_image)" "$(distribution_release)"
		;;
	*) printf '%s/arch/x86/boot/bzImage\n' "$(host_tree)" ;;
	esac
}

# host_module: print the path of the driver for the SR-IOV host.
host_module() {
	printf '%s/modules/%s/drivers/vfio/pci/vifa/vifa-vfio-pci.ko\n' "$cache" "$(host_kernel)"
}

# check_host_kernel: fail if KERNEL is unknown.
check_host_kernel() {
	case $(host_kernel) in
	host | debug | distribution) ;;
	*) die "invalid KERNEL: got '$KERNEL', expected host, debug or distribution" ;;
	esac
}

# check_kernel_release TREE RELEASE: fail if the driver does not support RELEASE.
check_kernel_release() {
	local series
	for series in $LINUX_KNOWN_SERIES; do
		case $2 in "$series" | "$series".* | "$series"-*) return 0 ;; esac
	done
	[ -z "${VIFA_UNSUPPORTED_KERNEL:-}" ] || return 0
	die "$1 is Linux $2, but VIFA supports: $LINUX_KNOWN_SERIES" \
		"The in-kernel Rust API changes often. To try anyway: VIFA_UNSUPPORTED_KERNEL=1"
}

jobs_allowed() {
	printf '%s\n' "${VIFA_JOBS:-$(nproc)}"
}

# build_modules TREE KIND NAME ARGUMENT...: build the modules for the kernel in TREE, in
# $cache/modules/NAME, or only the targets in ARGUMENT. KIND is host or guest.
build_modules() {
	local tree=$1 kind=$2 output=$cache/modules/$3 other
	shift 3
	case $kind in
	host) other=CONFIG_SAMPLE_VIFA_REFERENCE=n ;;
	guest) other=CONFIG_VIFA_VFIO_PCI=n ;;
	esac
	mkdir -p "$output"
	make -C "$tree" M="$repo" MO="$output" CC="$(compiler_of "$tree")" -j"$(jobs_allowed)" W=1 "$other" "$@"
}

# The kernel's source with the driver in its place: links to both, except for the two files that
# have to include the driver.
source_with_driver() {
	printf '%s/linux-source-with-driver\n' "$cache"
}

make_source_with_driver() {
	local tree source inputs directory
	tree=$(source_with_driver)
	source=$(kernel_source)
	inputs=$(key_of "$source" "$repo")
	! is_made "$tree" "$inputs" || return 0
	rm -rf "$tree"
	for directory in . drivers drivers/vfio drivers/vfio/pci; do
		[ ! -L "$tree/$directory" ] || rm "$tree/$directory"
		mkdir -p "$tree/$directory"
		ln -s "$source/$directory"/* "$tree/$directory"
	done
	directory=drivers/vfio/pci
	rm "$tree/$directory"/{Kconfig,Makefile}
	sed "/^endmenu/i source \"$directory/vifa/Kconfig\"" "$source/$directory/Kconfig" \
		>"$tree/$directory/Kconfig"
	# shellcheck disable=SC2016 # make's variable
	sed '$a obj-$(CONFIG_VIFA_VFIO_PCI) += vifa/' "$source/$directory/Makefile" \
		>"$tree/$directory/Makefile"
	ln -s "$repo/$directory/vifa" "$tree/$directory/vifa"
	mark_made "$tree" "$inputs"
}

# Prints the directory of the kernel's VFIO selftests.
vfio_selftests() {
	printf '%s/vfio-selftests\n' "$cache"
}
