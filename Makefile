GO ?= go
# Leaves out the code that makes manual pages, which takes a tenth of the start time.
TAGS = urfave_cli_no_docs
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOTESTSUM = $(GO) run gotest.tools/gotestsum@v1.13.0 --format pkgname --format-hide-empty-pkg
BUILD = build
FUZZTIME ?= 60s

.PHONY: serve-load bench bench-check bench-cluster spec crash flow-crash chaos damage help build demo guests test check fmt vet voice tidy cross fuzz fuzz-engine soak scale lines look cost snapshot release-check image arm64 man

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 13

build: ## build the command into build/, without what only debuggers read
	CGO_ENABLED=0 $(GO) build -trimpath -tags $(TAGS) -ldflags=-w -o $(BUILD)/ ./cmd/wasm-jobs

snapshot: ## make the files of a release for all SYSTEMS in build/release, without a network
	GO="$(GO)" TAGS="$(TAGS)" release/snapshot

release-check: ## check .goreleaser.yaml and the workflows with the tools that read them; git needs a remote
	$(GO) run github.com/goreleaser/goreleaser/v2@v2.14.3 check
	$(GO) run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

image: ## build the container image wasm-jobs:snapshot with docker, podman or buildah
	GO="$(GO)" TAGS="$(TAGS)" release/image

man: build ## write the manual pages to build/man, and the completion scripts to build/completion
	$(BUILD)/wasm-jobs __man $(BUILD)/man
	@mkdir -p $(BUILD)/completion
	for s in bash zsh fish; do $(BUILD)/wasm-jobs completion $$s > $(BUILD)/completion/wasm-jobs.$$s || exit 1; done

demo: build ## count the words in the Go toolchain's own sources
	$(GO) run ./guest-examples/wordcount/corpus "$$($(GO) env GOROOT)/src" > $(BUILD)/go-src.cbor
	$(BUILD)/wasm-jobs run guest-examples/wordcount/c/wordcount.wasm $(BUILD)/go-src.cbor -o $(BUILD)/words.cbor
	$(GO) run ./guest-examples/wordcount/top -n 20 $(BUILD)/words.cbor

guests: ## build the example guests whose compilers are installed
	$(MAKE) -C guest-examples c wat go
	for l in rust assemblyscript zig; do $(MAKE) --no-print-directory -C sdk/$$l build; done

# Prints failures in full, and skipped tests with their reasons. runtime/rewrite and
# enginefuzz run without the race detector because they start no goroutine and compile
# thousands of modules, the scripts of the command because the packages below it are
# tested under it.
test: ## run all tests, most under the race detector
	$(GOTESTSUM) -- -race -timeout 40m $$($(GO) list ./... | grep -v -e /runtime/rewrite -e /runtime/internal/enginefuzz -e 'cmd/wasm-jobs$$')
	$(GOTESTSUM) -- -timeout 40m ./host ./runtime ./runtime/rewrite ./runtime/internal/... ./runtime/wasi ./cmd/... ./guest-examples/... ./sdk/...

check: fmt vet voice tidy cross ## the checks of CI other than tests

fmt:
	@files=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$files" || { echo "not formatted: $$files"; exit 1; }

vet:
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

voice: ## count the words and messages that CONTRIBUTING.md asks to avoid
	$(GO) test -count 1 -run '^TestVoice$$' .

# One system of each kind: the others differ from these only in small files. A release
# builds all.
CROSS ?= linux/arm64 darwin/arm64 windows/amd64

cross:
	@for system in $(CROSS); do echo "build for $$system"; \
		CGO_ENABLED=0 GOOS=$${system%/*} GOARCH=$${system#*/} $(GO) build ./... || exit 1; \
	done

# The benchmark is a module of its own, and its go.mod must know what the command needs.
tidy:
	@cd bench && $(GO) list -deps . >/dev/null

fuzz: ## run every fuzz target for FUZZTIME (60s)
	@for p in $$($(GO) list ./...); do for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
		echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 2s $$p || exit 1; \
	done; done

MODULES ?= 1000000000
TIME ?= 1h

fuzz-engine: ## compare the compiler with the interpreter and V8, on random modules, for TIME (1h) or MODULES of them
	GOGC=400 $(GO) test -count 1 -timeout 0 -v -run '^TestEngines$$' ./runtime/internal/enginefuzz -modules $(MODULES) -time $(TIME) -first $$(date +%s)000000

soak: ## the heavy tests 20 times; guests that do not end, with the memory they take
	$(GO) test -race -count 20 -run 'Cancel|Workers|Concurrent|Steal' ./host/... ./store/... ./runtime/...
	$(GO) test -count 1 -timeout 60m -v -run 'DeathSoak|HostStaysAlive' ./runtime -soak 1000

crash: ## kill a job 1,000 times at random moments, and resume it each time
	$(GO) test -count 1 -timeout 60m -v -run CrashLoop ./cmd/wasm-jobs -crashes 1000

flow-crash: ## kill the flow over source files 200 times at random moments, and those that make requests 50 times
	$(GO) test -count 1 -timeout 120m -v -run 'ExampleWordsKilled|FlowCrashes' ./cmd/wasm-jobs -kills 200
	$(GO) test -count 1 -timeout 120m -v -run 'ExampleShopKilled|FlowEffectsCrash' ./cmd/wasm-jobs -kills 50

CHAOS ?= 100

chaos: ## run CHAOS (100) jobs on a shared store, and kill, stop and cut off its workers and server
	$(GO) test -count 1 -timeout 120m -v -run 'Chaos|LostAnswers|Term$$|Watching|SlowWorker' ./cluster -chaos $(CHAOS)
	$(GO) test -count 1 -timeout 60m -v -run '^(TestOverlap|TestManyWorkers|TestUpkeepLong)$$' ./store/postgres -long

damage: ## flip 10,000 bits in a store of 10 MB, and cut its last 64 KiB at every byte
	$(GO) test -count 1 -timeout 120m -v -run 'Flipped|Truncated' ./store/sqlite -flips 10000 -step 1

spec: ## the W3C core test suite through the rewriter, on both engines, with the count of assertions
	$(GO) test -count 1 -v -run 'Spec|Suite' ./runtime/binary ./runtime/rewrite

arm64: ## the W3C suite, receipts, known faults and random modules on an emulated arm64
	$(GO) test -count 1 -timeout 60m -v -run '^TestArm64$$' .

CHUNKS ?= 1000000

scale: build ## CHUNKS (1000000) chunks: in memory, durable, and again; 1 GiB sent to a shared store; prints time and memory
	$(GO) test -count 1 -timeout 60m -v -run Scale ./cmd/wasm-jobs -scale -scale-chunks $(CHUNKS)

look: build ## the report of CHUNKS (1000000) chunks in Chromium, the page of 10,000 jobs, a scrape of 100 modules, and what they cost a job
	$(GO) test -count 1 -timeout 60m -v -run '^Test(ReportOfMany|ReportCost|UIManyJobs|UICost)$$' -bench '^BenchmarkScrape$$' ./cmd/wasm-jobs -scale -scale-chunks $(CHUNKS)

LINES_SIZE ?= 1073741824

lines: ## a file of LINES_SIZE bytes (1 GiB) with --lines, and with chunks and a pipe; prints memory
	$(GO) test -count 1 -timeout 120m -v -run '^TestLinesMemory$$' ./cmd/wasm-jobs -lines-size $(LINES_SIZE)

LOAD ?= 30s
REQUESTS ?= 10000000
CONNECTIONS ?= 10000

serve-load: ## a server under LOAD (30s) of overload, with CONNECTIONS idle ones, after REQUESTS, and ended and reloaded 100 times
	$(GO) test -count 1 -timeout 120m -v -run 'TestServe(Overload|Idle|Many|Takeover|EndsUnderLoad|ReloadsUnderLoad)' ./cmd/wasm-jobs \
		-serve-rounds 100 -serve-load $(LOAD) -serve-requests $(REQUESTS) -serve-connections $(CONNECTIONS)

ROUNDS ?= 101

cost: ## tables of the cost of metering and isolation, of ROUNDS (101, at least 9) rounds, in CPU time
	RUNTIME_COST=$(ROUNDS) $(GO) test -count 1 -timeout 30m -v -run '^TestCost$$' ./runtime
	REWRITE_COST=$(ROUNDS) $(GO) test -count 1 -timeout 30m -v -run '^TestCost$$' ./runtime/rewrite

CLUSTER_ROUNDS ?= 9

bench-cluster: ## what a job costs on a shared store, the server included, in CLUSTER_ROUNDS (9) rounds
	$(GO) test -count 1 -timeout 60m -v -run '^Test(Cost|WatchingCost)$$' ./cluster -rounds $(CLUSTER_ROUNDS)
	$(GO) test -count 1 -timeout 60m -v -run '^TestLeaseCost$$' ./store/postgres -long

bench: ## compare with other ways to run chunks and flows, and write bench/RESULTS.md
	$(MAKE) -C bench bench

bench-check: ## compare again, and fail if a ratio is worse than in the JSON files of bench/
	$(MAKE) -C bench check
