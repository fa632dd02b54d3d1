# `make` alone lists the targets. `make demo` and `make test` need nothing but
# Debian, Go and (for what is not installed yet) root: setup installs the rest.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

BIN     := bin/portolan
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X main.version=$(VERSION)
TOOL    := go tool -modfile=internal/tools/go.mod
FUZZTIME ?= 20s

# What the tests need beside Go: a C compiler for the race detector, SOAP stacks that we did not write, libxml2 as the
# judge of schema validity, a real Slurm with accounting and REST, sshd, and what the plug-in in Python imports. The real
# HTCondor comes into a folder of its own, as no package of this Debian has it (internal/testbed).
TEST_PACKAGES := gcc libc6-dev libxml2-utils xmlsec1 python3-zeep python3-lxml php-cli php-soap mono-devel mono-mcs \
  munge slurmctld slurmd slurm-client slurmdbd slurmrestd slurm-wlm-jwt-plugin mariadb-server \
  openssh-server iproute2 python3-grpcio python3-protobuf python3-cryptography protobuf-compiler libprotobuf-dev procps

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/portolan
	go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/portolan

.PHONY: demo
demo: build ## start a gateway, run a real JSDL job over SOAP, show its output, stop
	@docs/examples/demo.sh $(BIN)

.PHONY: setup
setup: ## install what the tests need (apt, as root; else say what is missing)
	@.ci/setup $(TEST_PACKAGES)

# The suites of real managers spend their time waiting for these, so two of them run side by side, those that bring up a whole
# manager apart from the others, and under the race detector in `make race` only.
# What has no goroutines, and so nothing for the race detector: tested in full instead, a million pairs of jobs and
# resources among that.
PURE := resourcemodel internal/broker/schedule internal/broker/policy

.PHONY: test
test: setup ## everything CI runs: vet, tests under the race detector, the whole suites of adapters and stores, end-to-end tests, the federation
	go vet ./...
	go test -race -short -timeout 60m $$(go list ./... | grep -v -e /internal/e2e -e '/adapters/\(slurm\|condor\|plugin\|boinc\)$$' $(PURE:%=-e '/%$$'))
	go test -p 2 -timeout 60m $(PURE:%=./%) $$(go list ./adapters/... ./internal/store/... | grep -v -e '/adapters/\(slurm\|condor\)$$')
	go test -p 2 -timeout 60m ./adapters/slurm ./adapters/condor
	go test -timeout 40m ./internal/e2e/...
	$(MAKE) --no-print-directory federation

.PHONY: thorough
thorough: setup ## the suites of adapters with five thousand jobs at each real manager, which take it an hour or more
	PORTOLAN_THOROUGH=1 go test -count 1 -v -p 1 -timeout 180m -run 'Suite|Commands|Example' ./adapters/...

.PHONY: check
check: ## format, vet and short tests: what anyone runs before handing work over
	@test -z "$$(gofmt -l cmd jsdl bes agreement resourcemodel peers adapters conformance internal 2>/dev/null)" || { gofmt -l .; exit 1; }
	go vet ./...
	go test -short ./...

.PHONY: race
race: ## every test under the race detector
	go test -race -timeout 40m ./...

.PHONY: sim
sim: ## ten thousand seeded federations in virtual time, with sessions, and as many with single messages; SEED=... repeats one of the first and prints what happened
	PORTOLAN_SIM_SEED=$(SEED) PORTOLAN_SIM_SEEDS=$(or $(SEEDS),10000) go test -count 1 -v -timeout 30m -run 'TestFederations$$|TestDetails$$' ./peers/simtest
	$(if $(SEED),,PORTOLAN_HANDOVER_SEEDS=$(or $(SEEDS),10000) go test -count 1 -v -run Federations ./peers/handover)

.PHONY: federation
federation: setup ## three domains with real managers, by themselves and as peers, under faults; needs root; SEED=... of the workload, PASSES=isolated,federated,faults are all of it
	PORTOLAN_FEDERATION=$(or $(PASSES),all) PORTOLAN_FEDERATION_SEED=$(SEED) go test -count 1 -v -timeout 20m -run 'TestFederation$$' ./internal/e2e/federation

.PHONY: bench
bench: ## the ratios of docs/performance.md, in one run
	go test -run '^$$' -bench Ratios -benchtime 1x -timeout 60m ./internal/e2e/bench ./resourcemodel ./internal/broker/schedule ./peers/exchange

TESTBED ?= /tmp/portolan-testbed
.PHONY: testbed testbed-down
testbed: setup ## bring a real Slurm and a real HTCondor up in TESTBED and say what to export
	@go run ./internal/testbed/up slurm $(TESTBED)/slurm
	@go run ./internal/testbed/up condor $(TESTBED)/condor

testbed-down: ## end them
	@go run ./internal/testbed/up down $(TESTBED)/slurm
	@go run ./internal/testbed/up down $(TESTBED)/condor

.PHONY: lint
lint: ## golangci-lint with the settings of .golangci.yml, gofumpt
	$(TOOL) golangci-lint run ./...
	@out=$$($(TOOL) gofumpt -l cmd jsdl bes agreement resourcemodel peers adapters conformance internal); test -z "$$out" || { echo "gofumpt would change:"; echo "$$out"; exit 1; }

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME (20s)
	@grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u | while read -r p; do \
	  for f in $$(grep -ho '^func Fuzz[A-Za-z0-9_]*' $$p/*_test.go | cut -c6-); do \
	    echo "== $$p $$f"; go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p; done; done

.PHONY: golden
golden: ## rewrite golden files; then read the diff
	go test ./jsdl ./bes ./internal/soap ./internal/broker -update

.PHONY: cover
cover: ## coverage by package
	go test -short -cover ./...

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist
