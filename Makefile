# `make up` runs it, `make test` passes the tests, `make help` lists the rest.
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS  = -s -w -X github.com/vllm-gateway/vllm-gateway/internal/daemon.version=$(VERSION)
K6       = k6@v1.8.1
K6_2     = v2.2.0
PROMETHEUS = github.com/prometheus/prometheus/cmd/$(1)@v0.316.0 # as in stack/go.mod
# Newer ones are not on every module proxy; to them our TestRuns are the same.
K6_OPERATOR = $$(go mod download -json github.com/grafana/k6-operator@v0.0.19 | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
# What is released is built with this Go, and checked with it: its library is half
# of each program.
TOOLCHAIN = go1.26.11
LINT     = honnef.co/go/tools/cmd/staticcheck@v0.8.2

# Each module is built by its own go.mod; go.work is for people and editors.
export GOWORK = off
ifeq ($(shell command -v go 2>/dev/null),)
$(error there is no go on this machine: install Go 1.26 or newer (https://go.dev/dl), or put it on PATH)
endif

.PHONY: up help build commands release test-release vulncheck test lint race test-plain test-reliability soak fuzz test-guide first-time
.PHONY: clients test-rules test-dashboard test-browser screenshots routing tuning bench bench-short bench-build
.PHONY: k6 baseline loadtest test-k6 images manifests test-k8s vllm test-vllm

up: build # gateway, Prometheus and dashboard before a simulated vLLM, until Ctrl-C
	@exec bin/vllm-stack $(ARGS)
help: # this list
	@awk -F ':[^#]*# ' '/^[a-z][a-z0-9-]*:[^#]*# / { printf "%-18s %s\n", $$1, $$2 }' Makefile

test: # gofmt, vet and all fast tests: under a minute, once all is compiled
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	go vet ./...
	go test -count 1 . && go test ./...
	cd stack && go vet -trimpath ./... && go test -trimpath ./... && go test -trimpath -count 1 -run TestCluster .
	cd k8s && go vet -tags cluster ./... && go test -count 1 .

build: commands # all programs, for this machine, in bin/
	cd stack && CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o ../bin/vllm-stack .
commands: # all but vllm-stack, in seconds
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

lint:
	go run $(LINT) -tags k6,vllm,reliability,guide,release ./...
	cd stack && go run $(LINT) -tags browser,routing,screenshots,tuning ./...
	cd k8s && go run $(LINT) -tags cluster . ./testdata/*/
race:
	go test -race ./...
	cd stack && go test -race ./monitor
test-plain: # without the parts of internal/http1 that are for Linux alone, as on other systems
	GOFLAGS=-tags=plain go test ./internal/http1 ./internal/gateway ./cmd/vllm-gateway
routing: # the policies before 64 simulators: docs/routing.md; ARGS=-update writes its table
	cd stack && go test -trimpath -tags routing -count 1 -run TestRoutingTable . $(ARGS)
tuning: # what the panels show as vLLM is tuned: docs/tuning.md; minutes; ARGS=-update writes its tables
	cd stack && go test -trimpath -tags tuning -count 1 -run TestTuning . $(ARGS)
test-reliability: # docs/reliability.md held against real processes, and haproxy; minutes
	go test -tags reliability -count 1 -timeout 15m -v -skip '^TestSoak$$' ./reliability
MINUTES = 3
soak: # all that goes wrong, for MINUTES=3
	SOAK_MINUTES=$(MINUTES) go test -tags reliability -count 1 -timeout 0 -v -run '^TestSoak$$' ./reliability
fuzz: # a minute for each parser of outside bytes; little of it to make finds smaller, which may else take most
	@for t in openai/FuzzPeek openai/FuzzEvents openai/FuzzAlike http1/FuzzChunks http1/FuzzRequest http1/FuzzResponseHead http1/FuzzConnection openai/FuzzBody openai/FuzzEstimate openai/FuzzFormWithModel config/FuzzConfig config/FuzzCut limits/FuzzCounts limits/FuzzValidate tracing/FuzzEnvironment gateway/FuzzFind gateway/FuzzSource gpu/FuzzRows vllmsim/FuzzBody vllmsim/FuzzResponsesAndMessagesBody verdict/FuzzK6 verdict/FuzzPrometheus ../bench/load/FuzzAnswer ../cmd/vllm-gateway/FuzzRequest; do go test ./internal/$${t%/*} -run '^$$' -fuzz "^$${t##*/}$$" -fuzztime $(or $(FUZZTIME),60s) -fuzzminimizetime 1s || exit 1; done
test-guide: bin/k6 # the commands of README.md, docs/monitoring.md and docs/tuning.md, as they stand
	go test -tags guide -count 1 -timeout 30m -v -run '^Test(Guide|Readme)$$' ./docs
first-time: # how long a newcomer waits for the first panel and the first verdict: README.md; a quarter of an hour
	@docs/first-time
clients: # real OpenAI clients, through the gateway; VLLM_URL=http://… puts a real vLLM behind it
	cd clients && go test -count 1 ./...
test-rules: bin/promtool # alerts and recorded series, by Prometheus's own tool
	bin/promtool check rules alerts/*.yml
	bin/promtool test rules alerts/tests/*.yml
test-dashboard: k6 # the dashboard by Grafana's types; k6's names as k6 writes them
	cd dashboards/check && npm ci --no-audit --no-fund && npm run check
	cd stack && K6=$(CURDIR)/bin/k6 go test -trimpath -count 1 -run TestDashboardK6 .
test-browser: # the page, and the stack with its demo load, in a real Chromium
	node --test --test-reporter dot stack/page/assets-tests/*.test.mjs
	cd stack && go test -trimpath -tags browser -count 1 ./page && go test -trimpath -tags browser -count 1 -run Browser .
screenshots: commands k6 # the pictures in docs/, of a real baseline, in Chromium: eight minutes; TIME_SCALE=0.1 to try it out, into results/screenshots
	cd stack && K6=$(CURDIR)/bin/k6 go test -trimpath -tags screenshots -count 1 -timeout 20m -v -run TestScreenshots .

bench: bench-build # the gateway beside nginx, haproxy and ReverseProxy: docs/performance.md; half an hour; ROUNDS=5, ARGS='-only W1b,W3 -targets nginx,gateway'
	bin/bench $(if $(ROUNDS),-rounds $(ROUNDS)) $(ARGS)
bench-short: bench-build # a minute, in which every byte counts and no figure does
	bin/bench -short $(ARGS)
bench-build: commands # what both need; root gets nginx and haproxy from apt where they are missing
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o bin/ ./bench ./bench/reverseproxy
	@for p in nginx haproxy; do \
	PATH=$$PATH:/usr/sbin command -v $$p >/dev/null && continue; \
	[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null || { echo "there is no $$p on this machine: install it, or leave it out: make bench ARGS='-targets gateway'"; continue; }; \
	apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q $$p || exit 1; done

release: # archives of all programs, for each platform, in dist/; PLATFORMS=linux/amd64 for less; minutes, the first time
	GOTOOLCHAIN=$(TOOLCHAIN) go run ./release -version '$(VERSION)' $(PLATFORMS)
test-release: # the archives for Linux: sums, versions, licences, SBOMs, what is static, and that they are the same twice
	go test -tags release -count 1 -timeout 20m -v ./release
vulncheck: # whether what is known to be vulnerable is called; says SKIPPED where Go's database cannot be had
	@TOOLCHAIN=$(TOOLCHAIN) release/vulncheck . stack k8s

images: # container images of our programs, in bin/images; no Docker needed
	go run ./images
manifests: # what in k8s/ is made from alerts/ and dashboards/
	cd k8s && go test -run TestGenerated -update .
# How an image gets onto the cluster's nodes, what runs a command on their network
# (nothing, if this machine reaches them), and what else the test needs to be told;
# see docs/kubernetes.md.
LOAD = docker load -i
NS =
STANDINS =
test-k8s: commands images bin/promtool bin/k6-operator.yaml $(if $(STANDINS),bin/prometheus bin/k6 bin/k6-operator) # the manifests, on the cluster of KUBECONFIG
	cd k8s && go run ./testdata/images $(if $(STANDINS),-standins) && go test -c -tags cluster -o ../bin/k8s.test .
	@for f in bin/images/*.tar bin/images/test/*.tar; do echo "$(LOAD) $$f"; $(LOAD) $$f >/dev/null || exit 1; done
	cd k8s && $(NS) ../bin/k8s.test -test.v -test.run '^TestCluster$$' -test.timeout 20m

bin/prometheus: # with what finds pods, and nothing else of clouds
	CGO_ENABLED=0 GOBIN=$(CURDIR)/bin go install -trimpath -tags 'remove_all_sd enable_kubernetes_sd' -ldflags '-s -w' $(call PROMETHEUS,prometheus)
bin/promtool:
	GOBIN=$(CURDIR)/bin go install -trimpath -tags remove_all_sd -ldflags '-s -w' $(call PROMETHEUS,promtool)
bin/k6-operator: # as its own go.mod has it
	cd "$(K6_OPERATOR)" && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $(CURDIR)/$@ .
bin/k6-operator.yaml:
	mkdir -p bin && install -m 644 "$(K6_OPERATOR)/bundle.yaml" $@
k6: bin/k6 # what runs the load tests, into bin/, once; two minutes
bin/k6: # a program of its own (AGPL-3.0): run, never linked
	GOBIN=$(CURDIR)/bin go install -ldflags '-s -w' go.k6.io/$(K6)
baseline: TEST = baseline
baseline: loadtest # 10, 50 and 100 users, 7m30s, against the stack that runs, else one without demo load
loadtest: build k6 # TEST=soak, or another of loadtests/; PROMETHEUS_URL=http://… for the figures and the verdict
	@loadtests/run $(TEST)
bin/k6-2: # the same, 2.x: its path has no list of versions everywhere, which go install wants
	dir=$$(mktemp -d) && cd $$dir && trap "rm -r $$dir" EXIT && printf 'module k6\nrequire go.k6.io/k6/v2 $(K6_2)\n' >go.mod && \
	printf 'package main\nimport "go.k6.io/k6/v2/cmd"\nfunc main() { cmd.Execute() }\n' >main.go && \
	go build -mod=mod -ldflags '-s -w' -o $(CURDIR)/bin/k6-2 .
test-k6: build bin/k6 bin/k6-2 # every load test against simulator and gateway, healthy and faulty, and its verdict
	cd loadtests && npm ci --no-audit --no-fund && npm run check
	K6=$(CURDIR)/bin/k6 go test -tags k6 -count 1 -parallel 12 ./loadtests
	K6=$(CURDIR)/bin/k6-2 go test -tags k6 -count 1 -parallel 12 -run 'Family/healthy|Baseline/healthy|Plan|Mistakes|Trace|WithoutGateway' ./loadtests
	cd stack && K6=$(CURDIR)/bin/k6 go test -trimpath -count 1 -parallel 6 -run TestLoadTest .

vllm: commands # a real vLLM on :8000, without a GPU; the first time it is installed
	@vllm/run
test-vllm: commands k6 # the gateway before it; minutes, and 10 GB of memory
	K6=$(CURDIR)/bin/k6 go test -tags vllm -count 1 -timeout 30m -v ./vllm
