# `make up` runs it, `make test` passes the tests; the rest is for developers.
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS  = -s -w -X github.com/vllm-gateway/vllm-gateway/internal/daemon.version=$(VERSION)
K6       = k6@v1.8.1
LINT     = honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: up test build lint race fuzz clients k6 baseline test-k6 vllm test-vllm

up: build # a simulated vLLM on :8000 and the gateway on :9000, until Ctrl-C
	@$(WITH_BOTH) trap 'exit 0' INT TERM; sleep 1; kill -0 $$sim $$gateway || exit 1; cat docs/hello.txt; wait $$gateway

test:
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	go vet ./...
	go test ./...

build:
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

lint:
	go run $(LINT) ./...
race:
	go test -race ./...
fuzz: # a minute for each parser of outside bytes
	@for t in openai/FuzzPeek openai/FuzzEvents openai/FuzzBody gateway/FuzzFind vllmsim/FuzzBody vllmsim/FuzzResponsesAndMessagesBody; do go test ./internal/$${t%/*} -run '^$$' -fuzz "^$${t#*/}$$" -fuzztime $(or $(FUZZTIME),60s) || exit 1; done
clients: # real OpenAI clients, through the gateway; VLLM_URL=http://… puts a real vLLM behind it
	cd clients && GOWORK=off go test -count 1 ./...

k6: bin/k6
bin/k6: # a program of its own (AGPL-3.0): run, never linked
	GOBIN=$(CURDIR)/bin go install -ldflags '-s -w' go.k6.io/$(K6)
baseline: build k6 # 10, 50 and 100 users, 7m30s; logs and metrics go to results/
	@mkdir -p results; $(WITH_BOTH) bin/k6 run --no-usage-report loadtests/baseline.js; code=$$?; \
	curl -sS localhost:9000/metrics >results/metrics.txt; exit $$code
test-k6: k6 # every load test against simulator and gateway, healthy and faulty
	cd loadtests && npm ci --no-audit --no-fund && npm run check
	K6=$(CURDIR)/bin/k6 go test -tags k6 -count 1 ./loadtests

vllm: build # a real vLLM on :8000, without a GPU; the first time it is installed
	@vllm/run
test-vllm: build k6 # the gateway before it; minutes, and 10 GB of memory
	K6=$(CURDIR)/bin/k6 go test -tags vllm -count 1 -timeout 30m -v ./vllm

LOG = $(if $(filter baseline,$(MAKECMDGOALS)),2>results/$(1).log)
WITH_BOTH = bin/vllm-sim $(call LOG,vllm-sim) & sim=$$!; sleep .3; bin/vllm-gateway $(call LOG,vllm-gateway) & gateway=$$!; \
	trap 'kill $$sim $$gateway 2>/dev/null; wait' EXIT;
