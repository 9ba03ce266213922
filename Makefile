# The targets that people use carry a comment after ##; `make help` prints them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

GO      ?= go
BIN     := bin
TOOLS   := .ci/bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
SYSTEMS := linux/amd64 windows/amd64 windows/arm64 darwin/arm64
BASE    ?= HEAD~1

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: build ## Central management and agent on this machine: from nothing to a proved certificate
	@$(GO) run ./agent/e2e/demo -bin $(BIN)

.PHONY: test
test: ## Run the tests that need nothing but Go
	$(GO) test ./...

.PHONY: build
build: ## Build the three programs into bin/
	@mkdir -p $(BIN)
	@$(GO) build -trimpath -tags grpcnotrace -ldflags '$(LDFLAGS)' -o $(BIN)/ ./agent/cmd/... ./server-stub

.PHONY: check
check: lint vet proto-check fresh race ## Lint, vet for every system, generated files fresh, tidy, race detector

.PHONY: lint
lint: $(TOOLS)/golangci-lint ## Lint, and what has files for Windows once more for Windows
	$(TOOLS)/golangci-lint run ./...
	@for a in amd64 arm64; do \
		echo "lint windows/$$a"; GOOS=windows GOARCH=$$a CGO_ENABLED=0 $(TOOLS)/golangci-lint run ./platform/... ./agent/cmd/... ./agent/helper/... ./agent/e2e/...; done

.PHONY: vet
vet: ## Vet for Linux (with and without cgo), Windows and macOS
	@for s in $(SYSTEMS); do \
		echo "vet $$s"; GOOS=$${s%/*} GOARCH=$${s#*/} CGO_ENABLED=0 $(GO) vet ./...; done
	$(GO) vet ./...
	$(GO) vet -tags mozilla,systemd ./agent/e2e # what is run by hand

.PHONY: race
race: ## Run the tests under the race detector
	$(GO) test -race -short ./...

.PHONY: proto-check
proto-check: $(TOOLS)/buf ## Lint the contracts and compare them with BASE for breaking changes
	cd proto && ../$(TOOLS)/buf lint
	@if git rev-parse -q --verify '$(BASE):proto/buf.yaml' >/dev/null; then \
		cd proto && ../$(TOOLS)/buf breaking --against '../.git#ref=$(shell git rev-parse -q --verify $(BASE)),subdir=proto'; \
	else echo "no earlier contract to compare with"; fi

.PHONY: generate
generate: $(TOOLS)/buf $(TOOLS)/protoc-gen-go $(TOOLS)/protoc-gen-go-grpc ## Make the generated files anew
	cd proto && PATH="$(CURDIR)/$(TOOLS):$$PATH" buf generate
	$(GO) generate ./...

.PHONY: fresh
fresh: generate ## Fail if generated files or go.mod are not what is committed
	$(GO) mod tidy
	@if [ -n "$$(git status --porcelain -- '*.pb.go' go.mod go.sum docs installer)" ]; then \
		git --no-pager diff --stat; echo 'Generated files are stale: run `make generate`, `go mod tidy`, and commit.' >&2; exit 1; fi

.PHONY: e2e
e2e: build ## Everything real: stores, judges, kills, dialogs, packages, Windows under Wine (installs Debian packages as root)
	.ci/install-e2e e2e-packages.txt package-tools.txt msi-tools.txt wine-packages.txt
	rm -f dist/*.deb dist/*.rpm dist/*.msi
	@$(MAKE) packages msi
	SMIME_AGENT_REQUIRE=1 SMIME_AGENT_DIST='$(CURDIR)/dist' SMIME_AGENT_ARTIFACTS='$(CURDIR)/dist/artifacts' \
		$(GO) test -count=1 -timeout 40m \
		./platform/... ./agent/e2e/... ./agent/smime ./agent/helper ./agent/state ./server-stub/...
	.ci/e2e-wine -session_wine -msi_wine # those are TestWine and TestWineMSI, which ran above

.PHONY: e2e-wine
e2e-wine: ## The column of Windows for real under Wine: stores, judge, kills (installs Debian packages as root)
	.ci/install-e2e wine-packages.txt msi-tools.txt
	.ci/e2e-wine $(WINE_STEPS)

.PHONY: bench
bench: ## Benchmarks, to be read as ratios within one run (docs/measurements.md); takes 15 minutes
	$(GO) test -run '^$$' -bench . -benchtime 2s ./agent/local ./agent/enroll ./agent/state ./server-stub/...
	$(GO) test -run '^$$' -bench . -benchtime 1x -timeout 30m ./agent/e2e

.PHONY: fuzz
fuzz: ## Fuzz every parser for FUZZTIME each (default 30s)
	@for p in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
			echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $${FUZZTIME:-30s} $$p; done; done

# The tools have a module of their own, so that the product's go.mod stays short.
$(TOOLS)/golangci-lint: PKG = github.com/golangci/golangci-lint/v2/cmd/golangci-lint
$(TOOLS)/buf: PKG = github.com/bufbuild/buf/cmd/buf
$(TOOLS)/protoc-gen-go: PKG = google.golang.org/protobuf/cmd/protoc-gen-go
$(TOOLS)/protoc-gen-go-grpc: PKG = google.golang.org/grpc/cmd/protoc-gen-go-grpc
$(TOOLS)/%: .ci/tools/go.mod
	@mkdir -p $(TOOLS)
	@echo "building $(notdir $@)"
	@cd .ci/tools && $(GO) build -o ../bin/ $(PKG)
	@touch $@

.PHONY: clean
clean: ## Remove what make built
	rm -rf $(BIN) dist $(TOOLS)

# Packages for Linux. A version that is not of a tag sorts by time, before 0.1.0.
PKG_VERSION ?= $(shell git describe --tags --match 'v[0-9]*' --exact-match 2>/dev/null | sed 's/^v//' | grep . || \
	TZ=UTC git log -1 --date=format-local:%Y%m%d%H%M%S --format=0.1.0~%cd.%h --abbrev=12)$(if $(shell git status --porcelain 2>/dev/null),+dirty)

.PHONY: deb
deb: $(TOOLS)/nfpm ## Package for Debian and its kin, into dist/
	GO='$(GO)' installer/linux/build.sh '$(PKG_VERSION)' '$(abspath $<)' agent deb

.PHONY: rpm
rpm: $(TOOLS)/nfpm ## Package for Fedora, RHEL, SUSE and their kin, into dist/
	GO='$(GO)' installer/linux/build.sh '$(PKG_VERSION)' '$(abspath $<)' agent rpm

.PHONY: packages
packages: $(TOOLS)/nfpm central-packages ## All packages for Linux
	GO='$(GO)' installer/linux/build.sh '$(PKG_VERSION)' '$(abspath $<)' agent deb rpm

.PHONY: central-packages
central-packages: $(TOOLS)/nfpm ## Central management's packages for Linux, deb and rpm, into dist/
	GO='$(GO)' installer/linux/build.sh '$(PKG_VERSION)' '$(abspath $<)' central deb rpm

# nfpm has a module of its own: it wants other versions than the other tools.
$(TOOLS)/nfpm: .ci/nfpm/go.mod
	@mkdir -p $(TOOLS)
	@echo "building $(notdir $@)"
	@cd .ci/nfpm && $(GO) build -o '$(abspath $@)' github.com/goreleaser/nfpm/v2/cmd/nfpm
	@touch $@

.PHONY: msi
msi: $(TOOLS)/go-winres ## Package for Windows, x64, into dist/ (Debian; as root it installs what it needs)
	.ci/install-e2e msi-tools.txt
	GO='$(GO)' installer/windows/build.sh '$(PKG_VERSION)' '$(abspath $<)'

# SIGN_PKCS12 and SIGN_PASSWORD_FILE, or SIGN_CERTIFICATES and SIGN_KEY; SIGN_TIMESTAMP (installer/windows/sign.sh).
.PHONY: sign-windows
sign-windows: $(TOOLS)/go-winres ## The same with both programs and the package signed, into dist/signed/
	.ci/install-e2e msi-tools.txt
	GO='$(GO)' SIGN_WITH='$(CURDIR)/installer/windows/sign.sh' installer/windows/build.sh '$(PKG_VERSION)' '$(abspath $<)'

# go-winres has a module of its own too.
$(TOOLS)/go-winres: .ci/winres/go.mod
	@mkdir -p $(TOOLS)
	@echo "building $(notdir $@)"
	@cd .ci/winres && $(GO) build -o '$(abspath $@)' github.com/tc-hib/go-winres
	@touch $@

.PHONY: e2e-packages
e2e-packages: build ## Packages: same bytes again, and a booted machine from install to purge (root; Debian)
	.ci/install-e2e package-tools.txt msi-tools.txt
	rm -f dist/*.deb dist/*.rpm dist/*.msi
	@$(MAKE) packages msi
	SMIME_AGENT_REQUIRE=1 SMIME_AGENT_DIST='$(CURDIR)/dist' $(GO) test -count=1 -timeout 20m \
		-run 'Test(Package|RPM|MSI|Signed|Reproducible|UnitIsHardened|Exposure|Scripts|ScriptsOfDocuments)$$' -v ./agent/e2e

.PHONY: e2e-systemd
e2e-systemd: build ## By hand: both packages, a database and a desktop on one booted machine, over two restarts (root; Debian)
	.ci/install-e2e e2e-packages.txt package-tools.txt
	rm -f dist/*.deb dist/*.rpm
	@$(MAKE) packages
	SMIME_AGENT_REQUIRE=1 SMIME_AGENT_DIST='$(CURDIR)/dist' SMIME_AGENT_ARTIFACTS='$(CURDIR)/dist/artifacts' \
		$(GO) test -tags systemd -count=1 -timeout 20m -run '^TestSystemd$$' -v ./agent/e2e

.PHONY: pictures
pictures: build ## Take the pictures of docs/user-guide.md anew (Debian; as root it installs what it needs)
	.ci/install-e2e picture-tools.txt
	localedef -i zh_CN -f UTF-8 zh_CN.UTF-8 && localedef -i en_US -f UTF-8 en_US.UTF-8
	dbus-run-session -- xvfb-run -a -s '-screen 0 900x600x24' $(GO) run ./agent/e2e/pictures -bin $(BIN) -out docs/img

# For whoever may use an SDK of Apple's where clang and lld are; no check needs it.
.PHONY: cross-darwin
cross-darwin: ## Vet and link both commands for macOS with cgo: DARWIN_SDK=/path/to/MacOSX.sdk
	@test -n '$(DARWIN_SDK)' -a -d '$(DARWIN_SDK)/System/Library/Frameworks/Security.framework' || { echo 'Say where the SDK is: make cross-darwin DARWIN_SDK=/path/to/MacOSX.sdk' >&2; exit 2; }
	@for arch in arm64 amd64; do \
		echo "macOS $$arch"; \
		export GOOS=darwin GOARCH=$$arch CGO_ENABLED=1 CGO_LDFLAGS=-fuse-ld=lld \
			CC="clang --target=$$([ $$arch = arm64 ] && echo arm64 || echo x86_64)-apple-macos12 -isysroot $(DARWIN_SDK)"; \
		$(GO) vet ./... || exit 1; \
		$(GO) build -trimpath -tags grpcnotrace -ldflags '$(LDFLAGS) -linkmode=external' -o dist/darwin-$$arch/ ./agent/cmd/... || exit 1; done
