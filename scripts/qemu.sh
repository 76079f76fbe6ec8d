# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Where the SR-IOV host's QEMU is. Sourced after artefacts.sh, inside the sandbox.

# How it is configured: as little as the host needs.
qemu_options=(
	--target-list=x86_64-softmmu
	--without-default-features --without-default-devices --with-devices-x86_64=vifa
	--disable-download --disable-install-blobs --disable-fdt
	--enable-tcg --enable-kvm --enable-virtfs --enable-attr --enable-cap-ng
)

# Corrections of QEMU itself, which the distribution does not have.
qemu_patches=("$repo"/tools/testing/qemu/patches/*.patch)

# The directory with QEMU's source and build. The sources of the reference device are no part of
# its key: they are compiled in that same directory when they change.
qemu_tree() {
	printf '%s/qemu-%s\n' "$cache" "$(key_of "${qemu_options[*]}" \
		"$(cat /usr/src/"$QEMU_PACKAGE"_*.dsc "${qemu_patches[@]}")" "$(gcc --version)")"
}

qemu_binary() {
	printf '%s/build/qemu-system-x86_64\n' "$(qemu_tree)"
}
