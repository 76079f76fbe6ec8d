# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034
#
# What "make test" consists of. Sourced by scripts/test, which chooses, makes and judges, and by
# scripts/test-on-host, which runs the suites of the SR-IOV host.
#
# A suite is a name, the form of what it writes (the word before the colon: an option of
# vifa-test-report), and a function suite_NAME that runs it: in scripts/test for a suite of this
# machine, in scripts/test-on-host for one of the SR-IOV host.

# Those of this machine, which need no SR-IOV host.
suites_here=(cargo:programs tap:fuzz)

# Those of the SR-IOV host, in the order in which they run in one boot.
suites_on_host=(tap:kunit tap:selftests tap:vfio tap:random tap:migration tap:compatibility tap:network)

# The fields of the identity that compatibility goes through, one for each rule that source and
# destination are compared by; scripts/compatibility has all.
compatibility_fields=vendor,queues,features

# What the SR-IOV host has: the first device is what most suites use, others lack something; those of
# compatibility and two network cards follow. A host waits 100 ms for each reset of those that are
# not ready immediately, as for most cards.
host_devices=(
	vifa-pf,immediate-readiness=on,fault-injection=on,command-timeout-ms=1000
	vifa-pf,immediate-readiness=on,p2p=off,dirty-log=off,vfs=2,fault-injection=on,command-timeout-ms=1000
	vifa-pf,local-dirty=off,vfs=2,fault-injection=on,command-timeout-ms=1000
)
network_cards=(igb igb)
