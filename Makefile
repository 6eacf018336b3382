GO ?= go
# Leaves out how cli would make manual pages, which takes a tenth of the time to start.
TAGS = urfave_cli_no_docs
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOTESTSUM = $(GO) run gotest.tools/gotestsum@v1.13.0 --format pkgname --format-hide-empty-pkg
BUILD = build
FUZZTIME ?= 60s

.PHONY: bench bench-check spec crash damage help build demo guests test check fmt vet cross fuzz soak scale lines cost

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 13

build: ## build the command into build/
	CGO_ENABLED=0 $(GO) build -trimpath -tags $(TAGS) -o $(BUILD)/ ./cmd/wasm-jobs

demo: build ## count the words in the Go toolchain's own sources
	$(GO) run ./guest-examples/wordcount/corpus "$$($(GO) env GOROOT)/src" > $(BUILD)/go-src.cbor
	$(BUILD)/wasm-jobs run guest-examples/wordcount/c/wordcount.wasm $(BUILD)/go-src.cbor -o $(BUILD)/words.cbor
	$(GO) run ./guest-examples/wordcount/top -n 20 $(BUILD)/words.cbor

guests: ## build the example guests whose compilers are installed
	$(MAKE) -C guest-examples c wat go
	for l in rust assemblyscript zig; do $(MAKE) --no-print-directory -C sdk/$$l build; done

# Failures in full, and what was skipped, with the reason.
# runtime/rewrite starts no goroutine, and compiles thousands of modules.
test: ## run all tests, under the race detector where that is bearable
	$(GOTESTSUM) -- -race -timeout 20m $$($(GO) list ./... | grep -v /runtime/rewrite)
	$(GOTESTSUM) -- -timeout 20m ./runtime ./runtime/rewrite ./runtime/wasi ./cmd/... ./guest-examples/... ./sdk/...

check: fmt vet cross ## what CI checks beside the tests

fmt:
	@files=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$files" || { echo "not formatted: $$files"; exit 1; }

vet:
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

cross:
	@for os in linux darwin windows; do for arch in amd64 arm64; do \
		echo "build for $$os/$$arch"; CGO_ENABLED=0 GOOS=$$os GOARCH=$$arch $(GO) build ./... || exit 1; \
	done; done

fuzz: ## run every fuzz target for FUZZTIME (60s)
	@for p in $$($(GO) list ./...); do for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
		echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$p || exit 1; \
	done; done

soak: ## the heavy tests many times over; guests that do not end, with the memory that takes
	$(GO) test -race -count 20 -run 'Cancel|Workers|Concurrent|Steal' ./host/... ./store/... ./runtime/...
	$(GO) test -count 1 -timeout 60m -v -run 'DeathSoak|HostStaysAlive' ./runtime -soak 1000

crash: ## kill a job 1,000 times at random moments, and let it go on
	$(GO) test -count 1 -timeout 60m -v -run CrashLoop ./cmd/wasm-jobs -crashes 1000

damage: ## 10,000 flipped bits in a store of 10 MB, and its last 64 KiB cut at every byte
	$(GO) test -count 1 -timeout 120m -v -run 'Flipped|Truncated' ./store/sqlite -flips 10000 -step 1

spec: ## the W3C core test suite through the rewriter, on both engines, with the count of assertions
	$(GO) test -count 1 -v -run 'Spec|Suite' ./runtime/binary ./runtime/rewrite

CHUNKS ?= 1000000

scale: build ## CHUNKS (1000000) chunks, in memory, durable and again, with the time and memory they took
	$(GO) test -count 1 -timeout 60m -v -run Scale ./cmd/wasm-jobs -scale -scale-chunks $(CHUNKS)

LINES_SIZE ?= 1073741824

lines: ## a file of LINES_SIZE bytes (1 GiB) through --lines, and through chunks and a pipe, with the memory that took
	$(GO) test -count 1 -timeout 120m -v -run '^TestLinesMemory$$' ./cmd/wasm-jobs -lines-size $(LINES_SIZE)

ROUNDS ?= 101

cost: ## what metering and isolation cost, as tables of ROUNDS (101) rounds
	RUNTIME_COST=$(ROUNDS) $(GO) test -count 1 -timeout 30m -v -run '^TestCost$$' ./runtime
	REWRITE_COST=$(ROUNDS) $(GO) test -count 1 -timeout 30m -v -run '^TestCost$$' ./runtime/rewrite

bench: ## compare with other ways to run chunks, and write bench/RESULTS.md
	$(MAKE) -C bench bench

bench-check: ## compare again, and fail where a ratio is worse than that of bench/results.json
	$(MAKE) -C bench check
