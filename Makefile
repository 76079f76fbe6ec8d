# SPDX-License-Identifier: GPL-2.0
#
# The user's targets. What the kernel's build system reads is in Kbuild.

KDIR ?= /lib/modules/$(shell uname -r)/build

# For the targets that run in the sandbox, a kernel counts only when the user names it.
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

test: ## every test: on this machine, in the kernel, on the SR-IOV host, end to end (SUITES)
	@VIFA_RANDOM_SECONDS=$(RANDOM_SECONDS) VIFA_RANDOM_SEED=$(RANDOM_SEED) scripts/test $(SUITES)

fuzz: ## look for bytes that break what parses (FUZZ_SECONDS for each target)
	@scripts/fuzz --seconds $(or $(FUZZ_SECONDS),60)

mutate: ## judge MUTATIONS mutated streams (default: 10 million)
	@scripts/mutate --count $(or $(MUTATIONS),10000000)

miri: ## the layer's tests under Miri
	@scripts/miri

lint: ## every check of the source: rustfmt, clippy, checkpatch, shellcheck, other kernels
	@scripts/lint

bench: ## the driver against what the kernel does by itself (JSON, PLOTS, ROUNDS, QUICK)
	@scripts/bench $(if $(QUICK),--quick) $(if $(ROUNDS),--rounds "$(ROUNDS)") $(if $(JSON),--json "$(JSON)") \
		$(if $(PLOTS),--plots "$(PLOTS)")

sandbox: ## the root directory that everything is built and run in
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
	@echo "  KDIR                     a built kernel tree: for modules, and to run the SR-IOV host with"
	@echo "  KERNEL                   the kernel of make test: host (default), debug, distribution"
	@echo "  KSRC                     a kernel source tree to build the test kernels from"
	@echo "  VIFA_UNSUPPORTED_KERNEL  1: try a kernel that the driver is not known to work with"
	@echo "  VIFA_CACHE               where everything that is built is kept (default: ~/.cache/vifa)"
	@echo "  SUITES                   which tests run (default: all); scripts/suites.sh lists them"
	@echo "  RANDOM_SECONDS           how long the random caller calls (default: 60)"
	@echo "  RANDOM_SEED              what its calls follow from (default: the time)"
	@echo "  DEVICE                   what the demo migrates with: reference (default), or igb"
	@echo "  FUZZ_SECONDS             how long each fuzz target runs (default: 60)"
	@echo "  MUTATIONS                how many mutated streams are judged (default: 10000000)"
	@echo "  JSON, PLOTS              a file for the bench's results, a directory for its plots"
	@echo "  ROUNDS, QUICK            how often the bench measures (default: 7); 1: twice"
	@echo "  VIFA_JOBS                how many jobs run at once (default: one for each processor)"
