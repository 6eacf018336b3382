# `make help` lists the targets.
GO ?= go
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
BUILD = build

.PHONY: help build test check vet fmt cross

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

build: ## build the command into build/
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BUILD)/ ./cmd/wasm-jobs

test: ## run all tests under the race detector
	$(GO) test -race ./...

check: fmt vet cross ## what CI checks beside the tests

fmt:
	@files=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$files" || { echo "not formatted: $$files"; exit 1; }

vet:
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

cross: ## build for every supported system
	@for os in linux darwin windows; do for arch in amd64 arm64; do \
		echo "build $$os/$$arch"; CGO_ENABLED=0 GOOS=$$os GOARCH=$$arch $(GO) build -o /dev/null ./... || exit 1; \
	done; done
