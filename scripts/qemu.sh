# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The path of the SR-IOV host's QEMU. Sourced after artefacts.sh, inside the sandbox.

# The minimal configuration of QEMU for the SR-IOV host.
qemu_options=(
	--target-list=x86_64-softmmu
	--without-default-features --without-default-devices --with-devices-x86_64=vifa
	--disable-download --disable-install-blobs --disable-fdt
	--enable-tcg --enable-kvm --enable-virtfs --enable-attr --enable-cap-ng
)

# Fixes for QEMU that the distribution does not have.
qemu_patches=("$repo"/tools/testing/qemu/patches/*.patch)

# Prints the directory of QEMU's source and build. Its key excludes the sources of the reference
# device, which are recompiled in this directory when they change.
qemu_tree() {
	printf '%s/qemu-%s\n' "$cache" "$(key_of "${qemu_options[*]}" \
		"$(cat /usr/src/"$QEMU_PACKAGE"_*.dsc "${qemu_patches[@]}")" "$(gcc --version)")"
}

qemu_binary() {
	printf '%s/build/qemu-system-x86_64\n' "$(qemu_tree)"
}
