# SPDX-License-Identifier: GPL-2.0
#
# The user's targets. Kbuild holds what the kernel's build system reads.

KDIR ?= /lib/modules/$(shell uname -r)/build

# Targets that run in the sandbox use KDIR only if the user sets it.
ifneq ($(filter command line environment,$(origin KDIR)),)
export KDIR
endif
export KERNEL KSRC VIFA_CACHE VIFA_JOBS VIFA_UNSUPPORTED_KERNEL

.DEFAULT_GOAL := module
.PHONY: module demo shell test fuzz mutate miri lint bench sandbox kernel qemu clean clean-cache help

module: ## the driver and the guest's sample driver, for the kernel in KDIR (default: the running one)
	@scripts/check-kdir $(KDIR)
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules

demo: ## migrate a virtual machine, live, and check every byte (DEVICE)
	@scripts/demo $(if $(DEVICE),"$(DEVICE)")

shell: ## a shell on the SR-IOV host, with the driver loaded
	@scripts/shell

test: ## all tests: on this machine, in the kernel, on the SR-IOV host, end to end (SUITES)
	@VIFA_RANDOM_SECONDS=$(RANDOM_SECONDS) VIFA_RANDOM_SEED=$(RANDOM_SEED) scripts/test $(SUITES)

fuzz: ## fuzz the parsers of streams and save sets (FUZZ_SECONDS for each target)
	@scripts/fuzz --seconds $(or $(FUZZ_SECONDS),60)

mutate: ## check MUTATIONS mutated streams (default: 10 million)
	@scripts/mutate --count $(or $(MUTATIONS),10000000)

miri: ## the layer's tests under Miri
	@scripts/miri

lint: ## all checks of the source: rustfmt, clippy, checkpatch, shellcheck, other kernels
	@scripts/lint

bench: ## compare the driver with the kernel's own facilities (JSON, PLOTS, ROUNDS, QUICK)
	@scripts/bench $(if $(QUICK),--quick) $(if $(ROUNDS),--rounds "$(ROUNDS)") $(if $(JSON),--json "$(JSON)") \
		$(if $(PLOTS),--plots "$(PLOTS)")

sandbox: ## the root directory in which everything is built and run
	@scripts/sandbox create

kernel: ## the kernels of the SR-IOV host and of the guest (KSRC: another source)
	@scripts/build-kernel host
	@scripts/build-kernel guest

qemu: ## the SR-IOV host's QEMU with the reference device
	@scripts/build-qemu

clean: ## remove what "make module" built
	$(MAKE) -C $(KDIR) M=$(CURDIR) clean

clean-cache: ## remove what older versions of the tree left in the cache
	@scripts/clean-cache

help: ## this list
	@echo "Targets:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
		while IFS='|' read -r target text; do printf '%-14s %s\n' "$$target" "$$text"; done
	@echo "Variables:"
	@echo "  KDIR                     a built kernel tree, for modules and for the SR-IOV host"
	@echo "  KERNEL                   the kernel of make test: host (default), debug, distribution"
	@echo "  KSRC                     a kernel source tree to build the test kernels from"
	@echo "  VIFA_UNSUPPORTED_KERNEL  1: try a kernel release that VIFA does not support"
	@echo "  VIFA_CACHE               directory for all build results (default: ~/.cache/vifa)"
	@echo "  SUITES                   the test suites to run (default: all); see scripts/suites.sh"
	@echo "  RANDOM_SECONDS           run time of the random caller (default: 60)"
	@echo "  RANDOM_SEED              seed of the random caller (default: the time)"
	@echo "  DEVICE                   the device of the demo: reference (default) or igb"
	@echo "  FUZZ_SECONDS             run time of each fuzz target (default: 60)"
	@echo "  MUTATIONS                number of mutated streams (default: 10000000)"
	@echo "  JSON, PLOTS              a file for the bench's results, a directory for its plots"
	@echo "  ROUNDS, QUICK            number of rounds of the bench (default: 7); 1: two rounds"
	@echo "  VIFA_JOBS                number of parallel jobs (default: one for each processor)"
