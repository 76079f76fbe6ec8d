# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2054
#
# The suites of "make test". Sourced by scripts/test, which selects, compiles and reports, and by
# scripts/test-on-host, which runs the suites of the SR-IOV host.
#
# A suite is FORMAT:NAME. FORMAT, the format of the output, is an option of vifa-test-report. The
# function suite_NAME runs the suite: in scripts/test on this machine, in scripts/test-on-host on
# the SR-IOV host.

# The suites of this machine.
suites_here=(cargo:programs tap:fuzz)

# The suites of the SR-IOV host, in the order in which one boot runs them.
suites_on_host=(tap:kunit tap:selftests tap:random tap:vfio tap:migration tap:compatibility tap:network)

# The identity fields that the suite compatibility tests, one for each rule of comparison.
# scripts/compatibility tests all fields.
compatibility_fields=vendor,queues,features

# The devices of the SR-IOV host. Most suites use the first; the others lack a feature each. The
# devices of compatibility and the network cards follow. Without immediate readiness, as on most
# cards, the host waits 100 ms after each reset of a VF.
host_devices=(
	"vifa-pf,immediate-readiness=on,fault-injection=on,command-timeout-ms=1000"
	"vifa-pf,immediate-readiness=on,p2p=off,dirty-log=off,vfs=2,fault-injection=on,command-timeout-ms=1000"
	"vifa-pf,local-dirty=off,local-memory=1G,vfs=2,fault-injection=on,command-timeout-ms=1000"
)
network_cards=(igb igb)

# Selftests that require iommufd: those of DMA logging, and those that open a VF twice, which a
# group refuses. Kernels without iommufd lack fault injection and the dumps of DMA_API_DEBUG.
needs_iommufd=(
	logging tracked guest_goes_back_and_forth bounds.open_ends bounds.close_ends mapped_after_the_log
	log_meets memory.log_
	failure. needs_no_contiguous_pages bitmap_in_pieces no_memory_is_left
	calls_meet_a_reset gone.calls_fail gone.device_can_be_closed
)

# The suites of "make test" with KERNEL=..., another kernel for the SR-IOV host. The suites of this
# machine are left out, because the kernel does not affect them, and one migration is enough.
case ${KERNEL:-host} in
debug)
	suites_here=()
	suites_on_host=(tap:kunit tap:selftests tap:one-migration tap:unload tap:kmemleak)
	;;
distribution)
	suites_here=()
	suites_on_host=(tap:selftests tap:one-migration tap:unload)
	;;
esac
