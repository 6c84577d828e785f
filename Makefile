# syncagent: what one does with the source. `make help` lists it.

GO       ?= go
FUZZTIME ?= 10m
BENCH    ?=
SEEDS    ?= 10000
ROUNDS   ?= 40
TESTFLAGS ?=
PREFIX   ?= /usr/local

version := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
ldflags := -s -w -buildid= -X main.version=$(version)
sources := $(shell find . -name '*.go' -not -path './.git/*' -not -path './bin/*')

# The race detector needs cgo and a C compiler.
cc   := $(shell [ "$$($(GO) env CGO_ENABLED)" = 1 ] && command -v $(firstword $(shell $(GO) env CC)))
race := $(if $(cc),-race)

.DEFAULT_GOAL := help
.PHONY: help demo test lint fuzz chaos faults bench build install deb rpm tar packages proto clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z ]+:.*## /{printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build ## three agents on this machine, a cut and its healing; leaves nothing behind
	@test/demo.sh bin/syncagent

# They do a fraction of their work beside the race detector, and all of it without.
large := TestSimulation|TestG1_EveryCrashImageConverges|TestG2_G3_G4_RandomHistories|TestG12_TenThousandWatchersMissNothing

test: ## all tests, with the race detector where a C compiler is found
ifeq ($(race),)
	@echo 'no C compiler or CGO_ENABLED=0: testing without the race detector' >&2
endif
	$(GO) test $(race) -shuffle=on $(TESTFLAGS) ./...
ifneq ($(race),)
	$(GO) test $(TESTFLAGS) -run '^($(large))$$' ./crdtstore
endif

lint: ## format, vet, golangci-lint (pinned in tools/go.mod), generated code up to date
	@bad=$$(gofmt -l $(sources)); test -z "$$bad" || { echo "gofmt: format $$bad" >&2; exit 1; }
	$(GO) vet ./...
	$(GO) -C test/bench/stack vet ./...
	$(GO) tool -modfile=tools/go.mod golangci-lint run --allow-parallel-runners
	@tools/generated.sh

fuzz: ## every fuzz target for FUZZTIME (10m)
	@test/fuzz.sh $(FUZZTIME)

chaos: ## SEEDS (10000) simulated histories, partitions in virtual time, ROUNDS (40) of faults for real processes (root)
	$(GO) test ./crdtstore -timeout 0 -run '^(TestSimulation|TestG1_EveryCrashImageConverges)$$' -v -seeds=$(SEEDS) -sim.all
	$(GO) test ./crdtstore -timeout 0 -run '^TestG2_G3_G4_RandomHistories$$' -v -seeds=1000
	$(GO) test ./test/virtual -timeout 0 -v -schedules=300 -agents=100
	$(GO) test ./sync/mirror -timeout 0 -run '^Test(G8|Model)' -v -mirror.images=200 -mirror.long=10m -mirror.rounds=20
	$(GO) test ./test/e2e -timeout 0 -run ThreeHostsEdit -v -both=2m
	$(GO) test ./test/chaos -timeout 0 -v -rounds=$(ROUNDS)

faults: ## tests of the tests: planted faults must be found, dying at any named step must be survived
	$(GO) test -timeout 20m -tags faults -run 'PlantedFaults|Failpoints' -v ./crdtstore
	$(GO) test -count=1 -timeout 30m -tags faults -run 'Fault' -v ./test
	$(GO) test ./test -timeout 60m -run TestGuards -v -guards
	$(GO) test -count=1 -timeout 30m -tags faults -run 'Failpoints' -v ./test/e2e

bench: ## one table of figures beside their goals; BENCH=. runs the packages' own benchmarks that match, too
	$(GO) run ./test/bench -repeat 5
	$(if $(BENCH),$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem ./...)

build: ## bin/syncagent, static
	@[ -e bin/syncagent ] || echo 'building bin/syncagent; with a cold cache this takes a minute or two' >&2
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(ldflags)' -o bin/syncagent ./cmd/syncagent

install: build ## bin/syncagent into $(DESTDIR)$(PREFIX)/bin
	install -D -m 0755 bin/syncagent '$(DESTDIR)$(PREFIX)/bin/syncagent'

# bin/syncagent is of this machine and writes completions and man pages; the program that is packed may be of another.
arch   = $(or $(GOARCH),$(shell $(GO) env GOARCH))
packed = dist/linux-$(arch)/syncagent

deb rpm tar: ## a package for GOARCH (amd64, arm64) under dist/; the same commit gives the same bytes
	@$(MAKE) --no-print-directory build GOARCH=$$($(GO) env GOHOSTARCH)
	@mkdir -p $(dir $(packed))
	CGO_ENABLED=0 GOOS=linux GOARCH=$(arch) $(GO) build -trimpath -ldflags '$(ldflags)' -o $(packed) ./cmd/syncagent
	configs/package.sh $@ '$(version)' $(arch) $(packed) bin/syncagent

packages: ## all packages for amd64 and arm64, with SHA256SUMS
	@for arch in amd64 arm64; do for kind in deb rpm tar; do $(MAKE) --no-print-directory $$kind GOARCH=$$arch || exit; done; done
	cd dist && sha256sum *.deb *.rpm *.tar.gz >SHA256SUMS && cat SHA256SUMS

proto: ## generate the API code from its .proto file
	$(GO) run ./agent/internal/protogen agent/api/v1/syncagent.proto agent/api/health/v1/health.proto

clean: ## remove what make built
	rm -rf bin dist
