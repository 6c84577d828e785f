# syncagent: what one does with the source. `make help` lists it.

GO       ?= go
FUZZTIME ?= 10m
BENCH    ?=
SEEDS    ?= 10000
ROUNDS   ?= 40
TESTFLAGS ?=
PREFIX   ?= /usr/local

version := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
ldflags := -s -w -X main.version=$(version)
sources := $(shell find . -name '*.go' -not -path './.git/*' -not -path './bin/*')

# The race detector needs cgo and a C compiler.
cc   := $(shell [ "$$($(GO) env CGO_ENABLED)" = 1 ] && command -v $(firstword $(shell $(GO) env CC)))
race := $(if $(cc),-race)

.DEFAULT_GOAL := help
.PHONY: help demo test lint fuzz chaos faults bench build install deb proto clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build ## three agents on this machine, a cut and its healing; leaves nothing behind
	@test/demo.sh bin/syncagent

test: ## all tests, with the race detector where a C compiler is found
ifeq ($(race),)
	@echo 'no C compiler or CGO_ENABLED=0: testing without the race detector' >&2
endif
	$(GO) test $(race) -shuffle=on $(TESTFLAGS) ./...
ifneq ($(race),)
	$(GO) test $(TESTFLAGS) -run '^TestSimulation$$' ./crdtstore # many more seeds than fit beside the race detector
endif

lint: ## format, vet, golangci-lint (pinned in tools/go.mod), generated code up to date
	@test -z "$$(gofmt -l $(sources) | tee /dev/stderr)" || { echo 'gofmt: format the files above' >&2; exit 1; }
	$(GO) vet ./...
	$(GO) tool -modfile=tools/go.mod golangci-lint run --allow-parallel-runners
	@tools/generated.sh

fuzz: ## every fuzz target for FUZZTIME (10m)
	@test/fuzz.sh $(FUZZTIME)

chaos: ## SEEDS (10000) simulated histories, partitions in virtual time, ROUNDS (40) of faults for real processes (root)
	$(GO) test ./crdtstore -timeout 0 -run '^(TestSimulation|TestG1_EveryCrashImageConverges)$$' -v -seeds=$(SEEDS) -sim.all
	$(GO) test ./test/virtual -timeout 0 -v -schedules=300 -agents=100
	$(GO) test ./test/chaos -timeout 0 -v -rounds=$(ROUNDS)

faults: ## tests of the tests: planted faults must be found, dying at any named step must be survived
	$(GO) test -timeout 20m -tags faults -run 'PlantedFaults|Failpoints' -v ./crdtstore

bench: ## one table of figures beside their goals; BENCH=. runs the packages' own benchmarks that match, too
	$(GO) run ./test/bench -repeat 3
	$(if $(BENCH),$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem ./...)

build: ## bin/syncagent, static
	@[ -e bin/syncagent ] || echo 'building bin/syncagent; with a cold cache this takes a minute or two' >&2
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(ldflags)' -o bin/syncagent ./cmd/syncagent

install: build ## bin/syncagent into $(DESTDIR)$(PREFIX)/bin
	install -D -m 0755 bin/syncagent '$(DESTDIR)$(PREFIX)/bin/syncagent'

deb: build ## dist/syncagent_VERSION_ARCH.deb, the same bytes for the same commit
	@configs/deb.sh '$(version)'

proto: ## generate the API code from its .proto file
	$(GO) run ./agent/internal/protogen agent/api/v1/syncagent.proto agent/api/health/v1/health.proto

clean: ## remove what make built
	rm -rf bin dist
